"""Placed map: the block map of a planned file, with data and indirect blocks at positions of free space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..format.block_map import Extent
from ..format.block_map_columns import Pointers
from ..format.indirect_blocks_columns import IndirectBlocks
from .free_space import FreeSpace

__all__ = ["PlacedMap"]


class PlacedMap:
    """Map of the extents (logical block, position, count); the indirect blocks are at ``position`` and behind it.

    ``indirect``: how many there are, each of ``pointers`` pointers.
    """

    def __init__(self, space: FreeSpace, extents: Sequence[Extent], position: int, pointers: int) -> None:
        self._blocks = IndirectBlocks(_physical(space, extents), pointers)
        self.indirect = self._blocks.count
        self._position = position
        self._numbers = space.blocks(position + np.arange(self.indirect))

    def pack_inode(self) -> Pointers:
        """Return the 15 words of the inode."""
        return self._blocks.pack_inode(self._numbers)

    def pack(self) -> Iterator[tuple[int, Pointers]]:
        """Yield (position, pointers of shape (count, pointers)): the indirect blocks in order, a bounded number at a time."""
        position = self._position
        for rows in self._blocks.pack(self._numbers):
            yield position, rows
            position += len(rows)


def _physical(space: FreeSpace, extents: Sequence[Extent]) -> list[Extent]:
    """Return the extents with block numbers; one that is interrupted by the metadata of a group becomes several."""
    rows = np.array(extents, np.int64).reshape(-1, 3)
    counts = rows[:, 2]
    firsts, lasts = space.blocks(rows[:, 1]), space.blocks(rows[:, 1] + counts - 1)
    found: list[Extent] = []
    for (logical, position, count), first, last in zip(extents, firsts.tolist(), lasts.tolist(), strict=True):
        if last - first == count - 1:
            found.append((logical, first, count))
            continue
        found += [(logical + at - position, block, piece) for at, block, piece in space.runs(position, count)]
    return found
