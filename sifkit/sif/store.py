"""Where an image's bytes are: a window of an open file, from a base offset to the file's end. Offsets count from its start.

Reads are exact or an error. Nothing is buffered here: what was written is in the file, and on storage after ``sync``.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from ext3 import hostio

from .errors import StoreError, TruncatedError

__all__ = ["CHUNK_BYTES", "ZEROS", "FileStore", "ObjectStore", "Store", "file_descriptor"]

_HINTS = {errno.ENOSPC: "free some space there", errno.EDQUOT: "free some space, or have the quota raised"}
CHUNK_BYTES = 1 << 20
"""Read or written at once, where nothing asks for more or less."""
ZEROS = bytes(CHUNK_BYTES)


class Store(Protocol):
    """What the rest of the package asks of a file."""

    @property
    def size(self) -> int:
        """Bytes from the window's start to the file's end."""
        ...

    @property
    def fd(self) -> int | None:
        """The file descriptor behind it, where there is one: positions in it are ``base`` higher."""
        ...

    @property
    def base(self) -> int: ...

    def read_some(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes, fewer only at the end."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes; TruncatedError where the file ends before."""
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None: ...

    def copy_from(self, source: int, source_offset: int, offset: int, size: int) -> int:
        """Copy from another file descriptor inside the kernel: bytes copied, 0 where that is not possible."""
        ...

    def set_size(self, size: int) -> None:
        """Cut the file, or extend it with zeros."""
        ...

    def make_zero(self, offset: int, size: int) -> None:
        """The range reads as zeros afterwards, as far as the file reaches."""
        ...

    def release(self, offset: int, size: int) -> bool:
        """Give the space of a range back, which then reads as zero; False (and nothing done) where that is not possible."""
        ...

    def data_spans(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """(offset, size) of what holds data in a range; the rest of it reads as zero."""
        ...

    def sync(self) -> None:
        """What was written is on stable storage when this returns."""
        ...


class FileStore:
    """The window of an open file descriptor, which stays the caller's."""

    def __init__(self, fd: int, base: int = 0) -> None:
        if base < 0:
            raise StoreError(f"an image cannot begin at byte {base}")
        self._fd = fd
        self._base = base

    @property
    def fd(self) -> int | None:
        return self._fd

    @property
    def base(self) -> int:
        return self._base

    @property
    def size(self) -> int:
        return max(0, os.lseek(self._fd, 0, os.SEEK_END) - self._base)

    def read_some(self, offset: int, size: int) -> bytes:
        with _told("reading", self._base + offset):
            return hostio.read_at(self._fd, self._base + offset, size)

    def read(self, offset: int, size: int) -> bytes:
        return _whole(self.read_some(offset, size), offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        with _told("writing", self._base + offset):
            hostio.write_at(self._fd, self._base + offset, data)

    def copy_from(self, source: int, source_offset: int, offset: int, size: int) -> int:
        with _told("writing", self._base + offset):
            return hostio.kernel_copy(source, source_offset, self._fd, self._base + offset, size)

    def set_size(self, size: int) -> None:
        with _told("setting the length to", self._base + size):
            os.ftruncate(self._fd, self._base + size)

    def make_zero(self, offset: int, size: int) -> None:
        size = min(size, self.size - offset)
        if size > 0 and not self.release(offset, size):
            _write_zeros(self, offset, size)

    def release(self, offset: int, size: int) -> bool:
        return hostio.punch_hole(self._fd, self._base + offset, size)

    def data_spans(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        with _told("reading", self._base + offset):
            for begin, length in hostio.data_ranges(self._fd, self._base + offset, size):
                yield begin - self._base, length

    def sync(self) -> None:
        with _told("syncing", self._base):
            hostio.sync(self._fd)


class ObjectStore:
    """A seekable binary file object without a file descriptor (a BytesIO, a wrapper), which stays the caller's."""

    def __init__(self, file: IO[bytes], base: int = 0) -> None:
        if base < 0:
            raise StoreError(f"an image cannot begin at byte {base}")
        self.file = file
        self._base = base

    @property
    def fd(self) -> int | None:
        return None

    @property
    def base(self) -> int:
        return self._base

    @property
    def size(self) -> int:
        return max(0, self.file.seek(0, os.SEEK_END) - self._base)

    def read_some(self, offset: int, size: int) -> bytes:
        with _told("reading", self._base + offset):
            self.file.seek(self._base + offset)
            data = bytearray()
            while len(data) < size:
                piece = self.file.read(min(size - len(data), CHUNK_BYTES))
                if not piece:
                    break
                data += piece
            return bytes(data)

    def read(self, offset: int, size: int) -> bytes:
        return _whole(self.read_some(offset, size), offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        with _told("writing", self._base + offset):
            self.file.seek(self._base + offset)
            view = memoryview(data)
            while view:
                done = self.file.write(view)
                if not done:
                    raise OSError(errno.EIO, "the file object took nothing")
                view = view[done:]

    def copy_from(self, source: int, source_offset: int, offset: int, size: int) -> int:
        return 0

    def set_size(self, size: int) -> None:
        with _told("setting the length to", self._base + size):
            now = self.size
            if size < now:
                self.file.truncate(self._base + size)
            elif size > now:
                _write_zeros(self, now, size - now)

    def make_zero(self, offset: int, size: int) -> None:
        _write_zeros(self, offset, min(size, self.size - offset))

    def release(self, offset: int, size: int) -> bool:
        return False

    def data_spans(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        if size > 0:
            yield offset, size

    def sync(self) -> None:
        with _told("syncing", self._base):
            self.file.flush()


def file_descriptor(file: IO[bytes]) -> int | None:
    """The descriptor whose bytes are the object's own; None for objects in memory and for those that decode something."""
    raw = getattr(file, "raw", file)
    return raw.fileno() if isinstance(raw, io.FileIO) else None


def _whole(data: bytes, offset: int, size: int) -> bytes:
    if len(data) != size:
        raise TruncatedError(f"the file ends at byte {offset + len(data)}, {size - len(data)} bytes before it should")
    return data


def _write_zeros(store: Store, offset: int, size: int) -> None:
    end = offset + size
    for start in range(offset, end, len(ZEROS)):
        store.write(start, memoryview(ZEROS)[: min(len(ZEROS), end - start)])


@contextmanager
def _told(doing: str, offset: int) -> Iterator[None]:
    """Turn what the system says into a StoreError that says where."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, OverflowError) as error:
        cause = error if isinstance(error, OSError) else OSError(errno.EFBIG, "too large for a file")
        hint = _HINTS.get(cause.errno or 0, "")
        raise StoreError(f"{doing} byte {offset}: {cause.strerror}", error=cause, hint=hint) from error
