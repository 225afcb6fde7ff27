"""Blocks and inodes anywhere in a filesystem, marked as used or free in the bitmaps of their groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..format.bitmap import USED
from ..format.bitmap_columns import change_cells

if TYPE_CHECKING:
    from .transactions import Transactions

__all__ = ["Numbers", "change_blocks", "change_inodes"]

Numbers = npt.NDArray[np.int64]


def change_blocks(changes: Transactions, blocks: Numbers, before: int, after: int) -> None:
    """Change blocks, in any order, from ``before`` to ``after``. Raises CorruptError if one differs."""
    superblock = changes.superblock
    group, index = np.divmod(blocks - superblock.first_data_block, superblock.blocks_per_group)
    _change(changes, "bg_block_bitmap", "bg_free_blocks_count", group, index, before, after)


def change_inodes(changes: Transactions, inos: Numbers, directories: Numbers, before: int, after: int) -> None:
    """Change inodes, in any order; ``directories``: those of them that are directories. Raises CorruptError if one differs."""
    per_group = changes.superblock.inodes_per_group
    group, index = np.divmod(inos - 1, per_group)
    _change(changes, "bg_inode_bitmap", "bg_free_inodes_count", group, index, before, after)
    step = 1 if after == USED else -1
    for number, count in zip(*np.unique((directories - 1) // per_group, return_counts=True), strict=True):
        changes.count("bg_used_dirs_count", int(number), step * int(count))


def _change(changes: Transactions, column: str, counts: str, group: Numbers, index: Numbers, before: int, after: int) -> None:
    order = np.argsort(group, kind="stable")
    group, index = group[order], index[order]
    numbers, starts = np.unique(group, return_index=True)
    lengths = np.diff(starts, append=len(group))
    for number, low, length in zip(numbers.tolist(), starts.tolist(), lengths.tolist(), strict=True):
        change_cells(changes.bitmap(column, counts, number), index[low : low + length], before, after)
        changes.count(counts, number, -length if after == USED else length)
