"""Data limit of copies out of a tree: no more bytes of data than its filesystem has room for.

Files of a hostile image may share blocks; copied out in full they could fill any disk.
"""

from __future__ import annotations

from .errors import DamagedTreeError

__all__ = ["SharedBlocksError", "check_data_limit"]


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
