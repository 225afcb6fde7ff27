"""HostTree: a directory or a file of the host. Nodes are paths; only the root itself may be a symlink.

What the root leads to need not have a path: ``/dev/stdin`` may be a pipe, and ``/dev/fd/3`` a file that was removed.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from ext3 import hostio

from .file_tree import (
    DIRECTORY,
    REGULAR,
    SYMLINK,
    UNKNOWN,
    TreeFile,
    TreeListing,
    TreeRow,
    TreeStat,
    TreeStatFS,
    file_type_of,
)

__all__ = ["HostContent", "HostFile", "HostStream", "HostTree", "host_stat"]

HAS_XATTRS = hasattr(os, "listxattr")
FOLLOW = hostio.READ_REGULAR & ~getattr(os, "O_NOFOLLOW", 0)
"""Flags to read a regular file that a symlink may lead to."""
SECTOR = 512
NAME_MAX = 255
MAX_HELD_BYTES = 256 << 20
"""Most bytes held of a file whose size is not known before it is read."""
READ_BYTES = 1 << 20


class HostTree:
    """The directory ``path`` and the files below it, or the file ``path``."""

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        self._root = os.fsencode(path)

    @property
    def root(self) -> bytes:
        return self._root

    def stat(self, node: bytes, /) -> TreeStat:
        return host_stat(os.stat(node) if node == self._root else os.lstat(node))

    def find_name(self, directory: bytes, name: bytes, /) -> bytes | None:
        node = os.path.join(directory, name)
        try:
            os.lstat(node)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _path_error(error, name) from error
        return node

    def scan_many(self, directories: Sequence[bytes], /, *, stats: bool = True) -> Iterator[TreeListing[bytes]]:
        for directory in directories:
            rows: list[TreeRow[bytes]] = []
            problem: OSError | None = None
            try:
                with os.scandir(directory) as entries:
                    rows.extend(_row(entry, stats=stats) for entry in entries)
            except OSError as error:
                problem = error
            rows.sort(key=lambda row: row.name)
            yield TreeListing(directory, rows, problem, 0)

    def load_many(
        self, nodes: Sequence[bytes], /, *, keep_order: bool = True, limit: int = 1 << 16
    ) -> Iterator[TreeFile[bytes]]:
        for position, node in enumerate(nodes):
            try:
                found = self.stat(node)
            except OSError as error:
                yield TreeFile(position, node, error, {}, None)
                continue
            xattrs: Mapping[bytes, bytes] | OSError
            try:
                xattrs = self.xattrs(node)
            except OSError as error:
                xattrs = {} if error.errno in hostio.NO_XATTRS else error
            content: bytes | OSError | None = None
            if stat.S_ISREG(found.mode) and found.size <= min(limit, found.blocks * SECTOR):  # fewer blocks: it may have holes
                try:
                    with self.open_file(node) as file:
                        content = file.read_at(0, found.size) if file.is_sized else None
                except OSError as error:
                    content = error
            yield TreeFile(position, node, found, xattrs, content)

    def readlink(self, node: bytes, /) -> bytes:
        return os.readlink(node)

    def xattrs(self, node: bytes, /) -> Mapping[bytes, bytes]:
        """Return full name -> value. Raises OSError (ENOTSUP) if the filesystem or this system has none."""
        if not HAS_XATTRS:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), node)
        follow = node == self._root
        names = os.listxattr(node, follow_symlinks=follow)
        return {os.fsencode(name): os.getxattr(node, name, follow_symlinks=follow) for name in names}

    def open_file(self, node: bytes, /) -> HostFile:
        return HostFile(_open_regular(node, FOLLOW if node == self._root else hostio.READ_REGULAR))

    def statfs(self) -> TreeStatFS:
        if not hasattr(os, "statvfs"):
            import shutil

            found = shutil.disk_usage(os.fsdecode(self._root))
            return TreeStatFS(found.total, found.free, found.free, 0, 0, None)
        totals = os.statvfs(self._root)
        unit = totals.f_frsize
        return TreeStatFS(
            totals.f_blocks * unit, totals.f_bfree * unit, totals.f_bavail * unit, totals.f_files, totals.f_ffree, None
        )


class HostContent(HostTree):
    """The file ``path`` as what it gives to read, whatever its kind: a regular file without holes.

    Opening a FIFO waits for a process that writes to it.
    """

    def stat(self, node: bytes, /) -> TreeStat:
        found = super().stat(node)
        if stat.S_ISDIR(found.mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), node)
        return found._replace(mode=stat.S_IFREG | stat.S_IMODE(found.mode), size=0, blocks=0, major=0, minor=0)

    def open_file(self, node: bytes, /) -> HostFile:
        return HostFile(os.open(node, os.O_RDONLY | hostio.OPEN | getattr(os, "O_NOCTTY", 0)))


class HostStream:
    """Bytes of an open file, read from its start to its end."""

    def __init__(self, fd: int) -> None:
        self._read = hostio.sequential_reader(fd)

    def read(self, size: int, /) -> bytes:
        return self._read(size)


class HostFile:
    """Open file of the host, which it closes, at the latest when nobody has it any longer.

    Where its size is not known, or not the one its filesystem reports (``is_sized`` False), the content is read and held when
    it is needed.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._size = hostio.true_size(fd)
        self._lock = threading.Lock()
        self._content: bytes | None = None

    @property
    def is_sized(self) -> bool:
        return self._size is not None

    @property
    def size(self) -> int:
        """Raises OSError (EFBIG) if it is not sized and has more than 256 MiB."""
        return len(self._held()) if self._size is None else self._size

    def read_at(self, offset: int, size: int, /) -> bytes:
        if self._size is None:
            return self._held()[offset : offset + size]
        return hostio.read_at(self.fd, offset, size)

    def data_ranges(self) -> list[tuple[int, int]]:
        if self._size is None:
            return [(0, self.size)] if self.size else []
        return list(hostio.data_ranges(self.fd, 0, self._size))

    def host_ranges(self) -> list[tuple[int, int, int, int]] | None:
        return [(offset, self.fd, offset, length) for offset, length in self.data_ranges()] if self.is_sized else None

    def _held(self) -> bytes:
        """Return the whole content: read once, since the files of proc change."""
        with self._lock:
            if self._content is None:
                self._content = _read_all(self.fd)
            return self._content

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


def _open_regular(path: bytes, flags: int) -> int:
    """Open a regular file. Raises OSError, IsADirectoryError and OSError (EINVAL) for another type."""
    fd = os.open(path, flags)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode):
        return fd
    os.close(fd)
    number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
    raise OSError(number, os.strerror(number), path)


def _read_all(fd: int) -> bytes:
    read, content = hostio.sequential_reader(fd), bytearray()
    while piece := read(READ_BYTES):
        content += piece
        if len(content) > MAX_HELD_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return bytes(content)


def host_stat(found: os.stat_result) -> TreeStat:
    """Return the Stat of a file of the host."""
    device = (0, 0)
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        device = (os.major(found.st_rdev), os.minor(found.st_rdev))
    return TreeStat(
        found.st_ino,
        found.st_dev,
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_size,
        found.st_nlink,
        getattr(found, "st_blocks", -(-found.st_size // SECTOR)),
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_ctime_ns,
        *device,
    )


def _path_error(error: OSError, name: bytes) -> OSError:
    """Return the error of a file in a directory, EIO for a path that is too long though the name is not.

    Overlayfs takes ENAMETOOLONG of a layer for a name that is not there.
    """
    if error.errno != errno.ENAMETOOLONG or len(name) > NAME_MAX:
        return error
    return OSError(errno.EIO, "its path is longer than this system allows", error.filename)


def _row(entry: os.DirEntry[bytes], *, stats: bool) -> TreeRow[bytes]:
    if stats:
        try:
            found = host_stat(entry.stat(follow_symlinks=False))
        except OSError as error:
            return TreeRow(entry.name, entry.path, UNKNOWN, _path_error(error, entry.name), HAS_XATTRS)
        return TreeRow(entry.name, entry.path, file_type_of(found.mode), found, HAS_XATTRS)
    kind = UNKNOWN
    try:  # on some filesystems the type needs a call
        if entry.is_dir(follow_symlinks=False):
            kind = DIRECTORY
        elif entry.is_symlink():
            kind = SYMLINK
        elif entry.is_file(follow_symlinks=False):
            kind = REGULAR
        else:
            kind = file_type_of(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        pass
    return TreeRow(entry.name, entry.path, kind, None, HAS_XATTRS)
