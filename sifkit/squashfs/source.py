"""Sources of an image's bytes: bounded windows that are read at an offset, from any thread."""

from __future__ import annotations

import errno
import os
import threading
from typing import IO, Protocol

from ext3 import hostio

from .errors import TruncatedSquashfsError

__all__ = ["ByteSource", "FileWindow", "SeekableWindow"]


class ByteSource(Protocol):
    """Window of ``size`` bytes; offsets count from its start. Thread-safe."""

    @property
    def size(self) -> int:
        """Bytes of the window."""
        ...

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return exactly ``size`` bytes. Raises TruncatedSquashfsError if there are fewer, and OSError."""
        ...


class FileWindow:
    """Bytes from ``offset`` of an open file descriptor, which the caller closes. ``size`` None: up to the end of the file."""

    def __init__(self, fd: int, offset: int = 0, size: int | None = None) -> None:
        self.fd = fd
        self.offset = _checked_offset(offset)
        self._size = _window_size(os.lseek(fd, 0, os.SEEK_END), offset, size)

    @property
    def size(self) -> int:
        """Bytes of the window, at most those that the file had when it was opened."""
        return self._size

    def forget_descriptor(self) -> None:
        """Refuse reads from now on, with EBADF: the descriptor is closed, and its number may be another file's soon."""
        self.fd = -1

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return exactly ``size`` bytes. Raises TruncatedSquashfsError if there are fewer, and OSError."""
        _check_range(offset, size, self._size)
        data = hostio.read_at(self.fd, self.offset + offset, size)
        if len(data) < size:  # it was cut while it was open
            raise TruncatedSquashfsError("image", offset=offset, size=size, available_bytes=offset + len(data))
        return data


class SeekableWindow:
    """Bytes from ``offset`` of a binary file object, which the caller closes. Not for use in forked processes: they share its
    position."""

    def __init__(self, file: IO[bytes], offset: int = 0, size: int | None = None) -> None:
        self._file = file
        self._offset = _checked_offset(offset)
        self._lock = threading.Lock()
        self._size = _window_size(file.seek(0, os.SEEK_END), offset, size)

    @property
    def size(self) -> int:
        """Bytes of the window, at most those that the file had when it was opened."""
        return self._size

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return exactly ``size`` bytes. Raises TruncatedSquashfsError if there are fewer, and OSError."""
        _check_range(offset, size, self._size)
        pieces: list[bytes] = []
        left = size
        with self._lock:
            self._file.seek(self._offset + offset)
            while left > 0:
                piece = self._file.read(left)
                if not piece:
                    raise TruncatedSquashfsError("image", offset=offset, size=size, available_bytes=offset + size - left)
                pieces.append(piece)
                left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _checked_offset(offset: int) -> int:
    if offset < 0:
        raise OSError(errno.EINVAL, f"an image cannot begin at byte {offset}")
    return offset


def _window_size(end: int, offset: int, size: int | None) -> int:
    """Return the size of a window in a file that ends at ``end``: smaller than asked for if the file ends in it."""
    available = max(0, end - offset)
    return available if size is None else max(0, min(size, available))


def _check_range(offset: int, size: int, limit: int) -> None:
    if offset < 0 or size < 0 or offset + size > limit:
        raise TruncatedSquashfsError("image", offset=offset, size=size, available_bytes=limit)
