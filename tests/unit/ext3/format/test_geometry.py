"""Geometry: numbers that mke2fs was seen to give, and what must hold for every size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3.defaults import default_block_size, default_inode_ratio, default_journal_blocks
from ext3.errors import GeometryError
from ext3.format.geometry import Geometry, backup_groups, plan_geometry, reserved_share

MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40


class Known(NamedTuple):
    size: int
    block_size: int
    blocks: int
    groups: int
    inodes: int
    inodes_per_group: int
    inode_table_blocks: int
    descriptor_blocks: int
    reserved_gdt_blocks: int
    journal_blocks: int
    reserved_blocks: int
    overhead: int


KNOWN = [
    Known(8 * MIB, 1024, 8192, 1, 2048, 2048, 512, 1, 31, 1024, 409, 1572),
    Known(64 * MIB, 1024, 65536, 8, 16384, 2048, 512, 1, 255, 4096, 3276, 9494),
    Known(100 * MIB, 1024, 102400, 13, 25584, 1968, 492, 1, 256, 4096, 5120, 12067),
    Known(500 * MIB, 1024, 512000, 63, 128016, 2032, 508, 2, 256, 8192, 25600, 42654),
    Known(512 * MIB, 4096, 131072, 4, 32768, 8192, 512, 1, 31, 4096, 6553, 6251),
    Known(1 * GIB, 4096, 262144, 8, 65536, 8192, 512, 1, 63, 8192, 13107, 12629),
    Known(10 * GIB, 4096, 2621440, 80, 655360, 8192, 512, 1, 639, 16384, 131072, 63273),
    Known(64 * GIB, 4096, 16777216, 512, 4194304, 8192, 512, 4, 1020, 131072, 838860, 407565),
]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known.size // MIB}M")
def test_known_images(known: Known) -> None:
    """Facts of images made by mke2fs -t ext3 with its default 5 percent reserved."""
    geometry = plan_geometry(known.size, reserved_percent=5.0)
    for name in Known._fields:
        if name not in ("size", "journal_blocks", "overhead"):
            assert getattr(geometry, name) == getattr(known, name), name
    journal = default_journal_blocks(geometry.blocks)
    assert journal == known.journal_blocks
    assert int(geometry.columns.group_overhead.sum()) + journal + geometry.first_data_block == known.overhead


def test_places_of_the_first_and_last_group() -> None:
    geometry = plan_geometry(500 * MIB)
    assert [
        int(places[0])
        for places in (geometry.columns.block_bitmap, geometry.columns.inode_bitmap, geometry.columns.inode_table)
    ] == [
        260,
        261,
        262,
    ]
    assert int(geometry.columns.free_first[0]) == 770
    assert int(geometry.columns.block_bitmap[62]) == 507905
    assert int(geometry.columns.inode_table[62]) == 507907
    assert geometry.block_count(62) == 4095
    assert int(geometry.columns.free_counts[62]) == 3585


def test_too_many_inodes_make_smaller_groups() -> None:
    """129M in 4K blocks keeps the small type's 4096 bytes an inode: 8 blocks a time are taken off the groups."""
    geometry = plan_geometry(129 * MIB, block_size=4096)
    assert geometry.blocks_per_group == 31928


def test_an_explicit_block_size_keeps_the_inode_ratio() -> None:
    assert plan_geometry(500 * MIB, block_size=4096).inodes == 128000


def test_type_borders() -> None:
    assert [default_block_size(size) for size in (512 * MIB - 1, 512 * MIB)] == [1024, 4096]
    ratios = [default_inode_ratio(size) for size in (3 * MIB - 1, 3 * MIB, 512 * MIB, 4 * TIB, 16 * TIB)]
    assert ratios == [8192, 4096, 16384, 32768, 65536]
    assert [default_journal_blocks(n) for n in (2047, 2048, 32767, 32768, 33554432)] == [0, 1024, 1024, 4096, 262144]


def test_backups_lie_in_powers() -> None:
    assert backup_groups(1) == []
    assert backup_groups(130) == [1, 3, 5, 7, 9, 25, 27, 49, 81, 125]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("first_meta_bg", [None, 0, 2, 9])
def test_what_groups_begin_with(sparse: bool, first_meta_bg: int | None) -> None:
    """As Linux fs/ext4/balloc.c (ext4_bg_has_super, ext4_bg_num_gdb) has it; 32 descriptors fill a block of 1 KiB."""
    geometry = Geometry(
        block_size=1024,
        blocks=1 + 100 * 8192,
        first_data_block=1,
        blocks_per_group=8192,
        inodes_per_group=64,
        inode_size=128,
        reserved_gdt_blocks=0 if first_meta_bg is not None else 7,
        reserved_blocks=0,
        resize_inode=False,
        sparse_super=sparse,
        first_meta_bg=first_meta_bg,
    )
    assert geometry.descriptor_blocks == 4
    for group in range(100):
        has_super = not sparse or group in (0, 1, 3, 5, 7, 9, 25, 27, 49, 81)
        if first_meta_bg is None:
            want = has_super * (1 + 4 + 7)
        elif group < 32 * first_meta_bg:
            want = has_super * (1 + min(4, first_meta_bg))
        else:
            want = has_super + (group % 32 in (0, 1, 31))
        assert (geometry.has_super(group), geometry.head_count(group)) == (has_super, want), group
    columns = geometry.columns
    assert columns.head_blocks.tolist() == [geometry.head_count(group) for group in range(100)]
    assert columns.group_overhead.tolist() == [geometry.overhead(group) for group in range(100)]
    assert columns.group_first.tolist() == [geometry.first_block(group) for group in range(100)]
    assert columns.group_blocks.tolist() == [geometry.block_count(group) for group in range(100)]
    assert geometry.free_blocks == int(columns.free_counts.sum())


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (0, {}),
        (1, {}),
        (1024, {}),
        (8 * 1024, {}),
        (64 * MIB, {"block_size": 512}),
        (64 * MIB, {"block_size": 3000}),
        (64 * MIB, {"inode_size": 100}),
        (64 * MIB, {"inode_size": 64}),
        (64 * MIB, {"inode_size": 2048}),
        (64 * MIB, {"reserved_percent": 51.0}),
        (64 * MIB, {"reserved_percent": -1.0}),
        (64 * MIB, {"inode_ratio": 1}),
        (64 * MIB, {"inodes": 0}),
        (64 * MIB, {"inodes": -5}),
        (64 * MIB, {"inodes": 2**32}),
        (64 * MIB, {"inodes": 2**31}),
        (17 * TIB, {}),
        (5 * TIB, {"block_size": 1024}),
        (2**70, {}),
    ],
)
def test_numbers_that_make_no_filesystem(size: int, options: dict[str, int]) -> None:
    with pytest.raises(GeometryError) as caught:
        plan_geometry(size, **options)  # type: ignore[arg-type]
    assert str(caught.value)
    assert "\n" not in str(caught.value) + caught.value.hint


def check(geometry: Geometry, size: int) -> None:
    """What e2fsck and the kernel demand of any geometry."""
    bits = 8 * geometry.block_size
    assert geometry.size_bytes <= size
    assert geometry.blocks_per_group % 8 == 0
    assert 0 < geometry.blocks_per_group <= min(bits, 65528)
    assert geometry.inodes_per_group % 8 == 0
    assert 0 < geometry.inodes_per_group <= bits
    assert geometry.inodes > 11
    assert geometry.inodes < 2**32
    assert geometry.reserved_gdt_blocks <= geometry.block_size // 4
    assert geometry.descriptor_blocks * geometry.descriptors_per_block >= geometry.groups
    assert int(geometry.columns.group_blocks.sum()) == geometry.blocks - geometry.first_data_block
    assert np.all(geometry.columns.group_overhead <= geometry.columns.group_blocks)
    assert np.all(geometry.columns.inode_table + geometry.inode_table_blocks == geometry.columns.free_first)
    assert int(geometry.columns.free_counts.sum()) == geometry.free_blocks
    assert geometry.group_of_inode(1) == (0, 0)
    assert geometry.group_of_inode(geometry.inodes) == (geometry.groups - 1, geometry.inodes_per_group - 1)


@given(
    size=st.integers(2 * MIB, 3 * GIB) | st.integers(2 * MIB, 20 * MIB),
    block_size=st.sampled_from([None, 1024, 2048, 4096]),
    inode_size=st.sampled_from([128, 256, 512, 1024]),
    inodes=st.none() | st.integers(1, 2_000_000),
    reserved=st.floats(0, 50),
)
def test_every_geometry_is_sound(
    size: int, block_size: int | None, inode_size: int, inodes: int | None, reserved: float
) -> None:
    try:
        geometry = plan_geometry(size, block_size=block_size, inode_size=inode_size, inodes=inodes, reserved_percent=reserved)
    except GeometryError:
        # Only a count of inodes, or inodes as large as their share of the disk, leaves too little room above 2 MiB.
        assert inodes is not None or inode_size > 256 or size < 4 * MIB
        return
    check(geometry, size)
    if inodes is not None and geometry.groups == 1:
        assert geometry.inodes >= min(inodes, 65536 - geometry.block_size // inode_size) // 8 * 8


@pytest.mark.parametrize(
    ("reserved", "of_blocks", "blocks", "want"),
    [
        (0, 1000, 2000, 0),
        (50, 1000, 2000, 100),
        (50, 1000, 999, 49),
        (1, 102_400, 4882, 1),
        (1, 100, 1, 0),
        (600, 1000, 100, 50),
    ],
)
def test_the_share_of_reserved_blocks(reserved: int, of_blocks: int, blocks: int, want: int) -> None:
    assert reserved_share(reserved, of_blocks, blocks) == want
