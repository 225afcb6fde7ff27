"""Open an image to look at it, after the checks whose answer is clearer than the format's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ext3.constants import EXT3_MAGIC, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ext3.device.base import BlockDevice
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import MAX_LOG_BLOCK_SIZE
from ext3.read.filesystem import Filesystem

from ..errors import FormatError, TruncatedError, human, show
from .in_use import HostPath
from .target import Window, open_window

__all__ = ["check_whole", "check_window", "open_image"]


@contextmanager
def open_image(path: HostPath, partition: str | None = None) -> Iterator[Filesystem]:
    """The filesystem in the image at ``path``, or in a ``partition`` of the SIF there, read-only.

    Raises what ``open_window`` does, what ``check_window`` does, and Ext3Error from opening.
    """
    with open_window(path, partition) as window:
        check_window(window)
        with Filesystem.open(window.device()) as filesystem:
            yield filesystem


def check_whole(path: HostPath) -> None:
    """``check_window`` of a stand-alone image."""
    with open_window(path) as window:
        check_window(window)


def check_window(window: Window) -> None:
    """TruncatedError (FormatError, of a partition) where the superblock tells of more than there is; what has no superblock
    passes."""
    device: BlockDevice = window.device()
    size = window.size
    if size < SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE:
        return
    fields = SUPERBLOCK.record(device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
    if fields["s_magic"] != EXT3_MAGIC or fields["s_log_block_size"] > MAX_LOG_BLOCK_SIZE or fields["s_first_data_block"] > 1:
        return
    needed = fields["s_blocks_count"] * (1024 << fields["s_log_block_size"])
    if needed <= size:
        return
    if window.partition is None:
        raise TruncatedError(window.path, needed_bytes=needed, available_bytes=size)
    raise FormatError(
        f"{show(window.path)}: the filesystem in object {window.partition.id} has {human(needed)}, its partition {human(size)}",
        path=window.path,
        hint="fetch or copy the image again, or replace its overlay",
    )
