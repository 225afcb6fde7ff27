"""Data limit of copies out of an image: no more blocks of data than the image has.

Files of a hostile image may share blocks; copied out in full they could fill any disk.
"""

from __future__ import annotations

from ext3.errors import CorruptError
from ext3.read.filesystem import Filesystem

__all__ = ["SharedBlocksError", "check_data_limit"]


class SharedBlocksError(CorruptError):
    """Files hold more blocks than the image has. This ends a copy; other damage concerns one file."""


def check_data_limit(filesystem: Filesystem, blocks: int) -> None:
    """Raise SharedBlocksError if ``blocks`` of data have been read and the image has fewer."""
    limit = filesystem.superblock.blocks_count
    if blocks > limit:
        raise SharedBlocksError("files", "blocks of their data", "more than there are", f"<= {limit}")
