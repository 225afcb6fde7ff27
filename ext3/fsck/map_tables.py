"""Tables of pointers of block maps, read as arrays: all blocks that a map names, though the map may be damaged."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..constants import DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, POINTER_SIZE
from ..edit.blocks import Run
from ..errors import DeviceError
from ..format.block_map import PointerBounds
from ..format.block_map_columns import inside
from .context import Context
from .map_check import PointerTables

__all__ = ["MapTables", "runs_of"]

Numbers = npt.NDArray[np.int64]
Pointers = npt.NDArray[np.uint32]


def runs_of(blocks: Numbers) -> list[Run]:
    """Return blocks, in any order, as runs; each once."""
    ordered = np.unique(blocks)
    breaks = (np.flatnonzero(np.diff(ordered) != 1) + 1).tolist()
    bounds = [0, *breaks, len(ordered)]
    return [(int(ordered[low]), high - low) for low, high in pairwise(bounds) if high > low]


class MapTables:
    """Walk over the tables of pointers of maps."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._entered = PointerTables(context)
        self._bounds = PointerBounds.of(context.superblock, "block map")
        self.per_block = context.block_size // POINTER_SIZE

    def inside(self, blocks: Pointers | Numbers) -> npt.NDArray[np.bool_]:
        """Return which blocks are in the filesystem."""
        return inside(self._bounds, blocks)

    def enter(self, block: int) -> bool:
        """Return whether a pointer block may be entered."""
        return bool(self._entered.enter(np.array([block], np.int64))[0])

    def content(self, block: int) -> Pointers:
        """Return the pointers in a block, corrected; none if it cannot be read."""
        corrected = self._context.corrected.get(block)
        try:
            return np.frombuffer(corrected or self._context.read(block), "<u4")
        except DeviceError:
            return np.zeros(self.per_block, np.uint32)

    def blocks(self, words: list[int]) -> Iterator[Numbers]:
        """Yield the blocks of a map in pieces, pointer blocks too."""
        roots = np.array(words, np.uint32).astype(np.int64)
        direct = roots[:DIRECT_BLOCKS]
        yield direct[(direct != 0) & self.inside(direct)]
        for slot in range(IND_SLOT, N_BLOCKS):
            if words[slot]:
                yield from self._below(roots[slot : slot + 1], slot - IND_SLOT + 1)

    def _below(self, blocks: Numbers, level: int) -> Iterator[Numbers]:
        blocks = blocks[(blocks != 0) & self.inside(blocks)]
        if not len(blocks):
            return
        yield blocks
        if level:
            for block in blocks[self._entered.enter(blocks)].tolist():
                yield from self._below(self.content(block).astype(np.int64), level - 1)
