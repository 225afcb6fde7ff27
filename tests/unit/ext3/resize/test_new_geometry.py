"""Geometry after a resize: descriptors, reserve, meta_bg, and last groups that are too short."""

from __future__ import annotations

import pytest

from ext3.errors import GeometryError
from ext3.format.geometry import Geometry, plan_geometry
from ext3.format.layout_columns import Table
from ext3.format.schema import GROUP_DESC
from ext3.resize.new_geometry import MAX_BLOCKS, geometry_of_size, metadata_end, resized_geometry

MIB = 1 << 20


def descriptors(geometry: Geometry) -> Table:
    """The descriptors of a fresh filesystem."""
    table = GROUP_DESC.zeros(geometry.groups)
    table["bg_block_bitmap"] = geometry.columns.block_bitmap
    table["bg_inode_bitmap"] = geometry.columns.inode_bitmap
    table["bg_inode_table"] = geometry.columns.inode_table
    return table


OLD = plan_geometry(64 * MIB, block_size=1024, reserved_percent=5)
GROUPS = descriptors(OLD)


def test_inside_the_reserve_nothing_moves() -> None:
    new = resized_geometry(OLD, GROUPS, 3000 * 1024)
    assert new.descriptor_blocks > OLD.descriptor_blocks
    assert new.descriptor_blocks + new.reserved_gdt_blocks == OLD.descriptor_blocks + OLD.reserved_gdt_blocks
    assert (new.columns.head_blocks[:8] == OLD.columns.head_blocks).all()
    assert (new.resize_inode, new.first_meta_bg) == (True, None)
    assert new.inodes == new.groups * OLD.inodes_per_group
    back = resized_geometry(new, descriptors(new), OLD.blocks)
    assert (back.reserved_gdt_blocks, back.blocks, back.groups) == (OLD.reserved_gdt_blocks, OLD.blocks, OLD.groups)


@pytest.mark.parametrize("reserve", [True, False])
def test_beyond_the_reserve_new_descriptors_lie_in_their_groups(reserve: bool) -> None:
    old = OLD._replace(reserved_gdt_blocks=2 if reserve else 0, resize_inode=reserve)
    new = resized_geometry(old, descriptors(old), 3000 * 1024)
    assert (new.resize_inode, new.reserved_gdt_blocks, new.first_meta_bg) == (False, 0, old.descriptor_blocks)
    assert (new.columns.head_blocks[:8] <= old.columns.head_blocks).all()
    # Groups of a meta group have no copy of the descriptors that follow the primary superblock.
    assert new.backup_groups[:10] == [1, 3, 5, 7, 9, 25, 27, 49, 81, 125]
    assert new.leading_backup_groups == [1, 3, 5, 7, 9, 25, 27]
    assert new.descriptor_copies(0) == [2 + group * 8192 for group in new.leading_backup_groups]
    assert new.descriptor_copies(1) == [1 + group * 8192 for group in (33, 63)]
    further = resized_geometry(new, descriptors(new), 6000 * 1024)
    assert further.first_meta_bg == new.first_meta_bg
    small = resized_geometry(further, descriptors(further), 200 * 1024)
    assert (small.first_meta_bg, small.descriptor_blocks) == (1, 1)


def test_first_meta_bg_never_exceeds_the_descriptor_blocks() -> None:
    """The kernel refuses it."""
    old = geometry_of_size(OLD, 3000 * 1024)._replace(resize_inode=False, reserved_gdt_blocks=0, first_meta_bg=9)
    assert geometry_of_size(old, 600 * 1024).first_meta_bg == 3
    assert geometry_of_size(old._replace(first_meta_bg=40), 6000 * 1024).first_meta_bg == 12


def test_the_reserve_never_exceeds_a_quarter_of_a_block() -> None:
    old = geometry_of_size(OLD, 3000 * 1024)._replace(reserved_gdt_blocks=255)
    assert geometry_of_size(old, 60 * 1024).reserved_gdt_blocks == 256


def test_share_reserved_for_root() -> None:
    assert OLD.reserved_blocks == 3276
    assert resized_geometry(OLD, GROUPS, 2 * OLD.blocks).reserved_blocks == 6552
    assert resized_geometry(OLD, GROUPS, OLD.blocks // 2).reserved_blocks == 1638


@pytest.mark.parametrize("groups", [8, 9])
def test_short_last_group(groups: int) -> None:
    """Its metadata and 50 blocks at least; group 9 has a backup."""
    overhead = geometry_of_size(OLD, 100_000).overhead(groups)
    start = 1 + groups * 8192
    for rest in (1, overhead, overhead + 49):
        assert resized_geometry(OLD, GROUPS, start + rest).blocks == start
    assert resized_geometry(OLD, GROUPS, start + overhead + 50).blocks == start + overhead + 50


def test_metadata_that_lies_elsewhere_is_not_cut() -> None:
    """The tables of a group with a stride may lie anywhere in it."""
    table = GROUPS.copy()
    table["bg_inode_table"][5] = OLD.columns.group_first[5] + 6000
    assert metadata_end(OLD, table, 5) == OLD.first_block(5) + 6000 + OLD.inode_table_blocks
    start = OLD.first_block(5)
    assert resized_geometry(OLD, table, start + 6400).blocks == start
    assert resized_geometry(OLD, table, start + 6600).blocks == start + 6600


def test_a_short_last_group_may_stay() -> None:
    """One that another program made shorter than is asked for here."""
    odd = geometry_of_size(OLD, 1 + 8 * 8192 + OLD.overhead(2) + 3)
    assert odd.groups == 9
    assert resized_geometry(odd, descriptors(odd), odd.blocks).blocks == odd.blocks
    assert resized_geometry(odd, descriptors(odd), odd.blocks + 1).blocks == odd.blocks + 1
    assert resized_geometry(odd, descriptors(odd), odd.blocks - 1).blocks == 1 + 8 * 8192


def test_limits() -> None:
    large = plan_geometry(64 * MIB, block_size=4096, inode_ratio=1 << 20)
    table = descriptors(large)
    new = resized_geometry(large, table, MAX_BLOCKS)
    assert MAX_BLOCKS - 32768 <= new.blocks <= MAX_BLOCKS
    with pytest.raises(GeometryError) as caught:
        resized_geometry(large, table, MAX_BLOCKS + 1)
    assert (caught.value.field, caught.value.most) == ("size", MAX_BLOCKS * 4096)
    small = plan_geometry(8 * MIB, block_size=1024)
    whole = resized_geometry(small, descriptors(small), MAX_BLOCKS)
    assert (whole.blocks, whole.groups, whole.inodes) == (MAX_BLOCKS, 1 << 19, small.inodes_per_group << 19)
    assert whole.inodes < 1 << 32 and whole.descriptor_copies(16383)[-1] < MAX_BLOCKS
    with pytest.raises(GeometryError) as caught:
        resized_geometry(small, descriptors(small), MAX_BLOCKS + 1)
    assert caught.value.most == MAX_BLOCKS * 1024
    many = large._replace(inodes_per_group=32768)
    most = 131071 * 32768
    assert resized_geometry(many, table, most).inodes < 1 << 32
    with pytest.raises(GeometryError) as caught:
        resized_geometry(many, table, most + 1)
    assert caught.value.most == most * 4096
    for blocks in (0, 1, 2, large.overhead(0) - 1):
        with pytest.raises(GeometryError) as caught:
            resized_geometry(large, table, blocks)
        assert caught.value.least == large.overhead(0) * 4096
