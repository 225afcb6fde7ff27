"""Indexes of directories: what is wrong with them, and what is sound."""

from __future__ import annotations

import struct

import pytest

import ext3
from ext3.constants import FLAGS_SIGNED_HASH, FLAGS_UNSIGNED_HASH, SUPERBLOCK_OFFSET, InodeFlag
from ext3.device.base import MemoryDevice
from ext3.format.schema import SUPERBLOCK
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.directories import check_directories
from ext3.fsck.directory_index import is_node
from ext3.fsck.finding import Report
from ext3.fsck.inodes import check_inodes
from ext3.fsck.policy import Ask, CheckOnly, Policy, Preen, Yes
from tests.support.directory_damage import (
    BLOCK_SIZE,
    DIRECTORY,
    ENTRIES,
    INDEX_DAMAGE,
    IndexRecipe,
    change_block,
    damaged_index,
    directory_block,
    directory_blocks,
    indexed_image,
    put,
)
from tests.support.fsck_images import STAMP, Image, context_of
from tests.support.sessions import clock

OPTIONS = CheckOptions(force=True)


def run(image: bytes | bytearray, policy: Policy | None = None) -> tuple[Report, bytes]:
    device = MemoryDevice(bytes(image))
    report = check(device, policy or Yes(), options=OPTIONS, stamp=STAMP)
    return report, bytes(device.data)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def names(image: bytes | bytearray) -> dict[bytes, int]:
    with ext3.Filesystem.open(MemoryDevice(bytes(image))) as fs:
        return {entry.name: entry.ino for entry in fs.scandir(DIRECTORY)}


def has_index(image: bytes) -> bool:
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        return bool(fs.stat(DIRECTORY).flags & InodeFlag.INDEX)


@pytest.mark.parametrize("recipe", INDEX_DAMAGE.values(), ids=list(INDEX_DAMAGE))
def test_a_wrong_index_is_made_again_with_all_names(recipe: IndexRecipe) -> None:
    image = damaged_index(recipe)
    before = names(indexed_image(recipe.levels))
    report, after = run(image)
    assert report.exit_code == 1
    assert names(after) == before
    assert has_index(after)
    assert not run(after, CheckOnly())[0].findings
    with ext3.Filesystem.open(MemoryDevice(after)) as fs:
        for name, ino in before.items():
            assert fs.lookup(DIRECTORY + b"/" + name) == ino


@pytest.mark.parametrize(
    ("name", "code", "preen"),
    [
        ("reserved field", "index-root", 1),
        ("unknown hash version", "index-root", 1),
        ("length of the information", "index-root", 1),
        ("two levels", "index-root", 1),
        ("incompatible flag", "index-root", 1),
        ("limit", "index-limit", 1),
        ("more entries than fit", "index-count", 1),
        ("not ascending", "index-order", 1),
        ("leads outside", "index-block", 4),
        ("no entries", "index-wrong", 4),
        ("leads to the root", "index-wrong", 4),
        ("leaves swapped", "index-wrong", 4),
        ("a level more", "index-wrong", 4),
        ("other hash version", "index-wrong", 4),
        ("node: limit", "index-wrong", 4),
    ],
)
def test_what_is_said_and_what_preening_does(name: str, code: str, preen: int) -> None:
    image = damaged_index(INDEX_DAMAGE[name])
    assert codes(run(image, CheckOnly())[0]) == [code]
    report, after = run(image, Preen())
    assert report.exit_code == preen
    if preen == 1:
        assert has_index(after)
        assert not run(after, CheckOnly())[0].findings


@pytest.mark.parametrize("name", ["limit", "leads outside", "leaves swapped", "two levels", "node: not ascending"])
def test_a_wrong_index_that_is_to_stay(name: str) -> None:
    recipe = INDEX_DAMAGE[name]
    report, after = run(damaged_index(recipe), Ask(lambda finding: False))
    assert report.exit_code == 4
    assert has_index(after)
    assert names(after) == names(indexed_image(recipe.levels))


def test_a_block_that_two_entries_lead_to() -> None:
    image = bytearray(indexed_image(0))
    change_block(image, 0, put(ENTRIES + 12, "I", struct.unpack_from("<I", image, directory_block(image, 0) + ENTRIES + 4)[0]))
    report, _ = run(image, CheckOnly())
    assert report.findings[0].message.endswith("2 entries lead to block 1")


def test_a_leaf_that_no_entry_leads_to() -> None:
    image = bytearray(indexed_image(0))
    count = struct.unpack_from("<H", image, directory_block(image, 0) + ENTRIES + 2)[0]
    change_block(image, 0, put(ENTRIES + 2, "H", count - 1))
    report, _ = run(image, CheckOnly())
    assert "no entry leads to" in report.findings[0].message


def test_names_outside_of_the_range_of_their_entry() -> None:
    at = directory_block(bytearray(indexed_image(0)), 0) + ENTRIES + 8
    number, _, following = struct.unpack_from("<3I", indexed_image(0), at)
    for wrong, word in ((number // 2, "higher"), ((number + following) // 2, "lower")):
        image = bytearray(indexed_image(0))
        change_block(image, 0, put(ENTRIES + 8, "I", wrong))
        report, _ = run(image, CheckOnly())
        assert word in report.findings[0].message


def test_an_entry_that_continues_the_hash_of_the_leaf_before() -> None:
    image = bytearray(indexed_image(0))
    at = directory_block(image, 0) + ENTRIES + 8
    (number,) = struct.unpack_from("<I", image, at)
    change_block(image, 0, put(ENTRIES + 8, "I", number | 1))
    assert not run(image, CheckOnly())[0].findings


@pytest.mark.parametrize("levels", [0, 1])
def test_nodes_are_told_from_leaves(levels: int) -> None:
    image = bytearray(indexed_image(levels))
    blocks = [bytes(image[at : at + BLOCK_SIZE]) for at in directory_blocks(image)]
    root = struct.unpack_from("<H", blocks[0], ENTRIES + 2)[0]
    assert sum(map(is_node, blocks[1:])) == (root if levels else 0)


def high_names(signed: bool) -> bytes:
    """An image with an indexed directory of names with bytes above 127, hashed so."""
    device = MemoryDevice(bytes(indexed_image(0)))
    row = SUPERBLOCK.view(device.data, 1, SUPERBLOCK_OFFSET)
    row["s_flags"] = FLAGS_SIGNED_HASH if signed else FLAGS_UNSIGNED_HASH
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir(b"/high")
        for number in range(150):
            fs.create(b"/high/\xe4\xf6\xfc-%d-" % number + b"\xff" * 20)
    return bytes(device.data)


@pytest.mark.parametrize("signed", [True, False])
def test_the_signedness_of_hashes(signed: bool) -> None:
    image = bytearray(high_names(signed))
    assert not run(image, CheckOnly())[0].findings
    SUPERBLOCK.view(image, 1, SUPERBLOCK_OFFSET)["s_flags"] = FLAGS_UNSIGNED_HASH if signed else FLAGS_SIGNED_HASH
    report, after = run(image)
    assert codes(report) == ["index-wrong"]
    assert not run(after, CheckOnly())[0].findings


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_new_index_has_the_hash_of_the_filesystem(version: int) -> None:
    image = damaged_index(INDEX_DAMAGE["limit"])
    SUPERBLOCK.view(image, 1, SUPERBLOCK_OFFSET)["s_def_hash_version"] = version
    _, after = run(image)
    root = directory_block(bytearray(after), 0)
    assert after[root + 28] == version
    assert not run(after, CheckOnly())[0].findings


def test_an_index_is_judged_by_its_own_hash() -> None:
    """The hash of the superblock is that of new indexes only."""
    image = bytearray(indexed_image(0))
    SUPERBLOCK.view(image, 1, SUPERBLOCK_OFFSET)["s_def_hash_version"] = 2
    context = context_of(Image(image))
    check_inodes(context)
    check_directories(context)
    assert not context.report.findings
