"""Open files at offsets: exact reads and writes, holes, copies inside the kernel. What a system lacks has a plain fallback.

All functions take a file descriptor that stays the caller's and raise OSError as the system does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from typing import Literal

__all__ = [
    "CHUNK_BYTES",
    "access_of",
    "data_spans",
    "is_regular",
    "kernel_copy",
    "punch",
    "read_some",
    "start_writeback",
    "write_all",
]

CHUNK_BYTES = 1 << 20
KERNEL_COPY_BYTES = 64 << 20
"""Asked of one call: large enough to cost nothing, small enough for Ctrl-C and progress."""
MOST_SPANS = 1 << 20
"""More pieces of data than this in one object are taken as one: the holes between them are not worth the time."""

_NO_KERNEL_COPY = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
    errno.EISDIR,
    errno.EIO,
}
"""Then the plain way is tried; EIO too, as some network filesystems say it where they mean "not here"."""
_FALLOC_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02


def access_of(fd: int) -> Literal["any", "append", "some"]:
    """How a file is open: for reading and writing anywhere; for writing at its end only; or for reading or writing only."""
    try:
        import fcntl
    except ImportError:
        return "any"  # not to be asked for here; the first write will tell
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_APPEND:
        return "append"
    return "any" if flags & os.O_ACCMODE == os.O_RDWR else "some"


def is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def read_some(fd: int, offset: int, size: int) -> bytes:
    """At most ``size`` bytes at ``offset``; fewer only at the end of the file."""
    pieces = []
    while size > 0:
        if hasattr(os, "pread"):
            piece = os.pread(fd, min(size, 1 << 30), offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            piece = os.read(fd, min(size, 1 << 30))
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write_all(fd: int, offset: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        if hasattr(os, "pwrite"):
            done = os.pwrite(fd, view, offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            done = os.write(fd, view)
        offset += done
        view = view[done:]


def data_spans(fd: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, size) of the pieces of a range that hold data; what lies between them reads as zero.

    One piece for all of it where the system cannot tell. The file's position is put back.
    """
    end = offset + size
    if not hasattr(os, "SEEK_DATA") or size <= 0:
        if size > 0:
            yield offset, size
        return
    for _ in range(MOST_SPANS):
        if offset >= end:
            return
        span = _next_span(fd, offset, end)
        if span is None:
            return
        yield span
        offset = span[0] + span[1]
    if offset < end:
        yield offset, end - offset


def _next_span(fd: int, offset: int, end: int) -> tuple[int, int] | None:
    position = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        begin = os.lseek(fd, offset, os.SEEK_DATA)
        if begin >= end:
            return None
        stop = min(end, os.lseek(fd, begin, os.SEEK_HOLE))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None  # no data behind this place
        begin, stop = offset, end
    finally:
        os.lseek(fd, position, os.SEEK_SET)
    return begin, max(stop, begin + 1) - begin


def punch(fd: int, offset: int, size: int) -> bool:
    """Make the range read as zero and give its space back, within the file; False where that cannot be done."""
    if sys.platform != "linux" or size <= 0:
        return size <= 0
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError):
        return False
    if ctypes.sizeof(ctypes.c_long) < 8:  # a 32-bit libc takes 32-bit offsets here
        return False
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(fallocate(fd, _FALLOC_KEEP_SIZE_PUNCH_HOLE, offset, size) == 0)


def kernel_copy(source: int, source_offset: int, target: int, offset: int, size: int) -> int | None:
    """Copy up to ``size`` bytes without passing them through this process; the count, less than asked for only in parts.

    Filesystems that can, share the blocks. None: not between these two files; 0: the source ends here.
    """
    if not hasattr(os, "copy_file_range"):
        return None
    try:
        return os.copy_file_range(source, target, min(size, KERNEL_COPY_BYTES), source_offset, offset)
    except OSError as error:
        if error.errno in _NO_KERNEL_COPY:
            return None
        raise


def start_writeback(fd: int, offset: int, size: int) -> None:
    """Have the kernel begin to write the range to storage now, so that the final sync finds little left to do."""
    if hasattr(os, "posix_fadvise"):
        # DONTNEED starts asynchronous write-back of dirty pages; only pages already clean leave the cache.
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
