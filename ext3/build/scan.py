"""Scan: a directory of the host becomes a Tree, its data stays where it is until it is copied.

Everything an inode can hold is taken: modes, 32-bit owners, nanosecond times, hard links, holes, extended attributes.
Names are taken in byte order, so that the same tree gives the same image wherever it lies.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, Self

from ..errors import ContentChangedError, SourceError
from .progress import Progress, Silent
from .tree import NODE, ContentFile, Segment, Times, TreeBuilder

__all__ = ["DirectoryContent", "ScanOptions", "scan_directory"]

OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # never wait for a FIFO that took a file's place
    | getattr(os, "O_BINARY", 0)
)
PARENT, SIZE, MTIME, MTIME_NS = map((NODE.names or ()).index, ("parent", "size", "mtime", "mtime_ns"))
_NO_ATTRIBUTES = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_TREATED_AS_LEFT_OUT = _NO_ATTRIBUTES | {errno.EPERM, errno.EACCES}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """``take_attribute(name)`` says which extended attributes go in; ``exclude(path, is_dir)`` which paths (bytes,
    relative to the source) do not; ``never``: (st_dev, st_ino) of files never taken, such as the image being written."""

    take_attribute: Callable[[bytes], bool] = lambda name: True
    exclude: Callable[[bytes, bool], bool] | None = None
    never: Container[tuple[int, int]] = ()
    one_file_system: bool = False
    skip_unreadable: bool = False
    allow_changed: bool = False


@dataclass(slots=True)
class DirectoryContent:
    """Data of the regular files found; opened one at a time by path."""

    builder: TreeBuilder
    allow_changed: bool = False
    directories: dict[int, bytes] = field(default_factory=dict)

    def host_path(self, node: int) -> bytes:
        """Where a node was found on the host."""
        return os.path.join(self.directories[self.builder.row(node)[PARENT]], self.builder.names[node])

    def read_whole(self, node: int, view: memoryview) -> None:
        row = self.builder.row(node)
        path = self.directories[row[PARENT]] + b"/" + self.builder.names[node]
        want = (row[SIZE], row[MTIME], row[MTIME_NS])
        for attempt in range(2):
            fd = _open(path)
            try:
                if attempt:
                    want = _fingerprint(fd)
                done = _read_exactly(fd, view)
                if done == len(view) and _fingerprint(fd) == want and want[0] == done:
                    return
            except OSError as error:
                raise SourceError(path, f"reading: {error.strerror}", error=error) from error
            finally:
                os.close(fd)
        if not self.allow_changed:
            raise changed(path)
        view[done:] = bytes(len(view) - done)

    def open(self, node: int) -> ContentFile:
        row = self.builder.row(node)
        path = self.directories[row[PARENT]] + b"/" + self.builder.names[node]
        return _HostFile(path, (row[SIZE], row[MTIME], row[MTIME_NS]))


def changed(path: bytes) -> ContentChangedError:
    return ContentChangedError(
        path,
        "changed while it was read, twice",
        hint="wait until nobody writes it, or --allow-changed takes it as it is",
    )


Fingerprint = tuple[int, int, int]
"""Size, and whole seconds and nanoseconds of the modification time."""


def _open(path: bytes) -> int:
    try:
        return os.open(path, OPEN_FLAGS)
    except OSError as error:
        raise SourceError(path, f"cannot be opened: {error.strerror}", error=error) from error


def _fingerprint(fd: int) -> Fingerprint:
    found: Any = os.fstat(fd)
    return found.st_size, found[8], found.st_mtime_ns % 1_000_000_000


def _read_exactly(fd: int, view: memoryview) -> int:
    """Bytes read into ``view``; fewer than it holds only at the end of the file."""
    done = _read_into(fd, view)
    while 0 < done < len(view):
        more = _read_into(fd, view[done:])
        if not more:
            break
        done += more
    return done


if hasattr(os, "readv"):

    def _read_into(fd: int, view: memoryview) -> int:
        return os.readv(fd, [view])

else:  # pragma: no cover - hosts without readv

    def _read_into(fd: int, view: memoryview) -> int:
        data = os.read(fd, len(view))
        view[: len(data)] = data
        return len(data)


class _HostFile:
    """A large file, open while it is copied."""

    def __init__(self, path: bytes, planned: Fingerprint) -> None:
        self.path = path
        self.fd: int | None = _open(path)
        self._planned = planned[0]
        self._seen = planned

    def read_into(self, view: memoryview, offset: int) -> int:
        assert self.fd is not None
        try:
            os.lseek(self.fd, offset, os.SEEK_SET)
            return _read_exactly(self.fd, view)
        except OSError as error:
            raise SourceError(self.path, f"reading: {error.strerror}", error=error) from error

    def changed(self) -> bool:
        """Whether the file differs from what the last call (or, the first time, the scan) saw."""
        assert self.fd is not None
        now = _fingerprint(self.fd)
        before, self._seen = self._seen, now
        return now != before or now[0] != self._planned

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def host_times(found: os.stat_result) -> Times:
    """The three times of a stat result."""
    row: Any = found  # indexed, the times are whole seconds
    return (
        row[7],
        row[8],
        row[9],
        found.st_atime_ns % 1_000_000_000,
        found.st_mtime_ns % 1_000_000_000,
        found.st_ctime_ns % 1_000_000_000,
    )


class _Scanner:
    def __init__(self, builder: TreeBuilder, options: ScanOptions, progress: Progress) -> None:
        self.builder = builder
        self.options = options
        self.progress = progress
        self.content = DirectoryContent(builder, options.allow_changed)
        self.links: dict[tuple[int, int], int] = {}
        self.without_attributes: set[int] = set()
        self.unreadable: list[tuple[bytes, str]] = []
        self.can_list = hasattr(os, "listxattr")
        self.can_seek = hasattr(os, "SEEK_DATA")

    def run(self, source: bytes, root: int) -> None:
        found = os.stat(source)
        if self.can_list:
            self.attributes(root, source, found.st_dev)
        prefix = len(source.rstrip(b"/")) + 1
        stack = [(root, source.rstrip(b"/") or b"/", found.st_dev)]
        while stack:
            node, path, device = stack.pop()
            if self.options.one_file_system and device != found.st_dev:
                continue
            self.content.directories[node] = b"" if path == b"/" else path
            try:
                names = os.listdir(path)
            except OSError as error:
                self.unreadable.append((path, error.strerror or str(error)))
                continue
            names.sort()
            inner: list[tuple[int, bytes, int]] = []
            self.directory(node, (b"" if path == b"/" else path) + b"/", names, prefix, inner)
            stack.extend(reversed(inner))
            self.progress.advance(len(names))

    def directory(self, parent: int, base: bytes, names: list[bytes], prefix: int, inner: list[tuple[int, bytes, int]]) -> None:
        builder, options = self.builder, self.options
        exclude, never, lstat, access = options.exclude, options.never, os.lstat, os.access
        found: Any  # as a sequence it has the times in whole seconds
        for name in names:
            path = base + name
            try:
                found = lstat(path)
            except OSError as error:
                if error.errno != errno.ENOENT:  # removed since the directory was listed
                    self.unreadable.append((path, error.strerror or str(error)))
                continue
            mode, ino, device, nlink, uid, gid, size, atime, mtime, ctime = found[:10]
            kind = mode & 0o170000
            if exclude is not None and exclude(path[prefix:], kind == 0o040000):
                continue
            if never and (device, ino) in never:
                continue
            times = (
                atime,
                mtime,
                ctime,
                found.st_atime_ns % 1_000_000_000,
                found.st_mtime_ns % 1_000_000_000,
                found.st_ctime_ns % 1_000_000_000,
            )
            if kind == 0o040000:
                node = builder.add(parent, name, mode, uid, gid, 0, times)
                inner.append((node, path, device))
            else:
                if nlink > 1:
                    first = self.links.get((device, ino))
                    if first is not None:
                        builder.link(parent, name, first)
                        continue
                if kind == 0o100000:
                    if size and not access(path, os.R_OK):
                        self.unreadable.append((path, os.strerror(errno.EACCES)))
                        continue
                    node = builder.add(parent, name, mode, uid, gid, size, times)
                    if self.can_seek and found.st_blocks * 512 < size:
                        self.holes(node, path, size)
                elif kind == 0o120000:
                    try:
                        target = os.readlink(path)
                    except OSError as error:
                        self.unreadable.append((path, error.strerror or str(error)))
                        continue
                    node = builder.add(parent, name, mode, uid, gid, len(target), times)
                    builder.targets[node] = target
                else:
                    node = builder.add(parent, name, mode, uid, gid, 0, times)
                    if kind in (0o020000, 0o060000):
                        builder.devices[node] = (os.major(found.st_rdev), os.minor(found.st_rdev))
                if nlink > 1:
                    self.links[device, ino] = node
            if self.can_list and device not in self.without_attributes:
                self.attributes(node, path, device)

    def attributes(self, node: int, path: bytes, device: int) -> None:
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_ATTRIBUTES:
                self.without_attributes.add(device)
            elif error.errno in _TREATED_AS_LEFT_OUT:
                self.builder.left_out["attributes that may not be listed"] += 1
            elif error.errno != errno.ENOENT:
                raise SourceError(path, f"reading its extended attributes: {error.strerror}", error=error) from error
            return
        for text in sorted(names):
            name = os.fsencode(text)
            if not self.options.take_attribute(name):
                self.builder.left_out[text] += 1
                continue
            try:
                value = os.getxattr(path, name, follow_symlinks=False)
            except OSError as error:
                if error.errno in _TREATED_AS_LEFT_OUT:
                    self.builder.left_out[text] += 1
                elif error.errno not in (errno.ENODATA, errno.ENOENT):
                    raise SourceError(path, f"reading attribute {text}: {error.strerror}", error=error) from error
                continue
            self.builder.xattrs.setdefault(node, {})[name] = value

    def holes(self, node: int, path: bytes, size: int) -> None:
        """The data of a file that has fewer blocks than bytes (it may be compressed, and have no hole)."""
        fd = _open(path)
        segments: list[Segment] = []
        try:
            end = 0
            while end < size:
                try:
                    begin = os.lseek(fd, end, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:
                        break  # a hole up to the end
                    return  # no such seek here: taken as data throughout
                end = min(size, os.lseek(fd, begin, os.SEEK_HOLE))
                if begin < end:
                    segments.append((begin, end - begin, begin))
        finally:
            os.close(fd)
        if segments != [(0, size, 0)]:
            self.builder.segments[node] = segments


def scan_directory(
    builder: TreeBuilder, source: bytes, root: int, options: ScanOptions, progress: Progress | None = None
) -> DirectoryContent:
    """Add everything below host directory ``source`` below node ``root``, which stands for it and is there already.

    Unreadable files and directories are collected in ``builder.unreadable``; SourceError lists them unless
    ``options.skip_unreadable``. The content returned reads the files' data from the host.
    """
    progress = progress or Silent()
    progress.phase("scan", None, "files")
    if not stat.S_ISDIR(os.stat(source).st_mode):
        raise SourceError(source, "not a directory", hint="--from-dir takes a directory, --from-tar an archive")
    scanner = _Scanner(builder, options, progress)
    scanner.run(source, root)
    builder.unreadable += scanner.unreadable
    return scanner.content
