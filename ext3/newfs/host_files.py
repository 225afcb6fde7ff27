"""Data of files on the host, read when their blocks in the image are known, and checked for changes since the scan."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Self

from .. import hostio
from ..errors import ContentChangedError, SourceError
from .builder import TreeBuilder
from .content import ContentFile
from .node import FIELDS

__all__ = ["DirectoryContent", "open_host_file"]

PARENT, SIZE, MTIME, MTIME_NS = map(list(FIELDS).index, ("parent", "size", "mtime", "mtime_ns"))


@dataclass(slots=True)
class DirectoryContent:
    """Data of scanned regular files, opened one at a time by path."""

    builder: TreeBuilder
    allow_changed: bool = False
    directories: dict[int, bytes] = field(default_factory=dict)

    def read_whole(self, node: int, view: memoryview) -> None:
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
            if done == len(view) == before[0] and _fingerprint(fd) == before:
                return
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            os.close(fd)
        if not self.allow_changed:
            raise changed(path)
        view[done:] = bytes(len(view) - done)

    def open(self, node: int) -> ContentFile:
        row = self.builder.row(node)
        path = self.directories[row[PARENT]] + b"/" + self.builder.names[node]
        return _HostFile(path, (row[SIZE], row[MTIME], row[MTIME_NS]))


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
    """Fill ``view``. Return the bytes read, fewer than its length only at the end of the file."""
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
        return now != before or now[0] != self._planned

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
