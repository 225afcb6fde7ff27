"""Opening of images and directories for reading, with checks whose errors are clearer than those of the format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ext3 import hostio
from ext3.device.base import BlockDevice
from ext3.errors import Ext3Error, NotExt3Error
from ext3.hostio import HostPath
from ext3.read.filesystem import Filesystem

from ...errors import show
from ...vfs.file_tree import FileTree, StatFS, TreeStatFS
from ..reserve import user_bytes
from .change_watch import ChangeWatch, ImageState
from .disk_label import offset_hint
from .sif_partition import filesystem_place, open_partition
from .window import Window, check_window, file_window

__all__ = [
    "FileDetails",
    "OpenedImage",
    "check_whole",
    "named_errors",
    "open_ext3",
    "open_image",
    "open_in_window",
    "open_window",
]


class FileDetails(NamedTuple):
    """Facts of an ext3 inode beyond its Stat. ``crtime``: nanoseconds since 1970 if known."""

    crtime: int | None
    flags: int
    generation: int


class OpenedImage:
    """Open ext2 or ext3 filesystem as a tree, with the facts of its superblock."""

    def __init__(self, filesystem: Filesystem, window: Window | None = None, before: ImageState | None = None) -> None:
        """``window``: where it is, if it is in a file; ``before``: its state before it was opened."""
        self._filesystem = filesystem
        self._window = window
        self._before = before
        found = filesystem.superblock
        self.size_bytes = found.size_bytes
        self.block_size = found.block_size
        self.reserved_blocks = found.reserved_blocks
        self.has_journal = found.has_journal
        self.needs_recovery = filesystem.needs_recovery
        self.journal_problem = filesystem.journal_problem
        """Error of the journal of an image that needs recovery: what is read may be out of date."""

    @property
    def tree(self) -> FileTree[int]:
        return self._filesystem

    @property
    def path(self) -> str:
        """Name of its file."""
        assert self._window is not None
        return self._window.path

    def statfs(self) -> StatFS:
        """Return the totals of the filesystem; ``available_bytes`` is what a container can write without root."""
        found, size = self._filesystem.statfs(), self.block_size
        blocks, free = found.total_bytes // size, found.free_bytes // size
        available = user_bytes(blocks=blocks, free=free, reserved=self.reserved_blocks, block_size=size)
        return TreeStatFS(
            found.total_bytes,
            found.free_bytes,
            available,
            found.inodes,
            found.free_inodes,
            found.data_limit,
            found.metadata_bytes,
            found.journal_bytes,
        )

    def watch(self) -> ChangeWatch:
        """Return a watch of the image since it was opened. Raises OSError."""
        assert self._window is not None and self._before is not None
        return ChangeWatch(self._window, self._before, self._journal_position)

    def _journal_position(self) -> tuple[int, int] | None:
        journal = self._filesystem.journal_superblock()
        return (int(journal["s_sequence"]), int(journal["s_start"])) if journal else None

    def journal_blocks(self) -> int:
        """Return the size of the journal in blocks, 0 without one. Raises CorruptError, DeviceError."""
        journal = self._filesystem.journal_superblock()
        return int(journal["s_maxlen"]) if journal else 0

    def count_free(self) -> tuple[int, int] | None:
        """Return (free blocks, free inodes) as the bitmaps have them; None if a bitmap has no place. Raises DeviceError."""
        from ext3.check.bitmap_counts import count_free  # here, for numpy

        return count_free(self._filesystem.device, self._filesystem.superblock, self._filesystem.groups)

    def details(self, ino: int) -> FileDetails:
        """Return what only ext3 knows of a file. Raises CorruptError, DeviceError."""
        found = self._filesystem.stat(ino)
        return FileDetails(found.crtime, found.flags, found.generation)

    def count_extents(self, ino: int) -> int:
        """Return the number of extents of a file. Raises CorruptError, DeviceError."""
        return len(self._filesystem.data_extents(ino))


@contextmanager
def named_errors(path: HostPath, offset: int | None = None, *, object_id: int | None = None) -> Iterator[None]:
    """Name the image at ``path`` in errors of this block, which opens or changes it: other images may be open too.

    If there is no filesystem at ``offset``, the hint says where in a partitioned disk it is. ``object_id``: of the partition of
    a SIF that is opened.
    """
    try:
        yield
    except Ext3Error as error:
        if isinstance(error, NotExt3Error):
            error.hint = offset_hint(path, offset) or error.hint
        if error.path is None:
            error.path = os.fsdecode(path)
            part = "" if object_id is None else f"object {object_id}: "
            error.message = f"{show(error.path)}: {part}{error.message}"
        raise


@contextmanager
def open_image(path: HostPath, partition: str | None = None, *, offset: int | None = None) -> Iterator[OpenedImage]:
    """Open the filesystem in the image at ``path``, in a ``partition`` of the SIF there, or at byte ``offset``, read-only.

    Raises what ``open_window`` and ``check_window`` do, and Ext3Error.
    """
    with open_window(path, partition, offset=offset) as window, open_in_window(window) as image:
        yield image


@contextmanager
def open_in_window(window: Window) -> Iterator[OpenedImage]:
    """Open the filesystem in an open window. Raises what ``check_window`` does, and Ext3Error."""
    before = ImageState.of(window)
    check_window(window)
    with Filesystem.open(window.device()) as filesystem:
        yield OpenedImage(filesystem, window, before)


@contextmanager
def open_ext3(device: BlockDevice) -> Iterator[OpenedImage]:
    """Open the filesystem on a device. Raises Ext3Error."""
    with Filesystem.open(device) as filesystem:
        yield OpenedImage(filesystem)


def check_whole(path: HostPath, *, offset: int | None = None) -> None:
    """Raise TruncatedError if a stand-alone image, or what begins at ``offset``, is shorter than its filesystem."""
    with open_window(path, offset=offset) as window:
        check_window(window)


@contextmanager
def open_window(path: HostPath, partition: str | None = None, *, offset: int | None = None) -> Iterator[Window]:
    """Open the ext3 image at ``path``, or a ``partition`` ("overlay", "root" or an ID) of the SIF there; takes no lock.

    ``partition``: by default the overlay of a SIF. ``offset``: byte of the file where the filesystem begins; in a SIF that is
    where a partition does. Raises OSError, FormatError for other files, UsageError for another image with a ``partition``, and
    the errors of the SIF library.
    """
    name = os.fsdecode(path)
    partition, offset = filesystem_place(name, partition, offset)
    if partition is not None:
        with open_partition(name, partition) as window:
            yield window
        return
    fd = os.open(name, os.O_RDONLY | hostio.NO_WAIT)
    try:
        yield file_window(name, fd, offset)
    finally:
        os.close(fd)
