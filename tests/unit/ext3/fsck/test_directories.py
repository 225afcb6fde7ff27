"""Pass 2: what is said of damaged directories, what is left of them, and that both ways of judging agree."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

import ext3
from ext3.constants import SUPERBLOCK_OFFSET, Incompat, RoCompat
from ext3.device.base import MemoryDevice
from ext3.errors import DeviceError
from ext3.format.schema import SUPERBLOCK
from ext3.fsck import directories, directory_columns, storage
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions, Context
from ext3.fsck.directories import check_directories
from ext3.fsck.finding import Report
from ext3.fsck.inodes import check_inodes
from ext3.fsck.policy import Ask, CheckOnly, Policy, Preen, Yes
from tests.support.directory_damage import (
    BBBB,
    BLOCK_SIZE,
    CCCC,
    DAMAGE,
    DIRECTORY,
    INDEX_DAMAGE,
    SOUND,
    Recipe,
    both,
    damaged_image,
    damaged_index,
    directory_block,
    indexed_image,
    put,
    sample_image,
)
from tests.support.fsck_images import STAMP, Image, context_of
from tests.support.sessions import clock

FORCE = CheckOptions(force=True)


def run(image: bytes | bytearray, policy: Policy | None = None) -> tuple[Report, bytes]:
    """The report of a whole check, and the image after it."""
    device = MemoryDevice(bytes(image))
    report = check(device, policy or Yes(), options=FORCE, stamp=STAMP)
    return report, bytes(device.data)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def names(image: bytes, directory: bytes = DIRECTORY) -> set[bytes]:
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        return {entry.name for entry in fs.scandir(directory)}


def assert_repaired(image: bytes | bytearray) -> tuple[Report, bytes]:
    """One check repairs all, and a second one finds nothing."""
    report, after = run(image)
    assert report.exit_code == 1, report.findings
    again, _ = run(after, CheckOnly())
    assert not again.findings
    assert not again.exit_code
    return report, after


def context_before_pass_2(image: bytes | bytearray, policy: Policy | None = None) -> Context:
    context = context_of(Image(bytes(image)), policy)
    check_inodes(context)
    return context


@cache
def linked_image() -> bytes:
    """The sample with a file that has two names, to lead elsewhere."""
    device = MemoryDevice(sample_image())
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir(b"/other")
        fs.symlink(b"target", b"/other/link")
        fs.mknod(b"/other/fifo", 0o010644)
        fs.mknod(b"/other/device", 0o020644, (5, 1))
    return bytes(device.data)


def changed(recipe: Recipe) -> bytearray:
    """The sample with a recipe's change."""
    return damaged_image(recipe)


# -- records -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", DAMAGE.values(), ids=list(DAMAGE))
def test_damaged_blocks_are_repaired_at_once(recipe: Recipe) -> None:
    assert_repaired(changed(recipe))


@pytest.mark.parametrize("recipe", SOUND.values(), ids=list(SOUND))
def test_odd_but_sound_blocks_are_left_alone(recipe: Recipe) -> None:
    context = context_before_pass_2(changed(recipe))
    check_directories(context)
    assert not context.report.findings
    assert not context.storage.pending


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("rec_len zero", "directory-record"),
        ("name leaves its record", "directory-record"),
        ("dot unused", "dot-missing"),
        ("dot renamed", "dot-not-first"),
        ("dot without a NUL", "dot-not-terminated"),
        ("dot inode above all", "dot-inode"),
        ("dot is long", "dot-long"),
        ("dot-dot unused", "dotdot-missing"),
        ("dot-dot renamed", "dotdot-not-second"),
        ("dot-dot without a NUL", "dotdot-not-terminated"),
        ("dot-dot inode above all", "dotdot-inode"),
        ("second dot", "entry-dot"),
        ("second dot-dot", "entry-dotdot"),
        ("empty name", "entry-name-empty"),
        ("slash in a name", "entry-name"),
        ("inode one too high", "entry-inode"),
    ],
)
def test_what_is_said_first(name: str, code: str) -> None:
    report, _ = run(changed(DAMAGE[name]), CheckOnly())
    assert codes(report)[0] == code
    assert report.exit_code == 4
    preened, _ = run(changed(DAMAGE[name]), Preen())
    assert preened.stopped is not None
    assert preened.stopped.code == code


def test_a_name_keeps_its_place_and_loses_what_no_name_has() -> None:
    _, after = assert_repaired(changed(DAMAGE["slash in a name"]))
    assert b"a.bb" in names(after)
    _, after = assert_repaired(changed(DAMAGE["NUL in a name"]))
    assert b"a.bb" in names(after)
    _, after = assert_repaired(changed(DAMAGE["slash as a name"]))
    assert b"_" in names(after)  # '.' would be another damage


def test_what_follows_a_long_dot_is_kept_if_it_looks_like_dotdot() -> None:
    _, after = assert_repaired(changed(DAMAGE["dot takes the block"]))
    assert names(after) == names(sample_image())


@pytest.mark.parametrize("filetype", [True, False])
def test_a_lost_first_block_is_made_again(filetype: bool) -> None:
    image = changed(DAMAGE["all zero"])
    if not filetype:
        image = bytearray(without_file_types(image))
    _, after = assert_repaired(image)
    with ext3.Filesystem.open(MemoryDevice(after)) as fs:
        assert fs.lookup(b"/d/..") == fs.root
        assert fs.lookup(b"/d/.") == fs.lookup(b"/d")


def without_file_types(image: bytes | bytearray) -> bytes:
    """The image without the feature; its entries have types, which are to go."""
    data = bytearray(image)
    SUPERBLOCK.view(data, 1, SUPERBLOCK_OFFSET)["s_feature_incompat"] &= ~int(Incompat.FILETYPE) & 0xFFFFFFFF
    return bytes(data)


def test_file_types_without_the_feature_are_cleared() -> None:
    report, after = assert_repaired(without_file_types(sample_image()))
    assert set(codes(report)) == {"entry-type-feature"}
    block = directory_block(bytearray(after), 0)
    assert after[block + 7] == after[block + BBBB + 7] == 0
    assert run(without_file_types(sample_image()), Preen())[0].exit_code == 1


# -- where entries lead --------------------------------------------------------------------------------------------


def inode_of(path: bytes) -> int:
    with ext3.Filesystem.open(MemoryDevice(linked_image())) as fs:
        return fs.lookup(path, follow=False)


def led_to(ino: int, *, file_type: int | None = None) -> bytearray:
    """The image with the entry ``bbbb`` leading to another inode."""
    image = bytearray(linked_image())
    at = directory_block(image, 0) + BBBB
    struct.pack_into("<I", image, at, ino)
    if file_type is not None:
        image[at + 7] = file_type
    return image


@pytest.mark.parametrize(
    ("target", "code", "preen"),
    [
        (lambda: inode_of(b"/d"), "entry-self", 4),
        (lambda: 2, "entry-root", 4),
        (lambda: 1, "entry-inode", 4),
        (lambda: 8, "entry-inode", 4),
        (lambda: 900, "entry-unused", 1),
        (lambda: inode_of(b"/other"), "entry-directory-link", 4),
    ],
    ids=["itself", "root", "bad blocks", "journal", "a free inode", "a directory that has a name"],
)
def test_entries_that_may_not_be_are_deleted(target: Callable[[], int], code: str, preen: int) -> None:
    image = led_to(target(), file_type=2)
    report, after = assert_repaired(image)
    assert code in codes(report)
    assert b"bbbb" not in names(after)
    assert run(image, Preen())[0].exit_code == preen


def test_the_first_link_to_a_directory_stays() -> None:
    sub = inode_of(b"/d/sub")
    image = led_to(sub, file_type=2)
    report, after = assert_repaired(image)
    assert "entry-directory-link" in codes(report)
    assert b"bbbb" in names(after)  # it is in the first block, and the other name is not
    assert b"sub" not in names(after)


@pytest.mark.parametrize(
    ("found", "code", "exit_code"), [(2, "entry-type", 1), (0, "entry-type-unset", 0), (9, "entry-type", 1)]
)
def test_wrong_file_types_are_set(found: int, code: str, exit_code: int) -> None:
    image = bytearray(sample_image())
    at = directory_block(image, 0) + BBBB + 7
    image[at] = found
    report, after = run(image)
    assert codes(report) == [code]
    assert report.exit_code == exit_code
    assert after[at] == 1
    assert run(image, CheckOnly())[0].exit_code == (4 if exit_code else 0)


def test_names_are_counted_without_dotdot() -> None:
    context = context_before_pass_2(linked_image())
    check_directories(context)
    census = context.census
    names_of = {path: int(census.names[inode_of(path)]) for path in (b"/", b"/d", b"/d/sub", b"/d/bbbb", b"/other")}
    assert names_of == {b"/": 1, b"/d": 2, b"/d/sub": 2, b"/d/bbbb": 1, b"/other": 2}
    assert context.parent[inode_of(b"/d/sub")] == context.dotdot[inode_of(b"/d/sub")] == inode_of(b"/d")


def test_directories_that_are_no_longer_in_use_are_passed_over() -> None:
    context = context_before_pass_2(changed(DAMAGE["all zero"]))
    context.free_inode(inode_of(b"/d"))
    check_directories(context)
    assert "directory-record" not in codes(context.report)


# -- blocks --------------------------------------------------------------------------------------------------------


class Unreadable(MemoryDevice):
    """A device with bytes that cannot be read until they are written."""

    broken: set[int]

    def read(self, offset: int, size: int) -> bytes:
        if any(offset < at + BLOCK_SIZE and at < offset + size for at in self.broken):
            raise DeviceError("cannot be read")
        return super().read(offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        super().write(offset, data)
        self.broken = {at for at in self.broken if not (offset <= at and at + BLOCK_SIZE <= offset + len(data))}


@pytest.mark.parametrize("logical", [0, 1])
def test_an_unreadable_block_becomes_an_empty_one(logical: int) -> None:
    image = bytearray(sample_image())
    device = Unreadable(image)
    device.broken = {directory_block(image, logical)}
    report = check(device, Yes(), options=FORCE, stamp=STAMP)
    assert codes(report)[0] == "directory-block-unreadable"
    assert report.exit_code == 1
    assert not device.broken
    assert not run(bytes(device.data), CheckOnly())[0].findings


def test_an_unreadable_block_is_left_if_nobody_wants_it_replaced() -> None:
    image = bytearray(sample_image())
    device = Unreadable(image)
    device.broken = {directory_block(image, 1)}
    report = check(device, Ask(lambda finding: False), options=FORCE, stamp=STAMP)
    assert "directory-block-unreadable" in codes(report)
    assert report.exit_code == 4
    assert device.broken


# -- the filesystem ------------------------------------------------------------------------------------------------


def test_a_large_file_sets_the_feature() -> None:
    image = bytearray(sample_image())
    SUPERBLOCK.view(image, 1, SUPERBLOCK_OFFSET)["s_feature_ro_compat"] &= ~int(RoCompat.LARGE_FILE) & 0xFFFFFFFF
    context = context_before_pass_2(image)
    check_directories(context)
    assert not context.report.findings
    context.large_file = True
    check_directories(context_without_names(context))
    assert codes(context.report) == ["large-file-feature"]
    assert context.superblock.ro_compat & RoCompat.LARGE_FILE
    assert context.write_backups


def context_without_names(context: Context) -> Context:
    """The context as it was before pass 2."""
    context.census.names[:] = 0
    context.parent[:] = 0
    return context


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [*DAMAGE.values()], ids=[*DAMAGE])
def test_refused_repairs_leave_the_image_and_the_check_goes_on(recipe: Recipe) -> None:
    image = changed(recipe)
    report, after = run(image, Ask(lambda finding: False))
    assert report.exit_code == 4
    at = directory_block(image, recipe.logical)
    assert after[at : at + BLOCK_SIZE] == bytes(image[at : at + BLOCK_SIZE])
    assert_repaired(after)


def test_looking_counts_what_it_would_repair_and_writes_nothing() -> None:
    image = changed(DAMAGE["slash in a name"])
    report, after = run(image, CheckOnly())
    assert (report.exit_code, report.left, report.corrected) == (4, 1, 0)
    assert after == bytes(image)


# -- both ways agree -----------------------------------------------------------------------------------------------


def state(image: bytes | bytearray) -> tuple[object, ...]:
    context = context_before_pass_2(image)
    check_directories(context)
    return (
        context.census.names.tobytes(),
        context.parent.tobytes(),
        context.dotdot.tobytes(),
        sorted(context.to_rebuild),
        sorted(context.indexed),
        [(finding.code, finding.place) for finding in context.report.findings],
        context.storage.blocks,
    )


def everything_is_doubtful(batch: directory_columns.Batch) -> np.ndarray:
    return np.ones(len(batch._ino), np.bool_)


IMAGES: dict[str, Callable[[], bytes | bytearray]] = {
    "linear": sample_image,
    "links": linked_image,
    "index": lambda: indexed_image(0),
    "index of two levels": lambda: indexed_image(1),
    **{name: lambda recipe=recipe: changed(recipe) for name, recipe in DAMAGE.items()},
    **{name: lambda recipe=recipe: damaged_index(recipe) for name, recipe in INDEX_DAMAGE.items()},
}


@pytest.mark.parametrize("make", IMAGES.values(), ids=list(IMAGES))
def test_the_columns_agree_with_the_careful_way(make: Callable[[], bytes | bytearray], monkeypatch: pytest.MonkeyPatch) -> None:
    image = make()
    quick = state(image)
    monkeypatch.setattr(directories, "BATCH_BYTES", 3 * BLOCK_SIZE)
    assert state(image) == quick
    monkeypatch.setattr(directory_columns.Batch, "doubtful", everything_is_doubtful)
    assert state(image) == quick


@pytest.mark.parametrize("seed", range(20))
def test_the_columns_agree_on_random_bytes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(seed)
    image = bytearray((linked_image(), indexed_image(0), indexed_image(1))[seed % 3])
    for _ in range(8):
        block = directory_block(image, generator.choice((0, 1)))
        at = block + generator.randrange(0, BLOCK_SIZE, 2)
        image[at] = generator.randrange(256)
    quick = state(image)
    monkeypatch.setattr(directory_columns.Batch, "doubtful", everything_is_doubtful)
    assert state(image) == quick


@pytest.mark.parametrize("name", [*DAMAGE][::4])
def test_repairs_that_are_written_as_they_are_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = changed(DAMAGE[name])
    _, wanted = run(image)
    monkeypatch.setattr(directories, "BATCH_BYTES", BLOCK_SIZE)
    monkeypatch.setattr(storage, "MEMORY_BYTES", 0)
    assert assert_repaired(image)[1] == wanted


def test_sound_images_are_not_written_to() -> None:
    for image in (sample_image(), linked_image(), indexed_image(0), indexed_image(1)):
        context = context_before_pass_2(image)
        check_directories(context)
        assert not context.report.findings
        assert not context.storage.pending
        assert not context.to_rebuild


def test_two_damages_in_one_block() -> None:
    recipe = Recipe(both(put(BBBB + 7, "B", 5), put(CCCC + 8, "4s", b"c/cc")), "", 0)
    report, after = assert_repaired(changed(recipe))
    assert codes(report) == ["entry-type", "entry-name"]
    assert {b"bbbb", b"c.cc"} <= names(after)
