"""Window of an open file: where the filesystem of an overlay is, the whole file, a part of it or a partition of a SIF image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from ...errors import FormatError, TruncatedError, human, show
from .disk_label import end_of_room

if TYPE_CHECKING:
    from ext3.device.base import FileDevice

    from ...sif import Descriptor

__all__ = ["IN_LARGER_FILE", "Window", "check_window", "file_window"]

IN_LARGER_FILE = "it is a part of a larger file"
"""Reason for which the runtimes would not use a filesystem at an offset."""


class Window(NamedTuple):
    """Window of ``size`` bytes at ``offset`` of the file at ``path``, open as ``fd``.

    ``partition``: of a SIF image, which the window is; None: the whole file, or from ``offset`` on. ``reasons``: why the
    runtimes would not use it, whatever its content.
    """

    path: str
    fd: int
    offset: int
    size: int
    partition: Descriptor | None = None
    reasons: tuple[str, ...] = ()

    def device(self) -> FileDevice:
        from ext3.device.base import FileDevice

        return FileDevice(self.fd, self.offset, self.size)

    @property
    def span(self) -> tuple[int, int] | None:
        """(offset, size) of a partition; None for a file, which is used as a whole."""
        return (self.offset, self.size) if self.partition is not None else None


def file_window(path: str, fd: int, offset: int | None = None) -> Window:
    """Return the window of the file at ``path``, open as ``fd``: all of it, or from ``offset`` to the end of a partition.

    Raises FormatError if the file ends before.
    """
    size = os.lseek(fd, 0, os.SEEK_END)
    if offset is None:
        return Window(path, fd, 0, size)
    if offset >= size:
        hint = "give an offset in the file" if size else "give an image"
        raise FormatError(f"{show(path)} ends at byte {size}, before --offset {offset}", path=path, hint=hint)
    room = end_of_room(fd, offset) - offset
    return Window(path, fd, offset, room, reasons=(IN_LARGER_FILE,) if room < size else ())


def check_window(window: Window) -> None:
    """Raise TruncatedError (for a partition FormatError) if the filesystem is larger than the window.

    Passes without a superblock.
    """
    from ext3.constants import EXT3_MAGIC, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
    from ext3.format.schema import SUPERBLOCK
    from ext3.format.superblock import MAX_LOG_BLOCK_SIZE

    device = window.device()
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
        raise TruncatedError(window.path, needed_bytes=needed, available_bytes=size, offset=window.offset)
    raise FormatError(
        f"{show(window.path)}: the filesystem in object {window.partition.id} has {human(needed)}, its partition {human(size)}",
        path=window.path,
        hint="fetch or copy the image again, or replace its overlay",
    )
