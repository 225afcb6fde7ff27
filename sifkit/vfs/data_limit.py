"""Data limit of copies out of a tree: no more bytes of data than its filesystem has room for.

Files of a hostile image may share blocks; copied out in full they could fill any disk.
"""

from __future__ import annotations

import mmap

from .errors import DamagedTreeError

__all__ = ["SharedBlocksError", "SharedDataCount", "check_data_limit"]


class SharedBlocksError(DamagedTreeError):
    """Files that hold more data than the ``limit_bytes`` of their filesystem.

    This ends a copy; other damage concerns one file.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(None, "the image is damaged: its files hold more data than it has room for")
        self.limit_bytes = limit_bytes


def check_data_limit(limit: int | None, used_bytes: int) -> None:
    """Raise SharedBlocksError if the files read so far hold more than ``limit`` bytes (None: files may share blocks)."""
    if limit is not None and used_bytes > limit:
        raise SharedBlocksError(limit)


class SharedDataCount:
    """Bytes of data read by several forked processes. Each adds to a slot that no other one adds to at that time."""

    def __init__(self, limit: int | None, slots: int) -> None:
        self._limit = limit
        self._counts = memoryview(mmap.mmap(-1, 8 * max(1, slots))).cast("q")

    def add(self, slot: int, size: int) -> None:
        """Count bytes of data. Raises SharedBlocksError if all processes have read more than the limit."""
        if self._limit is not None:
            check_data_limit(self._limit, size)  # a larger number may not fit the slot
            self._counts[slot] += size
            check_data_limit(self._limit, sum(self._counts))
