"""Cut of a block map: the blocks freed and the pointers left when a range of logical blocks is removed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..constants import DIRECT_BLOCKS
from ..errors import CorruptError
from ..format.block_map import MapReader, Pointers, table_name

__all__ = ["Cut"]

Array64 = npt.NDArray[np.int64]


class Cut:
    """Changes to a map that removing logical blocks [low, high) needs. Nothing is written: the caller makes them.

    ``data``: blocks of data; ``tables``: pointer blocks that become empty; ``changed``: (pointer block, new content) of
    those that do not; ``words``: i_block afterwards.
    """

    def __init__(self, reader: MapReader, i_block: Sequence[int], low: int, high: int) -> None:
        """Raise CorruptError if a pointer is out of range or a pointer block is reached twice."""
        self.reader = reader
        self.tables: list[int] = []
        self.changed: list[tuple[int, Pointers]] = []
        self.words = list(i_block)
        self._low = low
        self._high = high
        self._pieces: list[Array64] = []
        self._count = 0
        if high <= low:
            return
        direct = np.array(i_block[:DIRECT_BLOCKS], np.uint32)
        self._take(direct, 0, 0)
        self.words[:DIRECT_BLOCKS] = direct.tolist()
        for tree in reader.trees(i_block, low, high):
            if self._descend(i_block[tree.slot], tree.level, tree.start):
                self.words[tree.slot] = 0

    @property
    def data(self) -> Array64:
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int64)

    def _take(self, pointers: Pointers, start: int, block: int) -> bool:
        """Clear the pointers to data that are in the range. Return whether any was set.

        ``start``: the logical block of the first pointer of the table, which lies in ``block``.
        """
        bounds = self.reader.bounds
        low = max(self._low - start, 0)
        part = pointers[low : max(self._high - start, 0)]
        used = bounds.used(part, table_name(block), low)
        if not len(used):
            return False
        self._pieces.append(part[used].astype(np.int64))
        self._count += len(used)
        if self._count > bounds.end:
            raise CorruptError(bounds.where, "block map", f"{self._count} blocks or more", f"<= {bounds.end}")
        part[:] = 0
        return True

    def _descend(self, block: int, level: int, start: int) -> bool:
        """Cut what lies below a pointer block, ``level`` (1 to 3) above the data. Return whether nothing is left of it."""
        pointers = self.reader.load(block).copy()
        if level == 1:
            changed = self._take(pointers, start, block)
        else:
            changed = False
            for index, first in self.reader.children(block, pointers, level, start, self._low, self._high):
                if self._descend(int(pointers[index]), level - 1, first):
                    pointers[index] = 0
                    changed = True
        if not pointers.any():
            self.tables.append(block)
            return True
        if changed:
            self.changed.append((block, pointers))
        return False
