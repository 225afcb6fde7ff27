"""HostTree: a directory of the host. Nodes are paths; only the directory itself may be a symlink."""

from __future__ import annotations

import errno
import os
import stat
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

__all__ = ["HostFile", "HostTree", "host_stat"]

HAS_XATTRS = hasattr(os, "listxattr")
SECTOR = 512


class HostTree:
    """Files below the directory ``path``."""

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
                        content = file.read_at(0, found.size)
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
        return HostFile(node)

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


class HostFile:
    """Open regular file of the host. Raises OSError, IsADirectoryError and OSError (EINVAL) for another type."""

    def __init__(self, path: bytes) -> None:
        self.fd = os.open(path, hostio.READ_REGULAR)
        found = os.fstat(self.fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(self.fd)
            number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
            raise OSError(number, os.strerror(number), path)
        self.size = found.st_size

    def read_at(self, offset: int, size: int, /) -> bytes:
        return hostio.read_at(self.fd, offset, size)

    def data_ranges(self) -> list[tuple[int, int]]:
        return list(hostio.data_ranges(self.fd, 0, self.size))

    def host_ranges(self) -> list[tuple[int, int, int, int]]:
        return [(offset, self.fd, offset, length) for offset, length in self.data_ranges()]

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()


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


def _row(entry: os.DirEntry[bytes], *, stats: bool) -> TreeRow[bytes]:
    if stats:
        try:
            found = host_stat(entry.stat(follow_symlinks=False))
        except OSError as error:
            return TreeRow(entry.name, entry.path, UNKNOWN, error, HAS_XATTRS)
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
