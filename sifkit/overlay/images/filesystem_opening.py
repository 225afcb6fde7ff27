"""Filesystems opened for reading, as they are: ext3 or squashfs, in a file, at an offset of one, or in a partition of a SIF.

The ext3 library is loaded for an ext3 filesystem only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ext3 import hostio
from ext3.hostio import HostPath

from ...errors import TruncatedError, human, shell_quote
from ...vfs.file_tree import FileTree, StatFS
from ...vfs.host_tree import HostTree
from .image_format import HEAD_BYTES, head_format, image_kind
from .sif_partition import check_place, open_sif, partition_at, partition_format, partition_window, select_partition
from .window import Window, file_window

if TYPE_CHECKING:
    from ...sif import SIF, Descriptor
    from ...sif.descriptor_table import DescriptorTable
    from .opening import OpenedImage

__all__ = [
    "FilesystemKind",
    "OpenedFilesystem",
    "open_directory",
    "open_filesystem",
    "open_partition_filesystem",
]

FilesystemKind = Literal["ext3", "squashfs", "directory"]


class OpenedFilesystem(NamedTuple):
    """Filesystem of the file at ``path``, or of object ``object_id`` of the SIF there, opened for reading.

    ``image``: its facts, if it is ext2 or ext3. ``summary``: of a squashfs, one line.
    """

    tree: FileTree[Any]
    kind: FilesystemKind
    path: str
    object_id: int | None = None
    image: OpenedImage | None = None
    summary: str = ""

    @property
    def name(self) -> str:
        """Name for messages: the file's, with the object of a SIF."""
        return self.path if self.object_id is None else f"{self.path}, object {self.object_id}"

    @property
    def check_hint(self) -> str:
        """Hint for a damaged image."""
        if self.kind == "directory":
            return ""
        if self.kind == "squashfs":
            return _check_hint(self.path)
        place = "" if self.object_id is None else f"--partition {self.object_id} "
        return f"check it with: sifkit overlay fsck -fn {place}{shell_quote(self.path)}"

    def statfs(self) -> StatFS:
        """Return the totals of the filesystem; ``available_bytes`` of ext3 is what a container can write without root."""
        return self.tree.statfs() if self.image is None else self.image.statfs()


def open_directory(path: HostPath) -> OpenedFilesystem:
    """Return a directory of the host as a filesystem."""
    return OpenedFilesystem(HostTree(path), "directory", os.fsdecode(path))


@contextmanager
def open_filesystem(path: HostPath, partition: str | None = None, *, offset: int | None = None) -> Iterator[OpenedFilesystem]:
    """Open the filesystem in the file at ``path``: from byte ``offset`` on, or a ``partition`` of the SIF that it is.

    ``partition``: "overlay", "root" or an ID. Raises OSError, FormatError and its kin for other files, UsageError for an
    ``offset`` or a ``partition`` that the file cannot have, the errors of the SIF library, Ext3Error and SquashfsError.
    """
    name = os.fsdecode(path)
    kind = image_kind(name)
    check_place(name, kind, partition, offset)
    if kind == "sif":
        partition = partition_at(name, offset) if offset is not None else partition
        assert partition is not None
        with open_sif(name) as (sif, fd):
            found = select_partition(sif, partition, name)
            with open_partition_filesystem(sif, fd, found, name) as opened:
                yield opened
        return
    fd = os.open(name, os.O_RDONLY | hostio.NO_WAIT)
    try:
        window = file_window(name, fd, offset)
        head = hostio.read_at(fd, window.offset, min(HEAD_BYTES, window.size))
        is_squashfs = head_format(head, window.size) == "squashfs"
        with (_open_squashfs if is_squashfs else _open_ext3)(window) as opened:
            yield opened
    finally:
        os.close(fd)


@contextmanager
def open_partition_filesystem(sif: SIF | DescriptorTable, fd: int, found: Descriptor, name: str) -> Iterator[OpenedFilesystem]:
    """Open a partition of the SIF ``name``, open as ``fd``; see ``open_filesystem``."""
    kind = partition_format(sif, fd, found, name)
    with (_open_squashfs if kind == "squashfs" else _open_ext3)(partition_window(sif, fd, found, name)) as opened:
        yield opened


@contextmanager
def _open_ext3(window: Window) -> Iterator[OpenedFilesystem]:
    from .opening import named_errors, open_in_window

    with ExitStack() as stack:
        offset = window.offset if window.partition is None and window.offset else None
        with named_errors(window.path, offset, object_id=_object_id(window)):
            image = stack.enter_context(open_in_window(window))
        yield OpenedFilesystem(image.tree, "ext3", window.path, _object_id(window), image)


@contextmanager
def _open_squashfs(window: Window) -> Iterator[OpenedFilesystem]:
    from ...squashfs.codecs import COMPRESSORS
    from ...squashfs.errors import CorruptSquashfsError, SquashfsError, TruncatedSquashfsError
    from ...squashfs.reader import Reader
    from ...squashfs.source import FileWindow

    try:
        reader = Reader(FileWindow(window.fd, window.offset, window.size))
    except TruncatedSquashfsError as error:
        place, needed = window.offset, (error.offset or 0) + error.size
        raise TruncatedError(window.path, needed_bytes=needed, available_bytes=window.size, offset=place) from error
    except SquashfsError as error:
        error.set_path(window.path)
        if isinstance(error, CorruptSquashfsError):
            error.hint = _check_hint(window.path)
        raise
    found = reader.superblock
    compressor = COMPRESSORS.get(found.compression, "unknown compressor")
    summary = f"squashfs, {compressor}, {human(found.bytes_used)}, blocks of {human(found.block_size)}"
    yield OpenedFilesystem(reader, "squashfs", window.path, _object_id(window), summary=summary)


def _check_hint(path: str) -> str:
    return f"check it with: sifkit check {shell_quote(path)}"


def _object_id(window: Window) -> int | None:
    return None if window.partition is None else window.partition.id
