"""Where an image lives: a bounded window of bytes that is read and written at offsets, exactly or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol, cast, runtime_checkable

from .. import hostio
from ..errors import DeviceError

__all__ = ["BlockDevice", "FileDevice", "MemoryDevice", "PathOrFile", "open_device"]

PathOrFile = str | bytes | os.PathLike[str] | os.PathLike[bytes] | IO[bytes]
"""What public functions take: a path, or a binary file object that is open for what is to be done."""

ZERO_CHUNK = 1 << 20


@runtime_checkable
class BlockDevice(Protocol):
    """``size`` bytes; offsets count from the window's start. Nothing is ever read or written in part."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``offset``; DeviceError if they are not all there."""
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """All of ``data`` at ``offset``; DeviceError if it does not fit or the device fails."""
        ...

    def make_zero(self, offset: int, size: int) -> None:
        """The range reads as zeros afterwards; nothing is written where that is known already."""
        ...

    def sync(self) -> None:
        """What was written is on stable storage when this returns."""
        ...


def _checked(offset: int, size: int, limit: int, what: str) -> None:
    if offset < 0 or size < 0 or offset + size > limit:
        raise DeviceError(f"{what} of {size} bytes at byte {offset} leaves the {limit} bytes of the image")


class MemoryDevice:
    """A device in memory; for tests and for building small images without a file."""

    def __init__(self, data: int | bytes | bytearray) -> None:
        self.data = bytearray(data)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        _checked(offset, size, self.size, "read")
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        _checked(offset, len(data), self.size, "write")
        self.data[offset : offset + len(data)] = data

    def make_zero(self, offset: int, size: int) -> None:
        _checked(offset, size, self.size, "zeroing")
        self.data[offset : offset + size] = bytes(size)

    def sync(self) -> None:
        pass


class FileDevice:
    """The window ``[offset, offset + size)`` of an open file descriptor, which stays the caller's.

    ``size`` None takes everything behind ``offset``. Bytes at and behind ``zero_from`` (an offset in the window) are known
    to read as zero as long as nothing was written there: the part of a file that did not exist before.
    """

    def __init__(self, fd: int, offset: int = 0, size: int | None = None, *, zero_from: int | None = None) -> None:
        if offset < 0:
            raise DeviceError(f"the image cannot begin at byte {offset}")
        if size is None:
            size = max(0, os.lseek(fd, 0, os.SEEK_END) - offset)
        self.fd = fd
        self.offset = offset
        self._size = size
        self._zero_from = size if zero_from is None else min(size, max(0, zero_from))

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        _checked(offset, size, self._size, "read")
        try:
            data = hostio.read_at(self.fd, self.offset + offset, size)
        except OSError as error:
            raise DeviceError(f"reading at byte {self.offset + offset}: {error.strerror}", error=error) from error
        if len(data) < size:
            end, missing = self.offset + offset + len(data), size - len(data)
            raise DeviceError(f"the file ends at byte {end}, {missing} bytes before the image does")
        return data

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        _checked(offset, len(data), self._size, "write")
        try:
            hostio.write_at(self.fd, self.offset + offset, data)
        except OSError as error:
            raise self.write_failed(offset, error) from error

    def write_failed(self, offset: int, error: OSError) -> DeviceError:
        return DeviceError(f"writing at byte {self.offset + offset}: {error.strerror}", error=error)

    def start_writeback(self, offset: int, size: int) -> None:
        """Have the kernel begin to write the range to storage now, so that the final sync finds little left to do."""
        hostio.start_writeback(self.fd, self.offset + offset, size)

    def release(self, offset: int, size: int) -> None:
        """Let what is on storage of the range leave the page cache; what is not begins to be written."""
        hostio.drop_cache(self.fd, self.offset + offset, size)

    def make_zero(self, offset: int, size: int) -> None:
        _checked(offset, size, self._size, "zeroing")
        size = min(size, self._zero_from - offset)
        if size <= 0:
            return
        if not hostio.punch_hole(self.fd, self.offset + offset, size):
            zeros = bytes(min(size, ZERO_CHUNK))
            for start in range(offset, offset + size, ZERO_CHUNK):
                self.write(start, memoryview(zeros)[: min(ZERO_CHUNK, offset + size - start)])

    def discard(self) -> bool:
        """Try to make the whole window read as zero without writing it; False where the filesystem cannot."""
        if not hostio.is_regular(self.fd):
            return False
        end = os.fstat(self.fd).st_size - self.offset
        if not hostio.punch_hole(self.fd, self.offset, min(self._zero_from, end)):
            return False
        self._zero_from = 0
        return True

    def sync(self) -> None:
        try:
            hostio.sync(self.fd)
        except OSError as error:
            raise self.write_failed(0, error) from error


class _ObjectDevice:
    """A binary file object without a file descriptor (a BytesIO, a wrapper), through seek, read and write."""

    def __init__(self, file: IO[bytes], offset: int, size: int | None) -> None:
        self.file = file
        self.offset = offset
        self._size = max(0, file.seek(0, os.SEEK_END) - offset) if size is None else size

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        _checked(offset, size, self._size, "read")
        self.file.seek(self.offset + offset)
        data = bytearray()
        while len(data) < size:
            piece = self.file.read(size - len(data))
            if not piece:
                raise DeviceError(f"the file ends at byte {self.offset + offset + len(data)}, before the image does")
            data += piece
        return bytes(data)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        _checked(offset, len(data), self._size, "write")
        self.file.seek(self.offset + offset)
        view = memoryview(data)
        while view:
            done = self.file.write(view)
            if not done:
                raise DeviceError(f"writing at byte {self.offset + offset}: the file object took nothing")
            view = view[done:]

    def make_zero(self, offset: int, size: int) -> None:
        _checked(offset, size, self._size, "zeroing")
        for start in range(offset, offset + size, ZERO_CHUNK):
            self.write(start, bytes(min(ZERO_CHUNK, offset + size - start)))

    def sync(self) -> None:
        self.file.flush()


@contextmanager
def open_device(
    where: PathOrFile | BlockDevice, *, writable: bool = False, offset: int = 0, size: int | None = None
) -> Iterator[BlockDevice]:
    """The window of ``where``: a path is opened here and closed at the end, a file object or device stays the caller's.

    For writing, a path is created where missing and made at least ``offset + size`` bytes long; the part of a file that
    did not exist before is known to read as zero. Raises DeviceError, and OSError from opening.
    """
    if isinstance(where, MemoryDevice | FileDevice | _ObjectDevice):
        yield where
        return
    if isinstance(where, str | bytes | os.PathLike):
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        fd = os.open(where, flags | hostio.OPEN, 0o666)
        try:
            yield _file_device(fd, writable, offset, size)
        finally:
            os.close(fd)
        return
    if not hasattr(where, "seek"):
        yield where  # somebody's own
        return
    file = cast(IO[bytes], where)
    try:
        fd = file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        yield _ObjectDevice(file, offset, size)
        return
    if writable:
        file.flush()
    yield _file_device(fd, writable, offset, size)


def _file_device(fd: int, writable: bool, offset: int, size: int | None) -> FileDevice:
    length = os.lseek(fd, 0, os.SEEK_END)
    if not writable or size is None or not hostio.is_regular(fd):
        return FileDevice(fd, offset, size)
    if length < offset + size:
        try:
            os.ftruncate(fd, offset + size)
        except OSError as error:
            raise DeviceError(f"making the file {offset + size} bytes long: {error.strerror}", error=error) from error
    return FileDevice(fd, offset, size, zero_from=max(0, length - offset))
