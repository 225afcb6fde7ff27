"""Passes 1B to 1D: each owner of a shared block gets a copy, contents are kept, and what if there is no room."""

from __future__ import annotations

import numpy as np
import pytest

import ext3
from ext3.constants import JOURNAL_INO
from ext3.device.base import MemoryDevice
from ext3.format.schema import SUPERBLOCK
from ext3.fsck.policy import Ask, CheckOnly, Preen, Stopped
from tests.support.fsck_inodes import BLOCK, STAMP, Inodes, codes, pass_1, repair, sample


def slots(image: Inodes, name: str) -> list[int]:
    return image.core(image[name])["i_block"].tolist()


def share(image: Inodes, source: str, slot: int, target: str, at: int) -> int:
    """Have ``target`` use a block of ``source``. Return it."""
    block = slots(image, source)[slot]
    image.core(image[target])["i_block"][at] = block
    return block


def owners_of(image: Inodes, block: int) -> int:
    return sum(block in slots(image, name) for name in image.numbers)


def test_block_of_two_files():
    image = sample()
    small, other = image.read("small"), image.read("other")
    block = share(image, "small", 1, "other", 3)
    report = repair(image)
    assert codes(report)[:2] == ["blocks-shared", "blocks-shared-dealt"]
    assert owners_of(image, block) == 1
    assert image.read("small") == small
    assert image.read("other") == other[: 3 * BLOCK] + small[BLOCK : 2 * BLOCK] + other[4 * BLOCK :]


def test_block_of_three_files():
    image = sample()
    block = share(image, "small", 1, "other", 3)
    share(image, "small", 1, "attr1", 0)
    assert codes(repair(image)).count("blocks-shared") == 2
    assert owners_of(image, block) == 1


def test_block_twice_in_one_file():
    image = sample()
    share(image, "other", 2, "other", 5)
    report = repair(image)
    assert codes(report)[0] == "blocks-shared"
    assert "the inode itself" in str(report.findings[0])
    assert image.read("other") == b"o" * 20_000
    assert len(set(slots(image, "other")[:12])) == 12


def test_block_of_metadata():
    image = sample()
    bitmap = int(image.groups["bg_inode_bitmap"][1])
    image.core(image["other"])["i_block"][0] = bitmap
    content = image.block(bitmap)
    report = repair(image)
    assert "metadata" in next(str(finding) for finding in report.findings if finding.code == "blocks-shared")
    assert image.read("other")[:BLOCK] == content
    assert bitmap not in slots(image, "other")


def test_shared_pointer_block():
    """Both keep the same content, each in blocks of its own."""
    image = sample()
    large = image.read("large")
    table = share(image, "large", 12, "small", 12)
    repair(image)
    assert owners_of(image, table) == 1
    tables = [image.block(slots(image, name)[12]) for name in ("large", "small")]
    blocks = [np.frombuffer(one, "<u4") for one in tables]
    assert not set(blocks[0][blocks[0] != 0]) & set(blocks[1][blocks[1] != 0])
    assert image.read("large") == large
    assert image.read("small")[12 * BLOCK :] == large[12 * BLOCK :]


@pytest.mark.parametrize("owner", ["small", "other"])
def test_data_that_another_inode_takes_for_pointers(owner):
    """What is illegal as a pointer is cleared in the copy only."""
    image = sample()
    block = slots(image, owner)[1]
    image.set_block(block, b"\xff\xff\xff\x7f" + bytes(BLOCK - 8) + b"\xff\xff\xff\x7e")
    content = image.read(owner)
    image.core(image["large"])["i_block"][13] = block
    report = repair(image)
    assert codes(report).count("inode-illegal-block") == 2
    assert image.read(owner) == content
    assert image.read("large")[: 80 * BLOCK] == bytes(range(256)) * 320


def test_pointers_that_another_inode_takes_for_data():
    """The last owner keeps the block, whichever it is, and its pointers are corrected there."""
    image = sample()
    table = slots(image, "large")[12]
    image.set_pointers(table, {3: 1 << 30})
    image.core(image["attr1"])["i_block"][0] = table
    raw = image.block(table)
    repair(image)
    assert image.block(slots(image, "attr1")[0]) == raw
    assert np.frombuffer(image.block(slots(image, "large")[12]), "<u4")[3] == 0
    assert image["attr1"] > image["large"]


def test_shared_directory_block():
    image = sample()
    share(image, "dir", 1, "small", 0)
    names = image.listing(image["dir"])
    content = image.read("small")
    repair(image)
    assert image.listing(image["dir"]) == names
    assert image.read("small") == content


def test_attribute_block_that_is_data_too():
    image = sample()
    block = int(image.core(image["attr1"])["i_file_acl"])
    image.core(image["attr2"])["i_file_acl"] = block
    image.core(image["other"])["i_block"][0] = block
    report = repair(image)
    assert "blocks-shared" in codes(report)
    acls = [int(image.core(image[name])["i_file_acl"]) for name in ("attr1", "attr2")]
    assert acls[0] == acls[1]
    assert acls[0] != slots(image, "other")[0]
    with ext3.Filesystem.open(image.device) as fs:
        assert fs.xattrs("/attr2")[b"user.long"] == b"v" * 300


def test_shared_block_of_the_journal():
    """The copy of its map in the superblock follows."""
    image = sample(journal=True)
    image.core(image["small"])["i_block"][0] = 0
    block = int(image.core(JOURNAL_INO)["i_block"][3])
    image.core(image["other"])["i_block"][0] = block
    repair(image)
    words = image.core(JOURNAL_INO)["i_block"].tolist()
    row = SUPERBLOCK.view(image.device.data, 1, 1024)[0]
    assert row["s_jnl_blocks"].tolist()[:15] == words


def test_preening_stops():
    image = sample()
    share(image, "small", 1, "other", 3)
    with pytest.raises(Stopped) as stop:
        pass_1(image, Preen(), shared=True)
    assert stop.value.finding.code == "blocks-shared"


def test_check_alone_writes_nothing():
    image = sample()
    share(image, "small", 1, "other", 3)
    before = image.data
    assert "blocks-shared" in codes(pass_1(image, CheckOnly(), shared=True))
    assert image.data == before


def test_refused():
    """Deleting is offered then."""
    image = sample()
    share(image, "small", 1, "other", 3)
    context = pass_1(image, Ask(lambda finding: False), shared=True)
    assert codes(context).count("blocks-shared-delete") == 2
    assert not context.storage.pending


def test_refused_and_deleted():
    image = sample()
    block = share(image, "small", 1, "other", 3)
    context = pass_1(image, Ask(lambda finding: finding.code == "blocks-shared-delete"), shared=True)
    assert codes(context) == ["blocks-shared", "blocks-shared-delete", "blocks-shared-dealt"]
    assert not context.census.mode[image["small"]]
    assert context.census.mode[image["other"]]
    assert context.census.used[block]
    assert not context.census.shared.any()


def full_image() -> Inodes:
    """Image without free blocks, in which two files share most of theirs."""
    device = MemoryDevice(2 << 20)
    ext3.mkfs(device, 2 << 20, block_size=BLOCK, journal=False, stamp=STAMP)
    with ext3.Filesystem.open(device, "r+") as fs:
        fs.write_bytes("/one", b"1" * 12 * BLOCK)
        fs.write_bytes("/two", b"2" * 12 * BLOCK)
        fs.write_bytes("/three", b"")
        fs.write_bytes("/rest", b"")
        with fs.open_file("/rest", "r+") as file:
            at = 0
            while True:
                try:
                    file.write_at(at, b"r" * BLOCK)
                except OSError:
                    break
                at += BLOCK
    return Inodes(device.data)


def test_no_room_for_copies():
    """The first owner is deleted, the other keeps the blocks."""
    image = full_image()
    image.core(image["three"])["i_block"][:12] = slots(image, "one")[:12]
    image.core(image["one"])["i_block"][:12] = slots(image, "two")[:12]
    report = repair(image)
    found = codes(report)
    assert found.index("blocks-shared-no-space") < found.index("blocks-shared-delete")
    assert b"one" not in image.listing()
    assert image.read("two") == b"2" * 12 * BLOCK


def test_blocks_of_a_deleted_inode_serve_for_copies():
    image = full_image()
    one, two = slots(image, "one"), slots(image, "two")
    image.core(image["one"])["i_block"][0] = two[0]
    image.core(image["rest"])["i_block"][0] = two[0]
    report = repair(image)
    assert codes(report).count("blocks-shared-delete") <= 1
    assert {b"two", b"rest"} <= set(image.listing())
    assert one
