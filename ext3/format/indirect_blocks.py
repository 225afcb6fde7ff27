"""Indirect blocks of a file: their number, and the limits of a file that follow from it.

Indirect blocks that map only holes are not allocated. For the indirect blocks of new files see
``indirect_blocks_columns``, to read a map ``block_map``. Source: Linux ``fs/ext4/super.c`` (ext4_max_bitmap_size).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from ..constants import POINTER_SIZE, SECTOR
from .block_map import Extent, indirect_trees, map_limit

__all__ = ["SECTORS_LIMIT", "blocks_needed", "dense_count", "file_limit", "indirect_count", "segment_extents"]

SECTORS_LIMIT = 0xFFFFFFFF
"""Largest i_blocks: 32 bits without huge_file."""


def indirect_count(extents: Sequence[Extent], pointers: int) -> int:
    """Count the indirect blocks of a file with these extents, ascending; each holds ``pointers`` pointers."""
    found = 0
    for tree in indirect_trees(pointers):
        for level in range(1, tree.level + 1):
            span = pointers**level
            counted = 0
            for logical, _, count in extents:
                low = max(logical - tree.start, 0)
                high = min(logical + count - tree.start, tree.span)
                if low < high:
                    end = (high - 1) // span + 1
                    found += end - max(low // span, counted)
                    counted = end
    return found


def dense_count(blocks: int, pointers: int) -> int:
    """Count the indirect blocks of a file of ``blocks`` blocks without holes."""
    return indirect_count([(0, 0, blocks)], pointers)


@cache
def file_limit(block_size: int) -> int:
    """Return the size limit of files in bytes, set by the block map and by i_blocks, which includes indirect blocks."""
    counted = SECTORS_LIMIT // (block_size // SECTOR)
    counted -= dense_count(counted, block_size // POINTER_SIZE)
    return min(map_limit(block_size), counted) * block_size


def segment_extents(segments: Iterable[tuple[int, int]], block_size: int) -> list[Extent]:
    """Return the extents of a file whose data lies in these (first byte, end), ascending; they do not touch.

    Data blocks are numbered in order, from 0 on.
    """
    extents: list[Extent] = []
    position = 0
    for low, high in segments:
        if high <= low:
            continue
        first, end = low // block_size, -(-high // block_size)
        if extents and first <= extents[-1][0] + extents[-1][2]:
            logical, at, count = extents[-1]
            grown = max(count, end - logical)
            position += grown - count
            extents[-1] = (logical, at, grown)
        else:
            extents.append((first, position, end - first))
            position += end - first
    return extents


def blocks_needed(segments: Iterable[tuple[int, int]], block_size: int) -> int:
    """Count the blocks of a file whose data lies in these (first byte, end), ascending: data and indirect blocks."""
    extents = segment_extents(segments, block_size)
    return sum(count for _, _, count in extents) + indirect_count(extents, block_size // POINTER_SIZE)
