"""Tables of block pointers: as runs, and with a part of them cut out.

A pointer block holds block_size / 4 little-endian numbers, 0 for a hole. Source: Linux ``fs/ext4/indirect.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..constants import DIRECT_BLOCKS
from ..errors import CorruptError
from .blocks import Blocks, Run

__all__ = ["FORMATS", "POINTER", "Cut", "blocks_needed", "group_runs", "runs_of"]

Pointers = npt.NDArray[np.uint32]
Array64 = npt.NDArray[np.int64]

POINTER = 4
"""Bytes of one pointer."""
FORMATS = tuple(struct.Struct(f"<{count}I") for count in range(65))
"""Packers of so many pointers; beyond that arrays are faster."""


def runs_of(runs: Iterable[Run]) -> Array64:
    """The block numbers of runs, one by one."""
    pieces = [np.arange(first, first + count, dtype=np.int64) for first, count in runs]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def group_runs(logical: Array64, physical: Array64) -> list[tuple[int, int, int]]:
    """(logical, physical, count) of what follows each other on both sides; both ascend in the order given."""
    if not len(logical):
        return []
    breaks = np.flatnonzero((np.diff(logical) != 1) | (np.diff(physical) != 1)) + 1
    starts = np.concatenate([np.zeros(1, np.int64), breaks])
    counts = np.diff(np.append(starts, len(logical)))
    return list(zip(logical[starts].tolist(), physical[starts].tolist(), counts.tolist(), strict=True))


def blocks_needed(segments: Iterable[tuple[int, int]], block_size: int) -> int:
    """Blocks a file takes whose data lies in these (first byte, end), ascending: data and pointer blocks."""
    pointers = block_size // POINTER
    data = leaves = middles = 0
    last_block = last_leaf = last_middle = -1
    double = triple = False
    for low, high in segments:
        first, last = max(low // block_size, last_block + 1), (high - 1) // block_size
        if high <= low or last < first:
            continue
        data += last - first + 1
        last_block = last
        if last < DIRECT_BLOCKS:
            continue
        # Leaf 0 is the block of i_block[12]; the next ones hang under [13], all behind those under [14].
        first_leaf = max((max(first, DIRECT_BLOCKS) - DIRECT_BLOCKS) // pointers, last_leaf + 1)
        last_leaf = (last - DIRECT_BLOCKS) // pointers
        leaves += max(0, last_leaf - first_leaf + 1)
        double |= first_leaf <= pointers and last_leaf > 0
        if last_leaf > pointers:
            triple = True
            first_middle = max((max(first_leaf, pointers + 1) - pointers - 1) // pointers, last_middle + 1)
            last_middle = (last_leaf - pointers - 1) // pointers
            middles += max(0, last_middle - first_middle + 1)
    return data + leaves + middles + double + triple


class Cut:
    """What falls away when the logical blocks [low, high) leave a map. Looks only; the caller makes the changes.

    ``data``: blocks of data; ``tables``: pointer blocks that become empty; ``changed``: (pointer block, new content) of
    those that keep something; ``words``: i_block afterwards; ``seen``: all pointer blocks that were read.
    """

    def __init__(self, blocks: Blocks, low: int, high: int, *, first: int, end: int, where: str) -> None:
        self._blocks = blocks
        self._low = low
        self._high = high
        self._first = first
        self._end = end
        self._where = where
        self.seen: set[int] = set()
        self._pieces: list[Array64] = []
        self._count = 0
        self.tables: list[int] = []
        self.changed: list[tuple[int, Pointers]] = []
        self.words: list[int] = []

    @property
    def data(self) -> Array64:
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int64)

    def take(self, pointers: Pointers, start: int, name: str) -> bool:
        """Clear the pointers to data in the range, the first of the table being for block ``start``; whether any was set."""
        low = max(self._low - start, 0)
        part = pointers[low : max(self._high - start, 0)]
        used = self._check(part, name, low)
        if not len(used):
            return False
        self._pieces.append(part[used].astype(np.int64))
        self._count += len(used)
        if self._count > self._end:
            raise CorruptError(self._where, "block map", f"{self._count} blocks or more", f"<= {self._end}")
        part[:] = 0
        return True

    def descend(self, block: int, level: int, start: int) -> bool:
        """Cut from pointer block ``block``, ``level`` (1 to 3) above the data; whether nothing is left of it.

        No block is visited twice, so this ends on any map.
        """
        if block in self.seen:
            raise CorruptError(self._where, "pointer block", block, "one that is used once")
        self.seen.add(block)
        pointers = np.frombuffer(self._blocks.read(block), "<u4").copy()
        name = f"pointers in block {block}"
        if level == 1:
            changed = self.take(pointers, start, name)
        else:
            span = len(pointers) ** (level - 1)
            low = max(0, (self._low - start) // span)
            part = pointers[low : -(-(self._high - start) // span)]
            changed = False
            for index in self._check(part, name, low).tolist():
                if self.descend(int(part[index]), level - 1, start + (low + index) * span):
                    part[index] = 0
                    changed = True
        if not pointers.any():
            self.tables.append(block)
            return True
        if changed:
            self.changed.append((block, pointers))
        return False

    def _check(self, pointers: Pointers, name: str, base: int) -> Array64:
        used = np.flatnonzero(pointers)
        values = pointers[used]
        bad = (values < self._first) | (values >= self._end)
        if bad.any():
            at = int(bad.argmax())
            want = f"a block from {self._first} to {self._end - 1}"
            raise CorruptError(self._where, f"{name}[{base + int(used[at])}]", int(values[at]), want)
        return used
