"""Pass 5: bitmaps, padding, counts of groups and of the superblock; what repairs changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ext3
from ext3.check.bitmap_rows import pack_rows, range_text
from ext3.constants import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ext3.format.group_desc_columns import read_group_columns
from ext3.format.schema import GROUP_DESC, SUPERBLOCK
from ext3.fsck.bitmaps import check_bitmaps
from ext3.fsck.context import Context
from ext3.fsck.policy import Ask, CheckOnly, Policy, Preen, Yes
from tests.support.fsck_images import Image, filled_context

BLOCK = 1024


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Three groups, the last one short."""
    path = tmp_path_factory.mktemp("bitmaps") / "image"
    ext3.mkfs(path, 20 << 20)
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.mkdir("/d")
        fs.write_bytes("/d/file", b"x" * 30_000)
    return path.read_bytes()


@pytest.fixture
def image(pristine: bytes) -> Image:
    return Image(pristine)


def flip(image: Image, group: int, column: str, *bits: int) -> None:
    """Flip bits of a bitmap."""
    at = int(image.groups[column][group]) * BLOCK
    raw = bytearray(image.device.read(at, BLOCK))
    for bit in bits:
        raw[bit // 8] ^= 1 << bit % 8
    image.device.write(at, raw)


def set_group(image: Image, group: int, **fields: int) -> None:
    at = image.superblock.geometry.descriptor_block(0) * BLOCK + group * GROUP_DESC.size
    raw = bytearray(image.device.read(at, GROUP_DESC.size))
    for name, value in fields.items():
        GROUP_DESC.view(raw)[0][name] = value
    image.device.write(at, raw)
    image.groups = read_group_columns(image.device, image.superblock)


def set_super(image: Image, **fields: int) -> None:
    raw = bytearray(image.device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
    for name, value in fields.items():
        SUPERBLOCK.view(raw)[0][name] = value
    image.device.write(SUPERBLOCK_OFFSET, raw)


def checked(image: Image, policy: Policy | None = None, prepare: Callable[[Context], None] = lambda context: None) -> Context:
    """Context after passes 3 to 5, as far as they concern counts."""
    context = filled_context(image, policy)
    prepare(context)
    check_bitmaps(context)
    return context


def messages(context: Context) -> list[str]:
    return [str(finding) for finding in context.report.findings]


def repaired(context: Context) -> bytes:
    return context.storage.read(0, context.storage.size)


def free_bit(image: Image, group: int, column: str) -> int:
    """A bit in the middle of a bitmap that is not set."""
    raw = image.device.read(int(image.groups[column][group]) * BLOCK, BLOCK)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    return int(np.flatnonzero(bits == 0)[40])


def test_a_sound_filesystem_is_not_changed(image: Image) -> None:
    context = checked(image)
    assert not messages(context)
    assert not context.storage.pending
    report = context.report
    with ext3.Filesystem.open(image.device) as fs:
        assert report.inodes_used == fs.superblock.inodes_count - fs.superblock.free_inodes
        assert report.blocks_used == fs.superblock.blocks_count - fs.superblock.free_blocks
    assert (report.directories, report.block_size) == (3, BLOCK)
    assert report.files == 2  # the journal is one


def test_differences_are_named_in_ranges_of_one_finding(image: Image, pristine: bytes) -> None:
    bit = free_bit(image, 1, "bg_block_bitmap")
    first = image.superblock.geometry.first_block(1)
    flip(image, 1, "bg_block_bitmap", 0, 1, 2, bit, bit + 1, bit + 3)
    free = free_bit(image, 2, "bg_inode_bitmap")
    flip(image, 2, "bg_inode_bitmap", free)
    context = checked(image)
    ino = 2 * image.superblock.inodes_per_group + free + 1
    assert messages(context) == [
        f"group 1: block bitmap differs: +({first}--{first + 2}) -({first + bit}--{first + bit + 1}) -{first + bit + 3}",
        f"group 2: inode bitmap differs: -{ino}",
    ]
    assert context.report.exit_code == 1
    assert repaired(context) == pristine


@pytest.mark.parametrize(("policy", "code"), [(CheckOnly(), 4), (Preen(), 1), (Ask(lambda finding: False), 4)])
def test_policies(image: Image, pristine: bytes, policy: Policy, code: int) -> None:
    flip(image, 0, "bg_block_bitmap", free_bit(image, 0, "bg_block_bitmap"))
    damaged = image.data
    context = checked(image, policy)
    assert context.report.exit_code == code
    assert repaired(context) == (damaged if isinstance(policy, Ask) else pristine)


@pytest.mark.parametrize(
    ("group", "column", "bit", "code"),
    [
        (2, "bg_block_bitmap", -1, "block-bitmap-padding"),
        (2, "bg_block_bitmap", 5000, "block-bitmap-padding"),
        (1, "bg_inode_bitmap", -1, "inode-bitmap-padding"),
    ],
)
def test_padding_is_set(image: Image, pristine: bytes, group: int, column: str, bit: int, code: str) -> None:
    flip(image, group, column, bit % (8 * BLOCK))
    context = checked(image)
    assert [finding.code for finding in context.report.findings] == [code]
    assert repaired(context) == pristine


def test_padding_and_a_difference_in_one_bitmap(image: Image, pristine: bytes) -> None:
    flip(image, 1, "bg_inode_bitmap", free_bit(image, 1, "bg_inode_bitmap"), 8 * BLOCK - 1)
    context = checked(image)
    assert [finding.code for finding in context.report.findings] == ["inode-bitmap", "inode-bitmap-padding"]
    assert repaired(context) == pristine
    context = checked(image, Ask(lambda finding: finding.code == "inode-bitmap-padding"))
    assert [finding.code for finding in filled_and_checked(repaired(context)).report.findings] == ["inode-bitmap"]
    context = checked(image, Ask(lambda finding: finding.code == "inode-bitmap"))
    assert [finding.code for finding in filled_and_checked(repaired(context)).report.findings] == ["inode-bitmap-padding"]


def filled_and_checked(data: bytes) -> Context:
    return checked(Image(data))


@pytest.mark.parametrize(
    ("column", "code"),
    [
        ("bg_free_blocks_count", "group-free-blocks"),
        ("bg_free_inodes_count", "group-free-inodes"),
        ("bg_used_dirs_count", "group-directories"),
    ],
)
def test_counts_of_a_group(image: Image, pristine: bytes, column: str, code: str) -> None:
    want = int(image.groups[column][1])
    set_group(image, 1, **{column: want + 3})
    context = checked(image)
    assert [finding.code for finding in context.report.findings] == [code]
    assert (context.report.findings[0].got, context.report.findings[0].want) == (want + 3, want)
    assert repaired(context) == pristine


@pytest.mark.parametrize(("name", "code"), [("s_free_blocks_count", "free-blocks"), ("s_free_inodes_count", "free-inodes")])
def test_sums_of_the_superblock_are_excused(image: Image, pristine: bytes, name: str, code: str) -> None:
    set_super(image, **{name: 7})
    looked = checked(image, CheckOnly())
    assert [finding.code for finding in looked.report.findings] == [code]
    assert looked.report.exit_code == 0
    context = checked(image, Yes())
    assert context.report.exit_code == 1
    assert repaired(context) == pristine


def test_what_repairs_changed_is_no_fault_and_is_written(image: Image) -> None:
    def repair(context: Context) -> None:
        block = context.allocate_block(9000)
        file = image.ino("/d/file")
        with ext3.Filesystem.open(image.device) as fs:
            start, count = fs.block_map(file).extents[0][1:]
        context.free([(start, count)])
        context.free_inode(file)
        made = context.allocate_inode(0o040755)
        context.free_inode(image.ino("/lost+found"))
        assert block != start
        assert made != file

    context = checked(image, prepare=repair)
    assert not messages(context)
    assert context.storage.pending
    assert not context.allocated
    again = Image(repaired(context))
    later = filled_context(image)
    repair(later)
    judged = filled_context(again)
    judged.census = later.census
    check_bitmaps(judged)
    assert not messages(judged)


def test_a_repair_does_not_hide_other_differences(image: Image) -> None:
    bit = free_bit(image, 1, "bg_block_bitmap")
    flip(image, 1, "bg_block_bitmap", bit)
    block = image.superblock.geometry.first_block(1) + bit
    context = checked(image, prepare=lambda context: context.census.used.__setitem__(block, False))
    assert messages(context) == [f"group 1: block bitmap differs: -{block}"]

    def take(context: Context) -> None:
        assert context.allocate_block(block) == block
        context.free([(image.superblock.blocks_count - 1, 1)])

    assert not [text for text in messages(checked(image, prepare=take)) if "bitmap" in text]


def test_a_bitmap_without_a_place_is_passed_over(image: Image) -> None:
    set_group(image, 1, bg_block_bitmap=0)
    set_group(image, 2, bg_inode_bitmap=0xFFFFFFF0)
    context = filled_context(image)
    check_bitmaps(context)
    found = {(finding.code, finding.place.group) for finding in context.report.findings}
    assert found == {("block-bitmap", 2), ("group-free-blocks", 1), ("group-free-blocks", 2), ("free-blocks", None)}


@pytest.mark.parametrize("per_group", [8, 12, 4096, 4100])
def test_packed_rows_are_bits_with_padding(per_group: int) -> None:
    chance = np.random.default_rng(per_group)
    flags = chance.random(per_group * 4 - 3) < 0.5
    rows = pack_rows(flags, per_group, 1, 4, 1024)
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    for row in range(3):
        part = flags[(row + 1) * per_group : (row + 2) * per_group]
        assert (bits[row, : len(part)] == part).all()
        assert bits[row, len(part) :].all()


def test_ranges_as_text() -> None:
    numbers = np.array([3, 4, 5, 9, 10, 12])
    marked = np.array([True, True, False, False, False, True])
    assert range_text(numbers, marked) == "-(3--4) +5 +(9--10) -12"
    many = np.arange(0, 1000, 2)
    assert range_text(many, np.ones(500, bool)).endswith(" and 436 more")
