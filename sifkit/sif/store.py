"""Stores: windows of open files that hold an image, from a base offset to the end of the file.

Offsets are relative to the window. Reads are exact or raise. Nothing is buffered: writes are in the file at once, and on
storage after ``sync``.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from ext3 import hostio

from .errors import StoreError, TruncatedSIFError

__all__ = ["CHUNK_BYTES", "ZEROS", "FileStore", "ObjectStore", "Store", "file_descriptor"]

_HINTS = {errno.ENOSPC: "free some space there", errno.EDQUOT: "free some space, or raise the quota"}
CHUNK_BYTES = 1 << 20
"""Read or written at once, where nothing asks for more or less."""
ZEROS = bytes(CHUNK_BYTES)


class Store(Protocol):
    """Interface of the file that holds an image."""

    @property
    def size(self) -> int:
        """Bytes from the start of the window to the end of the file."""
        ...

    @property
    def fd(self) -> int | None:
        """File descriptor, if there is one; offsets in it are ``base`` higher."""
        ...

    @property
    def base(self) -> int: ...

    def read_some(self, offset: int, size: int) -> bytes:
        """Read at most ``size`` bytes, fewer only at the end."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes. Raises TruncatedSIFError."""
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None: ...

    def copy_from(self, source: int, source_offset: int, offset: int, size: int) -> int:
        """Copy from another file descriptor inside the kernel: bytes copied, 0 where that is not possible."""
        ...

    def set_size(self, size: int) -> None:
        """Truncate the file, or extend it with zeros."""
        ...

    def make_zero(self, offset: int, size: int) -> None:
        """Zero a range, up to the end of the file."""
        ...

    def release(self, offset: int, size: int) -> bool:
        """Punch a hole; returns False, with nothing done, if that is unsupported."""
        ...

    def data_spans(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a range that hold data, as (offset, size); the rest reads as zero."""
        ...

    def sync(self) -> None:
        """Sync what was written to stable storage."""
        ...


class FileStore:
    """Store on a file descriptor, which the caller closes."""

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
        with _store_errors("reading", self._base + offset):
            return hostio.read_at(self._fd, self._base + offset, size)

    def read(self, offset: int, size: int) -> bytes:
        return _exact(self.read_some(offset, size), offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        with _store_errors("writing", self._base + offset):
            hostio.write_at(self._fd, self._base + offset, data)

    def copy_from(self, source: int, source_offset: int, offset: int, size: int) -> int:
        with _store_errors("writing", self._base + offset):
            return hostio.kernel_copy(source, source_offset, self._fd, self._base + offset, size)

    def set_size(self, size: int) -> None:
        with _store_errors("setting the length to", self._base + size):
            os.ftruncate(self._fd, self._base + size)

    def make_zero(self, offset: int, size: int) -> None:
        size = min(size, self.size - offset)
        if size > 0 and not self.release(offset, size):
            _write_zeros(self, offset, size)

    def release(self, offset: int, size: int) -> bool:
        return hostio.punch_hole(self._fd, self._base + offset, size)

    def data_spans(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        with _store_errors("reading", self._base + offset):
            for begin, length in hostio.data_ranges(self._fd, self._base + offset, size):
                yield begin - self._base, length

    def sync(self) -> None:
        with _store_errors("syncing", self._base):
            hostio.sync(self._fd)


class ObjectStore:
    """Store on a seekable binary file object without a file descriptor (BytesIO, wrappers), which the caller closes."""

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
        with _store_errors("reading", self._base + offset):
            self.file.seek(self._base + offset)
            data = bytearray()
            while len(data) < size:
                piece = self.file.read(min(size - len(data), CHUNK_BYTES))
                if not piece:
                    break
                data += piece
            return bytes(data)

    def read(self, offset: int, size: int) -> bytes:
        return _exact(self.read_some(offset, size), offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        with _store_errors("writing", self._base + offset):
            self.file.seek(self._base + offset)
            view = memoryview(data)
            while view:
                done = self.file.write(view)
                if not done:
                    raise OSError(errno.EIO, "the file object wrote nothing")
                view = view[done:]

    def copy_from(self, source: int, source_offset: int, offset: int, size: int) -> int:
        return 0

    def set_size(self, size: int) -> None:
        with _store_errors("setting the length to", self._base + size):
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
        with _store_errors("syncing", self._base):
            self.file.flush()


def file_descriptor(file: IO[bytes]) -> int | None:
    """Return the descriptor with the bytes of a file object; None for objects in memory and those that decode."""
    raw = getattr(file, "raw", file)
    return raw.fileno() if isinstance(raw, io.FileIO) else None


def _exact(data: bytes, offset: int, size: int) -> bytes:
    if len(data) != size:
        raise TruncatedSIFError(f"unexpected end of file at byte {offset + len(data)}, {size - len(data)} bytes are missing")
    return data


def _write_zeros(store: Store, offset: int, size: int) -> None:
    end = offset + size
    for start in range(offset, end, len(ZEROS)):
        store.write(start, memoryview(ZEROS)[: min(len(ZEROS), end - start)])


@contextmanager
def _store_errors(doing: str, offset: int) -> Iterator[None]:
    """Convert OSErrors of the block into StoreError with the offset."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, OverflowError) as error:
        cause = error if isinstance(error, OSError) else OSError(errno.EFBIG, "too large for a file")
        hint = _HINTS.get(cause.errno or 0, "")
        raise StoreError(f"{doing} byte {offset}: {cause.strerror}", error=cause, hint=hint) from error
