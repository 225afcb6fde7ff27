from __future__ import annotations

import pytest

from ext3.errors import CorruptError
from ext3.format.geometry import Geometry
from ext3.format.group_desc import LOCATIONS
from ext3.format.group_desc_columns import group_ranges_overlap, outside_group, read_group_columns
from ext3.format.superblock import limit_violations, parse_superblock, read_superblock, superblock_violations
from ext3.format.violation import Violation

from ....support.fsck_volumes import volume


def test_a_violation_is_the_error_a_reader_raises():
    violation = Violation("superblock", "s_magic", 1, 2)
    error = violation.error
    assert (error.where, error.field, error.got, error.want) == ("superblock", "s_magic", 1, 2)
    assert str(violation) == str(error)


def test_a_sound_superblock_has_none():
    raw = volume().data[1024:2048]
    assert list(superblock_violations(raw, device_size=10 << 20)) == []
    assert list(limit_violations(raw)) == []


def test_all_violations_are_named_and_the_reader_raises_the_first():
    image = volume()
    image.set_super(s_inode_size=3, s_blocks_per_group=0, s_first_data_block=7)
    raw = image.data[1024:2048]
    found = list(superblock_violations(raw, device_size=10 << 20))
    assert [violation.field for violation in found] == ["s_inode_size", "s_first_data_block", "s_blocks_per_group"]
    with pytest.raises(CorruptError) as caught:
        parse_superblock(raw, device_size=10 << 20)
    assert str(caught.value) == str(found[0])


def test_a_log_block_size_beyond_the_limit_voids_the_rest():
    image = volume()
    image.set_super(s_log_block_size=0xFFFFFFFF, s_inode_size=3)
    assert [found.field for found in superblock_violations(image.data[1024:2048], device_size=10 << 20)] == ["s_log_block_size"]


def test_a_count_of_inodes_that_the_groups_contradict_comes_alone():
    image = volume()
    image.set_super(s_inodes_count=7)
    (found,) = superblock_violations(image.data[1024:2048], device_size=10 << 20)
    assert (found.field, found.got, found.want) == ("s_inodes_count", 7, volume().superblock.inodes_count)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("s_r_blocks_count", 5121),
        ("s_reserved_gdt_blocks", 257),
        ("s_first_ino", 10),
        ("s_first_ino", 1 << 20),
        ("s_log_frag_size", 1),
        ("s_frags_per_group", 8),
        ("s_desc_size", 77),
        ("s_desc_size", 2048),
        ("s_rev_level", 2),
        ("s_log_groups_per_flex", 32),
    ],
)
def test_values_beyond_their_limits(field, value):
    image = volume()
    image.set_super(**{field: value})
    assert [found.field for found in limit_violations(image.data[1024:2048])] == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [("s_r_blocks_count", 5120), ("s_reserved_gdt_blocks", 256), ("s_first_ino", 12), ("s_desc_size", 32)],
)
def test_values_at_their_limits(field, value):
    image = volume()
    image.set_super(**{field: value})
    assert list(limit_violations(image.data[1024:2048])) == []


def test_revision_0_has_no_first_inode():
    image = volume()
    image.set_super(s_rev_level=0, s_first_ino=0)
    assert list(limit_violations(image.data[1024:2048])) == []


@pytest.mark.parametrize("field", LOCATIONS)
def test_metadata_outside_of_its_group(field):
    image = volume()
    superblock = image.superblock
    geometry = superblock.geometry
    count = geometry.inode_table_blocks if field == "bg_inode_table" else 1
    first = geometry.first_block(1)
    last = first + geometry.block_count(1) - count
    for block, outside in ((first, False), (first - 1, True), (last, False), (last + 1, True), (0, True), (0xFFFFFFFF, True)):
        image.set_group(1, **{field: block})
        assert outside_group(superblock, read_group_columns(image.device, superblock), field).tolist() == [False, outside]


def test_metadata_that_overlaps():
    image = volume()
    superblock = image.superblock
    groups = read_group_columns(image.device, superblock).copy()
    assert not group_ranges_overlap(superblock, groups)
    groups["bg_block_bitmap"][1] = groups["bg_inode_table"][1] + 3
    assert group_ranges_overlap(superblock, groups)


def test_a_backup_can_be_read_with_its_descriptors():
    image = volume()
    primary = image.superblock
    backup = read_superblock(image.device, block=8193, block_size=1024)
    assert (backup.geometry, backup.uuid, backup.group_number) == (primary.geometry, primary.uuid, 1)
    own = read_group_columns(image.device, primary)
    assert (read_group_columns(image.device, backup, copy=1) == own).all()
    image.set_group(1, bg_inode_table=9)
    assert read_group_columns(image.device, primary)["bg_inode_table"][1] == 9
    assert (read_group_columns(image.device, backup, copy=1) == own).all()


def test_a_backup_of_another_block_size_is_none():
    with pytest.raises(CorruptError, match="block size"):
        read_superblock(volume().device, block=8193 * 2, block_size=512)


def geometry(first_meta_bg: int | None, groups: int) -> Geometry:
    return Geometry(
        block_size=1024,
        blocks=1 + groups * 8192,
        first_data_block=1,
        blocks_per_group=8192,
        inodes_per_group=8,
        inode_size=128,
        reserved_gdt_blocks=0,
        reserved_blocks=0,
        resize_inode=False,
        first_meta_bg=first_meta_bg,
    )


def test_copies_of_descriptors():
    plain = geometry(None, 70)
    assert plain.descriptor_copies(1) == [plain.descriptor_block(1, group) for group in plain.backup_groups]
    assert plain.descriptor_block(1, 3) == 1 + 3 * 8192 + 1 + 1


def test_copies_of_descriptors_in_their_own_groups():
    # 32 descriptors in a block: the first, second and last group of each 32 have it.
    meta = geometry(0, 70)
    assert [meta.descriptor_block(index) for index in range(3)] == [2, 1 + 32 * 8192, 1 + 64 * 8192]
    assert meta.descriptor_copies(0) == [1 + 8192 + 1, 1 + 31 * 8192]
    assert meta.descriptor_copies(1) == [1 + 33 * 8192, 1 + 63 * 8192]
    assert meta.descriptor_copies(2) == [1 + 65 * 8192]  # the last one would be group 95
    assert meta.descriptor_block(0, 1) == 1 + 8192 + 1
    assert meta.descriptor_block(2, 1) == 1 + 65 * 8192
    assert geometry(0, 65).descriptor_copies(2) == []
    assert geometry(0, 65).descriptor_block(2, 1) == 1 + 64 * 8192  # there is no second group
