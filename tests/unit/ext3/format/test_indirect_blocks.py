"""How many indirect blocks files need and where the inode leads; what they hold is read back in newfs/test_placed_map.py."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3.format.block_map import indirect_trees, map_limit, map_path
from ext3.format.indirect_blocks import blocks_needed, dense_count, file_limit, indirect_count, segment_extents
from ext3.format.indirect_blocks_columns import IndirectBlocks, dense_counts, dense_roots

P = 256
DOUBLE = 12 + P
TRIPLE = 12 + P + P * P
BORDERS = [0, 1, 11, 12, 13, DOUBLE - 1, DOUBLE, DOUBLE + 1, DOUBLE + P, DOUBLE + P + 1, 20_000, TRIPLE - 1, TRIPLE, TRIPLE + 1]
BORDERS += [TRIPLE + P, TRIPLE + P + 1, TRIPLE + P * 300 + 5, TRIPLE + P * P + 1]


@pytest.mark.parametrize("count", BORDERS)
def test_dense_files_are_counted_as_others(count: int) -> None:
    assert dense_count(count, P) == IndirectBlocks([(0, 1, count)] if count else [], P).count
    assert dense_count(count, P) == dense_counts(np.array(count), P)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 300)), max_size=20))
def test_files_with_holes_are_counted_as_they_are_packed(steps: list[tuple[int, int]]) -> None:
    """With 16 pointers a block all three trees are reached."""
    extents, at = [], 0
    for gap, count in steps:
        if at + gap + count <= map_limit(64):
            extents.append((at + gap, 1, count))
            at += gap + count
    assert indirect_count(extents, 16) == IndirectBlocks(extents, 16).count


def test_where_the_inodes_of_dense_files_lead() -> None:
    """Of many at once as of one after the other."""
    roots = dense_roots(np.array(BORDERS), P)
    for row, count in enumerate(BORDERS):
        blocks = IndirectBlocks([(0, 1, count)] if count else [], P)
        words = blocks.pack_inode(1000 + np.arange(blocks.count)).tolist()[12:]
        assert [1000 + int(number[row]) if needed[row] else 0 for _, needed, number in roots] == words
    assert [slot for slot, _, _ in roots] == [12, 13, 14]


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
def test_the_largest_file_fits_its_map_and_32_bits_of_sectors(block_size: int) -> None:
    """As Linux's ext4_max_bitmap_size: 16 GiB, 256 GiB and 2 TiB, all but a few blocks."""
    blocks, pointers = file_limit(block_size) // block_size, block_size // 4

    def fits(count: int) -> bool:
        sectors = (count + dense_count(count, pointers)) * (block_size // 512)
        return count <= map_limit(block_size) and sectors <= 0xFFFFFFFF

    assert fits(blocks)
    assert file_limit(block_size) == {1024: 17247252480, 2048: 275415851008, 4096: 2196873666560}[block_size]
    if block_size < 4096:
        assert not fits(blocks + 1)


@pytest.mark.parametrize("pointers", [16, 256, 1024])
def test_paths_lead_through_their_tree(pointers: int) -> None:
    trees = list(indirect_trees(pointers))
    assert [tree.slot for tree in trees] == [12, 13, 14]
    for tree in trees:
        first, last = map_path(tree.start, pointers), map_path(tree.start + tree.span - 1, pointers)
        assert first == (tree.slot, (0,) * tree.level)
        assert last == (tree.slot, (pointers - 1,) * tree.level)
        assert map_path(tree.start + 1, pointers) == (tree.slot, (*(0,) * (tree.level - 1), 1))
    end = trees[-1].start + trees[-1].span
    for outside in (-1, end):
        with pytest.raises(ValueError, match="logical block"):
            map_path(outside, pointers)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 9000)), max_size=8))
def test_segments_as_extents(steps: list[tuple[int, int]]) -> None:
    segments, at = [], 0
    for gap, length in steps:
        segments.append((at + gap, at + gap + length))
        at += gap + length
    wanted = {byte // 1024 for low, high in segments for byte in (*range(low, high, 1024), high - 1) if high > low}
    extents = segment_extents(segments, 1024)
    assert [block for first, _, count in extents for block in range(first, first + count)] == sorted(wanted)
    assert [number for _, at, count in extents for number in range(at, at + count)] == list(range(len(wanted)))
    assert all(one[0] + one[2] < two[0] for one, two in pairwise(extents))
    assert blocks_needed(segments, 1024) == len(wanted) + IndirectBlocks(extents, P).count
