"""Data of files on the host, read when their blocks in the image are known, and checked for changes since the scan."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Self

from .. import hostio
from ..errors import ContentChangedError, SourceError
from .builder import TreeBuilder
from .content import ContentFile, MemoryContent
from .node import FIELDS

__all__ = ["DirectoryContent", "open_host_file"]

PARENT, SIZE, MTIME, MTIME_NS = map(list(FIELDS).index, ("parent", "size", "mtime", "mtime_ns"))


@dataclass(slots=True)
class DirectoryContent:
    """Data of scanned regular files, opened one at a time by path. ``held``: of those that were read in the scan, by node."""

    builder: TreeBuilder
    allow_changed: bool = False
    directories: dict[int, bytes] = field(default_factory=dict)
    held: dict[int, bytes] = field(default_factory=dict)

    def read_whole(self, node: int, view: memoryview) -> None:
        if node in self.held:
            view[:] = self.held[node]
            return
        row = self.builder.row(node)
        path = self.directories[row[PARENT]] + b"/" + self.builder.names[node]
        fd = open_host_file(path)
        try:
            if _read_into(fd, view) == len(view) and _fingerprint(fd) == (row[SIZE], row[MTIME], row[MTIME_NS]):
                return
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            os.close(fd)
        self._read_again(path, view)

    def _read_again(self, path: bytes, view: memoryview) -> None:
        """Read a small file that changed since the scan; accept it if it does not change during the read."""
        fd = open_host_file(path)
        try:
            before = _fingerprint(fd)
            done = _read_exactly(fd, view)
            stable = _fingerprint(fd) == before and before[0] == len(view)
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            os.close(fd)
        if stable and done == len(view):
            return
        if stable:
            raise _false_size(path, len(view))
        if not self.allow_changed:
            raise changed(path)
        view[done:] = bytes(max(0, len(view) - done))

    def open(self, node: int) -> ContentFile:
        if node in self.held:
            return MemoryContent(self.held).open(node)
        row = self.builder.row(node)
        path = self.directories[row[PARENT]] + b"/" + self.builder.names[node]
        return _HostFile(path, (row[SIZE], row[MTIME], row[MTIME_NS]))


def _false_size(path: bytes, size: int) -> SourceError:
    return SourceError(path, f"its filesystem reports {size} bytes, and it has more or fewer", hint="copy it elsewhere first")


def _unreadable(path: bytes, error: OSError) -> SourceError:
    return SourceError(path, f"reading: {error.strerror}", error=error)


def changed(path: bytes) -> ContentChangedError:
    return ContentChangedError(
        path,
        "changed while it was read, twice",
    )


Fingerprint = tuple[int, int, int]
"""Size, and whole seconds and nanoseconds of the modification time."""


def open_host_file(path: bytes) -> int:
    """Open a regular file for reading. Return its descriptor. Raise SourceError."""
    try:
        return os.open(path, hostio.READ_REGULAR)
    except FileNotFoundError as error:
        raise SourceError(path, "was removed while the image was made", hint="run again", error=error) from error
    except OSError as error:
        raise SourceError(path, f"cannot be opened: {error.strerror}", error=error) from error


def _fingerprint(fd: int) -> Fingerprint:
    found: Any = os.fstat(fd)
    return found.st_size, found[8], found.st_mtime_ns % 1_000_000_000


def _read_exactly(fd: int, view: memoryview) -> int:
    """Fill ``view``. Return the bytes read: fewer than its length at the end of the file, one more if it is longer."""
    done = 0
    while done <= len(view):
        more = _read_into(fd, view[done:])
        if not more:
            break
        done += more
    return done


if hasattr(os, "readv"):

    def _read_into(fd: int, view: memoryview) -> int:
        """Return the bytes read; one more than ``view`` has if there are more."""
        return os.readv(fd, [view, bytearray(1)])

else:  # pragma: no cover - hosts without readv

    def _read_into(fd: int, view: memoryview) -> int:
        data = os.read(fd, len(view) + 1)
        view[: len(data)] = data[: len(view)]
        return len(data)


class _HostFile:
    """Large file, open while it is copied."""

    def __init__(self, path: bytes, planned: Fingerprint) -> None:
        self.path = path
        self.fd: int | None = open_host_file(path)
        self._planned = planned[0]
        self._seen = planned

    def read_into(self, view: memoryview, offset: int) -> int:
        assert self.fd is not None
        try:
            return hostio.read_into(self.fd, offset, view)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def changed(self) -> bool:
        """Return True if the file changed since the last call, or, for the first, since the scan."""
        assert self.fd is not None
        now = _fingerprint(self.fd)
        before, self._seen = self._seen, now
        if now != before or now[0] != self._planned:
            return True
        if hostio.true_size(self.fd) is None:
            raise _false_size(self.path, self._planned)
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
