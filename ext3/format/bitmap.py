"""Bitmap of a group in memory, a byte per block or inode, so that byte searches find free ones.

Source of the on-disk form: Linux ``fs/ext4/balloc.c`` (bit 0 is the lowest bit of the first byte; bits behind the
last block or inode are set).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import CorruptError

__all__ = ["FREE", "HELD", "USED", "GroupBitmap"]

FREE, USED, HELD = 0, 1, 2
"""HELD: freed, but not to be allocated yet."""


class GroupBitmap:
    """Bitmap of ``count`` cells, each FREE, USED or HELD. ``where`` names it in errors."""

    __slots__ = ("cells", "count", "view", "where")

    def __init__(self, raw: bytes, count: int, where: str) -> None:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=count, bitorder="little")
        self.cells = bytearray(bits.tobytes())
        self.count = count
        self.where = where
        self.view: npt.NDArray[np.uint8] = np.frombuffer(self.cells, np.uint8)

    @property
    def free(self) -> int:
        return self.cells.count(FREE)

    def pack(self, size: int) -> bytes:
        """Return the block of ``size`` bytes as it is on disk."""
        bits = np.packbits(self.view == USED, bitorder="little")
        data = np.full(size, 0xFF, np.uint8)
        data[: len(bits)] = bits
        if self.count % 8:
            data[len(bits) - 1] |= 0xFF << self.count % 8 & 0xFF
        return data.tobytes()

    def change(self, start: int, count: int, before: int, after: int) -> None:
        """Change ``count`` cells from ``before`` to ``after``. Raises CorruptError, with nothing changed, if one differs."""
        found = self.cells[start : start + count]
        if found.count(before) != count:
            names = ("free", "used", "freed")
            bad = next((at for at, cell in enumerate(found) if cell != before), len(found))
            raise CorruptError(
                self.where, f"bit {start + bad}", names[found[bad]] if bad < len(found) else "none", names[before]
            )
        self.cells[start : start + count] = bytes((after,)) * count

    def free_run(self, start: int, most: int) -> int:
        """Return the number of consecutive free cells from ``start`` on, at most ``most``."""
        if most == 1:
            return int(start < self.count and self.cells[start] == FREE)
        part = self.view[start : start + most] != FREE
        if not len(part):
            return 0
        at = int(part.argmax())
        return at if part[at] else len(part)

    def find(self, count: int, start: int = 0) -> int:
        """Return the first of ``count`` consecutive free cells, from ``start`` on or else from 0; -1 if there are none."""
        wanted = bytes(count)
        found = self.cells.find(wanted, start)
        return self.cells.find(wanted) if found < 0 and start else found

    def free_runs(self) -> npt.NDArray[np.int64]:
        """Return rows (start, count) of all runs of free cells, ascending."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.view == FREE, [False]]).astype(np.int8)))
        return np.stack([edges[::2], edges[1::2] - edges[::2]], axis=1).astype(np.int64)
