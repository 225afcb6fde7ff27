"""Where copies into an image come from: files of the host, or of an image."""

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

from .resolve import Resolver
from .whiteouts import without_overlay_xattrs

__all__ = ["FileFacts", "HostSource", "ImageSource", "Segments", "Source"]

H = TypeVar("H")
PIECE_BYTES = 4 << 20
SECTOR = 512
Segments = list[tuple[int, int]]
"""(first byte, end) of what is no hole, ascending."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file to be copied; times in nanoseconds. ``key`` tells hard links of one file. ``allocated``: bytes
    that are stored for it."""

    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    size: int
    links: int
    rdev: tuple[int, int]
    key: tuple[int, int]
    allocated: int


class Source(Protocol[H]):
    """Where files come from; each is known by a handle."""

    def facts(self, handle: H) -> FileFacts: ...

    def below(self, handle: H) -> list[tuple[bytes, H]]:
        """(name, handle) of what is in a directory, in byte order."""

    def scan(self, handle: H) -> Iterator[tuple[bytes, H, FileFacts]]:
        """The same with the facts, in any order; what cannot be read is left out."""

    def segments(self, handle: H) -> Segments:
        """Where a regular file has data."""

    def target(self, handle: H) -> bytes: ...

    def xattrs(self, handle: H) -> dict[bytes, bytes]: ...

    def fill(self, handle: H, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None:
        """Give a file of the image the content; ``advance`` is told how many bytes were copied since the last call."""


class HostSource:
    """Files of the host; handles are paths, and links are not followed."""

    def facts(self, handle: bytes) -> FileFacts:
        return _host_facts(os.lstat(handle))

    def below(self, handle: bytes) -> list[tuple[bytes, bytes]]:
        return [(name, os.path.join(handle, name)) for name in sorted(os.listdir(handle))]

    def scan(self, handle: bytes) -> Iterator[tuple[bytes, bytes, FileFacts]]:
        try:
            with os.scandir(handle) as entries:
                for entry in entries:
                    try:
                        facts = _host_facts(entry.stat(follow_symlinks=False))
                    except OSError:
                        continue
                    yield entry.name, entry.path, facts
        except OSError:  # it is told when it is copied
            return

    def segments(self, handle: bytes) -> Segments:
        try:
            fd = os.open(handle, hostio.READ_REGULAR)
        except OSError:
            return []
        try:
            return [(low, low + size) for low, size in hostio.data_ranges(fd, 0, os.fstat(fd).st_size)]
        finally:
            os.close(fd)

    def target(self, handle: bytes) -> bytes:
        return os.readlink(handle)

    def xattrs(self, handle: bytes) -> dict[bytes, bytes]:
        if not hasattr(os, "listxattr"):
            return {}
        try:
            found = [os.fsencode(name) for name in os.listxattr(handle, follow_symlinks=False)]
            return {name: os.getxattr(handle, name, follow_symlinks=False) for name in found if split_name(name)}
        except OSError as error:
            if error.errno in hostio.NO_XATTRS:
                return {}
            raise

    def fill(self, handle: bytes, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None:
        fd = os.open(handle, hostio.READ_REGULAR)
        try:
            filesystem.write_from(ino, fd, advance=advance)
        finally:
            os.close(fd)


def _host_facts(found: os.stat_result) -> FileFacts:
    rdev = (os.major(found.st_rdev), os.minor(found.st_rdev)) if hasattr(os, "major") else (0, 0)
    return FileFacts(
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
    """Files of an image; handles are inodes. What its resolver does not see is not copied."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.filesystem: Filesystem = resolver.filesystem

    def facts(self, handle: int) -> FileFacts:
        return _image_facts(self.filesystem.stat(handle))

    def below(self, handle: int) -> list[tuple[bytes, int]]:
        return [(entry.name, entry.ino) for entry in self.resolver.entries(handle)]

    def scan(self, handle: int) -> Iterator[tuple[bytes, int, FileFacts]]:
        try:
            entries = self.resolver.entries(handle)
            stats = read_stats(self.filesystem, [entry.ino for entry in entries])
        except Ext3Error:  # it is told when it is copied
            return
        for entry, found in zip(entries, stats, strict=True):
            yield entry.name, entry.ino, _image_facts(found)

    def segments(self, handle: int) -> Segments:
        size = self.filesystem.stat(handle).size
        block_size = self.filesystem.superblock.block_size
        try:
            extents = self.filesystem.data_extents(handle)
        except Ext3Error:
            return []
        return [(low * block_size, min(size, (low + count) * block_size)) for low, _, count in extents]

    def target(self, handle: int) -> bytes:
        return self.filesystem.readlink(handle)

    def xattrs(self, handle: int) -> dict[bytes, bytes]:
        found = self.filesystem.xattrs(handle)
        return without_overlay_xattrs(found) if self.resolver.hide_whiteouts else found

    def fill(self, handle: int, filesystem: WritableFilesystem, ino: int, advance: Callable[[int], None]) -> None:
        size = self.filesystem.stat(handle).size
        block_size = self.filesystem.superblock.block_size
        with self.filesystem.open_file(handle) as source, filesystem.open_file(ino, "r+") as target:
            if filesystem.stat(ino).size:
                target.truncate(0)
            for logical, _, blocks in self.filesystem.data_extents(handle):
                at, end = logical * block_size, min(size, (logical + blocks) * block_size)
                while at < end:
                    source.seek(at)
                    data = source.read(min(PIECE_BYTES, end - at))
                    if not data:
                        break
                    target.write_at(at, data)
                    at += len(data)
                    advance(len(data))
            if filesystem.stat(ino).size != size:  # it ends with a hole
                target.truncate(size)


def _image_facts(found: Stat) -> FileFacts:
    return FileFacts(
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
