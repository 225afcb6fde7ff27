"""Sources of copies into an image: files of the host, or of an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ext3 import hostio
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import Ext3Error
from ext3.format.xattr import split_name
from ext3.read.filesystem import Filesystem, Stat
from ext3.read.inode_scan import read_stats

from ..vfs.file_tree import Row
from ..vfs.resolve import Resolver

__all__ = ["CopySource", "DataRanges", "HostSource", "ImageSource", "SourceStat"]

N = TypeVar("N")
CHUNK_BYTES = 4 << 20
SECTOR = 512
DataRanges = list[tuple[int, int]]
"""Ascending (start, end) in bytes."""


@dataclass(frozen=True, slots=True)
class SourceStat:
    """Stat of a file to be copied; times in nanoseconds.

    ``identity`` is the same for all hard links of a file. ``allocated``: bytes of storage it takes.
    """

    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    size: int
    links: int
    rdev: tuple[int, int]
    identity: tuple[int, int]
    allocated: int


class CopySource(Protocol[N]):
    """Tree of files that can be copied into an image; ``N`` identifies a file in it."""

    def stat(self, node: N) -> SourceStat: ...

    def entries(self, node: N) -> list[tuple[bytes, N]]:
        """Return (name, node) of the entries of a directory, in byte order."""

    def scan(self, node: N) -> Iterator[tuple[bytes, N, SourceStat]]:
        """Iterate over the entries of a directory with their stats, in any order; unreadable ones are skipped."""

    def data_ranges(self, node: N) -> DataRanges:
        """Return the ranges of a regular file that are not holes."""

    def readlink(self, node: N) -> bytes: ...

    def xattrs(self, node: N) -> dict[bytes, bytes]: ...

    def copy_data(self, node: N, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None:
        """Copy the content to the file ``ino`` of an image. ``advance`` gets the bytes copied since its last call."""


class HostSource:
    """Files of the host. Nodes are paths; symlinks are not followed."""

    def stat(self, node: bytes) -> SourceStat:
        return _host_stat(os.lstat(node))

    def entries(self, node: bytes) -> list[tuple[bytes, bytes]]:
        return [(name, os.path.join(node, name)) for name in sorted(os.listdir(node))]

    def scan(self, node: bytes) -> Iterator[tuple[bytes, bytes, SourceStat]]:
        try:
            with os.scandir(node) as entries:
                for entry in entries:
                    try:
                        stat = _host_stat(entry.stat(follow_symlinks=False))
                    except OSError:
                        continue
                    yield entry.name, entry.path, stat
        except OSError:  # reported when it is copied
            return

    def data_ranges(self, node: bytes) -> DataRanges:
        try:
            fd = os.open(node, hostio.READ_REGULAR)
        except OSError:
            return []
        try:
            return [(low, low + size) for low, size in hostio.data_ranges(fd, 0, os.fstat(fd).st_size)]
        finally:
            os.close(fd)

    def readlink(self, node: bytes) -> bytes:
        return os.readlink(node)

    def xattrs(self, node: bytes) -> dict[bytes, bytes]:
        if not hasattr(os, "listxattr"):
            return {}
        try:
            found = [os.fsencode(name) for name in os.listxattr(node, follow_symlinks=False)]
            return {name: os.getxattr(node, name, follow_symlinks=False) for name in found if split_name(name)}
        except OSError as error:
            if error.errno in hostio.NO_XATTRS:
                return {}
            raise

    def copy_data(self, node: bytes, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None:
        fd = os.open(node, hostio.READ_REGULAR)
        try:
            filesystem.write_from(ino, fd, advance=advance)
        finally:
            os.close(fd)


def _host_stat(found: os.stat_result) -> SourceStat:
    rdev = (os.major(found.st_rdev), os.minor(found.st_rdev)) if hasattr(os, "major") else (0, 0)
    return SourceStat(
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_size,
        found.st_nlink,
        rdev,
        (found.st_dev, found.st_ino),
        found.st_blocks * SECTOR if hasattr(found, "st_blocks") else found.st_size,
    )


class ImageSource:
    """Files of an image. Nodes are inode numbers; names that the resolver's tree hides are not copied."""

    def __init__(self, resolver: Resolver[int], filesystem: Filesystem) -> None:
        self.resolver = resolver
        self.filesystem = filesystem

    def stat(self, node: int) -> SourceStat:
        return _image_stat(self.filesystem.stat(node))

    def _rows(self, node: int) -> list[Row[int]]:
        (listing,) = self.resolver.tree.scan_many([node], stats=False)
        if listing.problem is not None:
            raise listing.problem
        return list(listing.rows)

    def entries(self, node: int) -> list[tuple[bytes, int]]:
        return [(row.name, row.node) for row in self._rows(node)]

    def scan(self, node: int) -> Iterator[tuple[bytes, int, SourceStat]]:
        try:
            rows = self._rows(node)
            stats = read_stats(self.filesystem, [row.node for row in rows])
        except Ext3Error:  # reported when it is copied
            return
        for row, found in zip(rows, stats, strict=True):
            yield row.name, row.node, _image_stat(found)

    def data_ranges(self, node: int) -> DataRanges:
        size = self.filesystem.stat(node).size
        block_size = self.filesystem.superblock.block_size
        try:
            extents = self.filesystem.data_extents(node)
        except Ext3Error:
            return []
        return [(low * block_size, min(size, (low + count) * block_size)) for low, _, count in extents]

    def readlink(self, node: int) -> bytes:
        return self.filesystem.readlink(node)

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        return dict(self.resolver.tree.xattrs(node))

    def copy_data(self, node: int, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None:
        size = self.filesystem.stat(node).size
        block_size = self.filesystem.superblock.block_size
        with self.filesystem.open_file(node) as source, filesystem.open_file(ino, "r+") as target:
            if filesystem.stat(ino).size:
                target.truncate(0)
            for logical, _, blocks in self.filesystem.data_extents(node):
                at, end = logical * block_size, min(size, (logical + blocks) * block_size)
                while at < end:
                    source.seek(at)
                    data = source.read(min(CHUNK_BYTES, end - at))
                    if not data:
                        break
                    target.write_at(at, data)
                    at += len(data)
                    advance(len(data))
            if filesystem.stat(ino).size != size:  # it ends with a hole
                target.truncate(size)


def _image_stat(found: Stat) -> SourceStat:
    return SourceStat(
        found.mode,
        found.uid,
        found.gid,
        found.atime,
        found.mtime,
        found.size,
        found.links,
        (found.major, found.minor),
        (0, found.ino),
        found.blocks * SECTOR,
    )
