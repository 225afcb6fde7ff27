"""Block devices: bounded windows of bytes, read and written at offsets, never in part."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol, cast, runtime_checkable

from .. import hostio
from ..errors import DeviceError

__all__ = [
    "BlockDevice",
    "FileDevice",
    "MemoryDevice",
    "PathOrFile",
    "PunchableDevice",
    "ResizableDevice",
    "data_ranges",
    "open_device",
]

PathOrFile = str | bytes | os.PathLike[str] | os.PathLike[bytes] | IO[bytes]
"""Path, or binary file object opened in a suitable mode, as public functions take it."""

ZERO_CHUNK = 1 << 20
PAGE_BYTES = 4096
"""Unit in which hosts free the space of a file; a smaller hole would only be written with zeros."""


@runtime_checkable
class BlockDevice(Protocol):
    """Window of ``size`` bytes; offsets count from its start. Reads and writes are complete or raise."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes at ``offset``. Raise DeviceError if there are fewer."""
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at ``offset``. Raise DeviceError if it does not fit or the device fails."""
        ...

    def make_zero(self, offset: int, size: int) -> None:
        """Make the range read as zeros, without writing parts that are known to do so already."""
        ...

    def sync(self) -> None:
        """Flush all writes to stable storage."""
        ...


@runtime_checkable
class PunchableDevice(BlockDevice, Protocol):
    """Device that can give the space of a range back to whatever holds it."""

    def punch(self, offset: int, size: int) -> int:
        """Free the space of the range, in whole pages of the host; what is freed reads as zero, the rest is unchanged.

        Return the bytes freed, without those that were free before. Raise DeviceError if that is not possible.
        """
        ...


@runtime_checkable
class ResizableDevice(BlockDevice, Protocol):
    """Device whose size can be changed."""

    def set_size(self, size: int) -> None:
        """Make the device ``size`` bytes long. What is added reads as zero, unless the window grows over existing bytes of
        whatever holds it; what lies behind the new end is lost. Raise DeviceError.
        """
        ...


def data_ranges(device: BlockDevice, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) of the parts of a range that hold data, ascending; gaps read as zero.

    Yields the whole range if ``device`` does not know its holes.
    """
    found = getattr(device, "data_ranges", None)
    if found is None:
        yield offset, size
    else:
        yield from found(offset, size)


def _checked(offset: int, size: int, limit: int, what: str) -> None:
    if offset < 0 or size < 0 or offset + size > limit:
        raise DeviceError(f"{what} of {size} bytes at byte {offset} leaves the {limit} bytes of the image")


class MemoryDevice:
    """Device in memory, for tests and for small images without a file."""

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

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, size) of the range, which holds data as a whole."""
        _checked(offset, size, self.size, "looking for data")
        if size:
            yield offset, size

    def punch(self, offset: int, size: int) -> int:
        self.make_zero(offset, size)
        return size

    def set_size(self, size: int) -> None:
        if size < 0:
            raise DeviceError(f"a device of {size} bytes")
        if size < self.size:
            del self.data[size:]
        else:
            self.data.extend(bytes(size - self.size))

    def sync(self) -> None:
        pass


class FileDevice:
    """Window ``[offset, offset + size)`` of an open file descriptor, which the caller closes.

    ``size`` None: up to the end of the file. Bytes from ``zero_from`` (an offset in the window) on are known to read as zero
    until they are written: the part by which the file was extended. ``set_size`` extends the file where the window needs it,
    and cuts it if the window ended with it.
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
            # Another program cut the file; what it writes behind the new end, such as a resize that goes on, may lie beyond.
            end = min(self.offset + offset + len(data), os.lseek(self.fd, 0, os.SEEK_END))
            raise DeviceError(f"the file ends at byte {end}, the image at byte {self.offset + self._size}")
        return data

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, size) of the parts of a range that hold data, ascending; gaps read as zero."""
        _checked(offset, size, self._size, "looking for data")
        for start, length in hostio.data_ranges(self.fd, self.offset + offset, size):
            yield start - self.offset, length

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        _checked(offset, len(data), self._size, "write")
        try:
            hostio.write_at(self.fd, self.offset + offset, data)
        except OSError as error:
            raise self.write_failed(offset, error) from error

    def write_failed(self, offset: int, error: OSError) -> DeviceError:
        return DeviceError(f"writing at byte {self.offset + offset}: {error.strerror}", error=error)

    def start_writeback(self, offset: int, size: int) -> None:
        """Start write-back of the range, so that the final sync has little left to do."""
        hostio.start_writeback(self.fd, self.offset + offset, size)

    def release(self, offset: int, size: int) -> None:
        """Drop clean pages of the range from the page cache and start write-back of dirty ones."""
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

    def set_size(self, size: int) -> None:
        if size < 0:
            raise DeviceError(f"a device of {size} bytes")
        try:
            length = os.lseek(self.fd, 0, os.SEEK_END) - self.offset
            if length < size or (size < self._size and length == self._size):
                os.ftruncate(self.fd, self.offset + size)
        except OSError as error:
            raise DeviceError(f"making the file {self.offset + size} bytes long: {error.strerror}", error=error) from error
        # What lies before the old end of the file may have been written.
        self._zero_from = min(max(0, length), size)
        self._size = size

    def discard(self) -> bool:
        """Make the whole window read as zero without writing it. Return False if the filesystem cannot."""
        if not hostio.is_regular(self.fd):
            return False
        end = os.fstat(self.fd).st_size - self.offset
        if not hostio.punch_hole(self.fd, self.offset, min(self._zero_from, end)):
            return False
        self._zero_from = 0
        return True

    def punch(self, offset: int, size: int) -> int:
        _checked(offset, size, self._size, "punching")
        begin = -(-(self.offset + offset) // PAGE_BYTES) * PAGE_BYTES
        end = (self.offset + offset + size) // PAGE_BYTES * PAGE_BYTES
        if begin >= end:
            return 0
        # Space that was allocated and never written looks like a hole, and is freed too.
        before = hostio.allocated_bytes(os.fstat(self.fd))
        if not hostio.punch_hole(self.fd, begin, end - begin):
            error = OSError(errno.EOPNOTSUPP, "its filesystem cannot free space inside a file")
            raise DeviceError(f"freeing space at byte {begin}: {error.strerror}", error=error)
        return max(0, before - hostio.allocated_bytes(os.fstat(self.fd)))

    def sync(self) -> None:
        try:
            hostio.sync(self.fd)
        except OSError as error:
            raise self.write_failed(0, error) from error


class _ObjectDevice:
    """Binary file object without a file descriptor (a BytesIO, a wrapper), used by seek, read and write."""

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

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, size) of the range, whose holes are not known."""
        _checked(offset, size, self._size, "looking for data")
        if size:
            yield offset, size

    def set_size(self, size: int) -> None:
        length = self.file.seek(0, os.SEEK_END) - self.offset
        if size < self._size and length == self._size:
            self.file.truncate(self.offset + size)
        old, self._size = length, size
        if old < size:  # seeking behind the end is not enough for every file object
            self.make_zero(old, size - old)

    def sync(self) -> None:
        self.file.flush()


@contextmanager
def open_device(
    where: PathOrFile | BlockDevice, *, writable: bool = False, offset: int = 0, size: int | None = None
) -> Iterator[BlockDevice]:
    """Open a window of ``where``. A path is opened and closed here, a file object or device is left open.

    For writing, a missing file is created, and a file is extended to ``offset + size`` bytes; the new part is known to read
    as zero. Raise DeviceError, and OSError from opening.
    """
    if isinstance(where, MemoryDevice | FileDevice | _ObjectDevice):
        yield where
        return
    if isinstance(where, str | bytes | os.PathLike):
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        fd = os.open(where, flags | hostio.OPEN, 0o666)
        try:
            opened = _file_device(fd, writable, offset, size)
            try:
                yield opened
            finally:
                opened.fd = -1  # the number may be another file's soon
        finally:
            os.close(fd)
        return
    if not hasattr(where, "seek"):
        yield where
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
