"""Cut of a block map: the blocks freed and the pointers left when a range of logical blocks is removed."""

from __future__ import annotations

from collections.abc import Sequence

from ..constants import DIRECT_BLOCKS
from ..errors import CorruptError
from ..format.block_map import Leaf, MapReader, Pointers, empty_pointers
from .blocks import Run

__all__ = ["Cut"]


class Cut:
    """Changes to a map that removing logical blocks [low, high) needs. Nothing is written: the caller makes them.

    ``data``: runs of blocks of data, ``count`` blocks in all; ``tables``: pointer blocks that become empty; ``changed``:
    (pointer block, new content) of those that do not; ``words``: i_block afterwards.
    """

    def __init__(self, reader: MapReader, i_block: Sequence[int], low: int, high: int) -> None:
        """Raise CorruptError if a pointer is out of range or a pointer block is reached twice."""
        self.reader = reader
        self.data: list[Run] = []
        self.count = 0
        self.tables: list[int] = []
        self.changed: list[tuple[int, Pointers]] = []
        self.words = list(i_block)
        self._low = low
        self._high = high
        if high <= low:
            return
        direct = Leaf.direct(i_block)
        self._take(direct)
        self.words[:DIRECT_BLOCKS] = direct.pointers
        for tree in reader.trees(i_block, low, high):
            if self._descend(i_block[tree.slot], tree.level, tree.start):
                self.words[tree.slot] = 0

    def _take(self, leaf: Leaf) -> bool:
        """Clear the pointers to data that are in the range. Return whether any was set."""
        bounds = self.reader.bounds
        runs = leaf.runs(bounds, self._low, self._high)
        if not runs:
            return False
        at, end = runs[0][0] - leaf.start, runs[-1][0] + runs[-1][2] - leaf.start
        leaf.pointers[at:end] = empty_pointers(end - at)
        self.data += [(block, count) for _, block, count in runs]
        self.count += sum(count for _, _, count in runs)
        if self.count > bounds.end:
            raise CorruptError(bounds.where, "block map", f"{self.count} blocks or more", f"<= {bounds.end}")
        return True

    def _descend(self, block: int, level: int, start: int) -> bool:
        """Cut what lies below a pointer block, ``level`` (1 to 3) above the data. Return whether nothing is left of it."""
        pointers = self.reader.load(block)
        if level == 1:
            changed = self._take(Leaf(start, block, pointers))
        else:
            changed = False
            for index, child, first in self.reader.children(block, pointers, level, start, self._low, self._high):
                if self._descend(child, level - 1, first):
                    pointers[index] = 0
                    changed = True
        if pointers == empty_pointers(len(pointers)):
            self.tables.append(block)
            return True
        if changed:
            self.changed.append((block, pointers))
        return False
