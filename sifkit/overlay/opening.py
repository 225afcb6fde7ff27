"""Opening of images and directories for reading, with checks whose errors are clearer than those of the format."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ext3 import hostio
from ext3.check.bitmap_counts import count_free
from ext3.device.base import BlockDevice
from ext3.errors import Ext3Error, NotExt3Error
from ext3.read.filesystem import Filesystem

from ..atomic import HostPath
from ..errors import FormatError, NotYetError, UsageError, show
from ..vfs.errors import MissingPathError
from ..vfs.file_tree import FileTree, StatFS, TreeStatFS
from ..vfs.host_tree import HostTree
from ..vfs.subtree import Subtree
from ..vfs.upper_view import UpperView, find_upper
from .change_watch import ChangeWatch, ImageState
from .disk_label import offset_hint
from .image_format import image_kind
from .reserve import user_bytes
from .sif_partition import open_partition, partition_at
from .window import Window, check_window, file_window

__all__ = [
    "FileDetails",
    "OpenedImage",
    "OpenedTree",
    "check_place",
    "check_whole",
    "named_errors",
    "open_ext3",
    "open_image",
    "open_tree",
    "open_window",
    "upper_directory",
    "upper_tree",
]

N = TypeVar("N")


@dataclass(frozen=True, slots=True)
class FileDetails:
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
        return count_free(self._filesystem.device, self._filesystem.superblock, self._filesystem.groups)

    def details(self, ino: int) -> FileDetails:
        """Return what only ext3 knows of a file. Raises CorruptError, DeviceError."""
        found = self._filesystem.stat(ino)
        return FileDetails(found.crtime, found.flags, found.generation)

    def count_extents(self, ino: int) -> int:
        """Return the number of extents of a file. Raises CorruptError, DeviceError."""
        return len(self._filesystem.data_extents(ino))


@dataclass(frozen=True, slots=True)
class OpenedTree:
    """Tree opened for reading; its root is where paths start. ``image``: the image it is in, None for a host directory."""

    tree: FileTree[Any]
    image: OpenedImage | None

    def statfs(self) -> StatFS:
        """Return the totals of the filesystem; ``available_bytes`` of an image is what a container can write without root."""
        found = self.tree.statfs()
        if self.image is None:
            return found
        size = self.image.block_size
        blocks, free = found.total_bytes // size, found.free_bytes // size
        available = user_bytes(blocks=blocks, free=free, reserved=self.image.reserved_blocks, block_size=size)
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


@contextmanager
def open_tree(
    path: HostPath,
    partition: str | None = None,
    *,
    offset: int | None = None,
    upper: bool = False,
    whiteouts: bool = False,
) -> Iterator[OpenedTree]:
    """Open the image at ``path`` (a ``partition`` of a SIF, or from byte ``offset`` on), or a directory of the host, read-only.

    ``upper``: show its upper/ as a container sees it, or with ``whiteouts`` as it is. Raises what ``open_image`` does, and
    MissingPathError without upper/.
    """
    with ExitStack() as stack:
        tree: FileTree[Any]
        image: OpenedImage | None = None
        if os.path.isdir(path):
            if partition is not None:
                raise _no_partitions(os.fsdecode(path))
            if offset is not None:
                raise UsageError(f"{show(os.fsdecode(path))} is a directory, and --offset is for images", hint="leave it out")
            tree = HostTree(path)
        else:
            with named_errors(path, offset):
                image = stack.enter_context(open_image(path, partition, offset=offset))
            tree = image.tree
        if upper:
            tree = upper_directory(tree) if whiteouts else upper_tree(tree)
        yield OpenedTree(tree, image)


@contextmanager
def named_errors(path: HostPath, offset: int | None = None) -> Iterator[None]:
    """Name the image at ``path`` in errors of this block, which opens it: other images may be open too.

    If there is no filesystem at ``offset``, the hint says where in a partitioned disk it is.
    """
    try:
        yield
    except Ext3Error as error:
        if isinstance(error, NotExt3Error):
            error.hint = offset_hint(path, offset) or error.hint
        if error.path is None:
            error.path = os.fsdecode(path)
            error.message = f"{show(error.path)}: {error.message}"
        raise


def upper_directory(tree: FileTree[N]) -> Subtree[N]:
    """Return upper/ of a tree, as it is. Raises MissingPathError if there is none."""
    return Subtree(tree, _upper(tree))


def upper_tree(tree: FileTree[N]) -> UpperView[N]:
    """Return upper/ of a tree as a container sees it. Raises MissingPathError if there is none."""
    return UpperView(tree, _upper(tree))


def _upper(tree: FileTree[N]) -> N:
    node = find_upper(tree)
    if node is None:
        raise MissingPathError(b"/upper", errno.ENOENT, "the image has no upper/")
    return node


@contextmanager
def open_image(path: HostPath, partition: str | None = None, *, offset: int | None = None) -> Iterator[OpenedImage]:
    """Open the filesystem in the image at ``path``, in a ``partition`` of the SIF there, or at byte ``offset``, read-only.

    Raises what ``open_window`` and ``check_window`` do, and Ext3Error.
    """
    with open_window(path, partition, offset=offset) as window:
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


def _no_partitions(name: str) -> UsageError:
    return UsageError(f"{show(name)} is not a SIF image, and --partition is for SIF images", hint="leave out --partition")


@contextmanager
def open_window(path: HostPath, partition: str | None = None, *, offset: int | None = None) -> Iterator[Window]:
    """Open the image at ``path``, or a ``partition`` ("overlay", "root" or an ID) of the SIF there, for reading; takes no lock.

    ``offset``: byte of the file where the filesystem begins; in a SIF that is where a partition does. Raises OSError,
    FormatError for other files, NotYetError for a filesystem that this release does not read or a SIF without
    ``partition``, UsageError for another image with one, and the errors of the SIF library.
    """
    name = os.fsdecode(path)
    kind = image_kind(name)
    check_place(name, kind, partition, offset)
    if kind == "squashfs" and offset is None:
        raise FormatError(f"{show(name)} is a squashfs image, not ext3", path=name, hint="give an ext3 image")
    if kind == "sif":
        if offset is not None:
            partition = partition_at(name, offset)
        if partition is None:
            raise NotYetError(
                f"{show(name)} is a SIF image, and this release does not show a container's view of it",
                path=name,
                hint=f"--partition overlay shows its overlay; list its objects with: sifkit sif list {show(name)}",
            )
        with open_partition(name, partition) as window:
            yield window
        return
    fd = os.open(name, os.O_RDONLY | hostio.NO_WAIT)
    try:
        yield file_window(name, fd, offset)
    finally:
        os.close(fd)


def check_place(name: str, kind: str | None, partition: str | None, offset: int | None) -> None:
    """Raise UsageError for a ``partition`` of an image that is no SIF, or an ``offset`` beside it."""
    if partition is not None and offset is not None:
        raise UsageError("--partition and --offset both say where the filesystem is", hint="give one of them")
    if kind != "sif" and partition is not None:
        raise _no_partitions(name)
