"""Bitmap of a group in memory, a byte per block or inode, so that byte searches find free ones.

Source of the on-disk form: Linux ``fs/ext4/balloc.c`` (bit 0 is the lowest bit of the first byte; bits behind the
last block or inode are set).
"""

from __future__ import annotations

import re

from ..errors import CorruptError

__all__ = ["FREE", "HELD", "STATES", "USED", "GroupBitmap"]

FREE, USED, HELD = 0, 1, 2
"""HELD: freed, but not to be allocated yet."""
STATES = ("free", "used", "freed")
"""Their names in errors."""

_CELLS = bytes.maketrans(b"01", bytes((FREE, USED)))
_DIGITS = bytes.maketrans(bytes((FREE, USED, HELD)), b"010")
_FREE_RUN = re.compile(b"%c+" % FREE)


class GroupBitmap:
    """Bitmap of ``count`` cells, each FREE, USED or HELD. ``where`` names it in errors."""

    __slots__ = ("_changed", "_raw", "cells", "count", "where")

    def __init__(self, raw: bytes, count: int, where: str) -> None:
        # The digits of a number are the fastest way from bits to bytes; the first one is the highest bit.
        digits = f"{int.from_bytes(raw, 'little'):0{8 * len(raw)}b}".encode()
        self.cells = bytearray(digits.translate(_CELLS)[::-1][:count])
        self.count = count
        self.where = where
        whole, rest = divmod(count, 8)
        self._raw = bytearray(raw[:whole].ljust(len(raw), b"\xff"))
        if rest:
            self._raw[whole] = raw[whole] | 0xFF << rest & 0xFF
        self._changed = (count, 0)
        """First cell, and the end, of those that differ from ``_raw``."""

    @property
    def free(self) -> int:
        return self.cells.count(FREE)

    def pack(self) -> bytes:
        """Return the block as it is on disk: HELD cells are free, and the bits behind the last cell set."""
        low, high = self._changed[0] // 8, -(-self._changed[1] // 8)
        if low < high:
            digits = self.cells[8 * low : 8 * high].translate(_DIGITS).ljust(8 * (high - low), b"1")
            self._raw[low:high] = int(digits[::-1], 2).to_bytes(high - low, "little")
            self._changed = (self.count, 0)
        return bytes(self._raw)

    def change(self, start: int, count: int, before: int, after: int) -> None:
        """Change ``count`` cells from ``before`` to ``after``. Raises CorruptError, with nothing changed, if one differs."""
        found = self.cells[start : start + count]
        if found.count(before) != count:
            bad = next((at for at, cell in enumerate(found) if cell != before), len(found))
            got = STATES[found[bad]] if bad < len(found) else "none"
            raise CorruptError(self.where, f"bit {start + bad}", got, STATES[before])
        self.cells[start : start + count] = bytes((after,)) * count
        self.note_change(start, start + count)

    def note_change(self, low: int, high: int) -> None:
        """Note that ``cells`` changed between ``low`` and ``high``, so that ``pack`` looks at them."""
        first, end = self._changed
        self._changed = min(first, low), max(end, high)

    def release(self) -> None:
        """Make the HELD cells FREE."""
        self.cells = self.cells.replace(bytes((HELD,)), bytes((FREE,)))

    def free_run(self, start: int, most: int) -> int:
        """Return the number of consecutive free cells from ``start`` on, at most ``most``."""
        if most == 1:
            return int(start < self.count and self.cells[start] == FREE)
        found = _FREE_RUN.match(self.cells, start, start + most)
        return found.end() - start if found else 0

    def find(self, count: int, start: int = 0) -> int:
        """Return the first of ``count`` consecutive free cells, from ``start`` on or else from 0; -1 if there are none."""
        wanted = bytes(count)
        found = self.cells.find(wanted, start)
        return self.cells.find(wanted) if found < 0 and start else found

    def free_runs(self) -> list[tuple[int, int]]:
        """Return (start, count) of all runs of free cells, ascending."""
        return [(start, end - start) for start, end in map(re.Match.span, _FREE_RUN.finditer(self.cells))]
