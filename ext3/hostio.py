"""Input and output on files of the host: exact reads and writes, copies in the kernel, holes, synchronisation.

Functions do not close the descriptors they take, and raise OSError.

Calls that only save work (copy_file_range, FICLONE, SEEK_DATA, fallocate and the like) may be missing or fail for any
reason: their errors are ignored and plain reads and writes follow, which meet a real error again, on the file that has it.
Only a full target (``FULL``) is reported at once. Known failures and their sources:

* ENOSYS: an old kernel. EPERM: seccomp filters that do not know the call, and sealed files.
* EXDEV: two filesystems; since Linux 5.19 few copy across, and then only to one of their own type.
* EOPNOTSUPP, ENOTSUP: the filesystem lacks the call; ENOTTY: the ioctl. ENODEV: fallocate on other than regular files.
* EINVAL: copies on eCryptfs and GPFS; ranges not of whole blocks; filesystems without SEEK_DATA; posix_fallocate on ZFS.
* EIO, ENOENT: copies unsupported by CIFS. EACCES: fuse-overlayfs, which opens the file again. EAGAIN: some releases of ZFS.
* EBADF: FICLONE without reflinks, and emulations of posix_fallocate, which have to read. ETXTBSY: swap files.
* 0 bytes copied before the end: files in proc and sysfs, and on some virtual filesystems up to Linux 5.18.

Sources: the man pages of these calls, and the workarounds in Go, Rust, the JDK and GNU coreutils.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FULL",
    "HostPath",
    "NO_FOLLOW",
    "NO_WAIT",
    "NO_XATTRS",
    "OPEN",
    "READ_REGULAR",
    "allocate",
    "allocated_bytes",
    "clone_file",
    "copy_bytes",
    "copy_range",
    "data_ranges",
    "drop_cache",
    "is_append_only",
    "is_read_write",
    "is_regular",
    "kernel_copy",
    "punch_hole",
    "read_at",
    "read_into",
    "same_file",
    "send_range",
    "sequential_reader",
    "signals_deferred",
    "start_writeback",
    "sync",
    "sync_directory",
    "true_size",
    "write_all",
    "write_at",
]

HostPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

OPEN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags of every open: closed on exec, and binary mode on Windows."""
NO_WAIT = OPEN | getattr(os, "O_NONBLOCK", 0)
"""Flags for a name that may be a FIFO or a device: opening it does not block."""
NO_FOLLOW = OPEN | getattr(os, "O_NOFOLLOW", 0)
"""Flags for a name that must not be a symbolic link."""
READ_REGULAR = os.O_RDONLY | NO_WAIT | NO_FOLLOW
"""Flags to read a regular file found in a listing, which may have been replaced since."""

FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Errors of a full target, which any other call would meet, too."""
NO_XATTRS = frozenset((errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))
"""Errors of a filesystem without extended attributes, or without those of a namespace."""

CALL_BYTES = 1 << 30
"""Most bytes of one read or write: macOS refuses 2 GiB."""
COPY_BYTES = 16 << 20
"""Most bytes of one copying call: large enough to be fast, small enough for progress and Ctrl-C."""
BUFFER_BYTES = 256 << 10
"""Size of the copy buffer; larger writes are slower on virtual machines, see ``ext3.device.writeback``."""
ZERO_BYTES = 1 << 20
MAX_RANGES = 1 << 20
"""Most data ranges reported per file; the rest is one range, as its holes are not worth the time."""

FICLONE = 0x40049409
"""ioctl of Linux (linux/fs.h): share all blocks of another file."""
FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
SYNC_FILE_RANGE_WRITE = 2

Data = bytes | bytearray | memoryview


# -- kinds of descriptors ------------------------------------------------------------------------------------------


def is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def is_append_only(fd: int) -> bool:
    """Return True if all writes append to the file (O_APPEND), False also if that is unknown."""
    return bool(fcntl and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)


def is_read_write(fd: int) -> bool:
    """Return True if a file is open for reading and for writing anywhere, also if that is unknown until the first write."""
    return not fcntl or fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_APPEND) == os.O_RDWR


def true_size(fd: int) -> int | None:
    """Return the size of a regular file; None if it does not end there, or is another kind: only reading finds its end.

    The files of proc report 0, those of sysfs 4096 bytes, whatever they hold, and some FUSE filesystems do not know either.
    """
    found = os.fstat(fd)
    size = found.st_size
    if not stat.S_ISREG(found.st_mode):
        return None
    for _ in range(2 if hasattr(os, "pread") else 0):
        try:
            ends = len(os.pread(fd, 2, max(0, size - 1))) == min(size, 1)
        except OSError:  # reading from the start will tell what it is
            return None
        before, size = size, os.fstat(fd).st_size
        if ends:
            return before
        if before == size:
            return None
    return size  # it is being written


def same_file(one: HostPath | int, other: HostPath | int) -> bool:
    """Return True if two paths or descriptors are the same file, False also if one does not exist."""
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except OSError:
        return False


# -- exact reads and writes ----------------------------------------------------------------------------------------


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Return ``size`` bytes at ``offset``, fewer only at the end of the file."""
    pieces = []
    while size > 0:
        wanted = min(size, CALL_BYTES)
        piece = os.pread(fd, wanted, offset) if hasattr(os, "pread") else _seek_and_read(fd, wanted, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def sequential_reader(fd: int, offset: int = 0) -> Callable[[int], bytes]:
    """Return a function that reads on from ``offset``, or from where a pipe stands: at most so many bytes, none only at the
    end. No position of a file is moved."""

    def read_on(size: int) -> bytes:
        nonlocal offset
        piece = os.pread(fd, min(size, CALL_BYTES), offset)
        offset += len(piece)
        return piece

    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return lambda size: os.read(fd, min(size, CALL_BYTES))
    return read_on if hasattr(os, "pread") else lambda size: os.read(fd, min(size, CALL_BYTES))


def read_into(fd: int, offset: int, view: memoryview) -> int:
    """Fill ``view`` with the bytes at ``offset``. Return their number, less than its length only at the end of the file."""
    done = 0
    while done < len(view):
        piece = view[done : done + CALL_BYTES]
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [piece], offset + done)
        else:
            data = read_at(fd, offset + done, len(piece))
            count = len(data)
            piece[:count] = data
        if not count:
            break
        done += count
    return done


def write_at(fd: int, offset: int, data: Data) -> None:
    """Write all of ``data`` at ``offset``."""
    view = memoryview(data)
    while view:
        piece = view[:CALL_BYTES]
        done = os.pwrite(fd, piece, offset) if hasattr(os, "pwrite") else _seek_and_write(fd, piece, offset)
        if not done:
            raise OSError(errno.EIO, "nothing was written")  # prevents an endless loop
        offset += done
        view = view[done:]


def write_all(fd: int, data: Data) -> None:
    """Write all of ``data`` at the current position; the descriptor may be a pipe."""
    view = memoryview(data)
    while view:
        done = os.write(fd, view[:CALL_BYTES])
        if not done:
            raise OSError(errno.EIO, "nothing was written")
        view = view[done:]


def _seek_and_read(fd: int, size: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)  # Windows: not safe for several threads
    return os.read(fd, size)


def _seek_and_write(fd: int, data: memoryview, offset: int) -> int:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


# -- copies --------------------------------------------------------------------------------------------------------


def clone_file(source: int, target: int) -> bool:
    """Make ``target`` share all blocks of ``source`` (a reflink). Return False if that is not possible."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in FULL:
            raise
        return False
    return True


def copy_range(source: int, source_offset: int, target: int, offset: int, size: int) -> int:
    """Copy with copy_file_range(2). Return the bytes copied, at most ``COPY_BYTES``; 0 if it fails, or the source ends.

    Filesystems with reflinks share the blocks, network filesystems copy on their server. No file position is moved.
    """
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(source, target, min(size, COPY_BYTES), source_offset, offset)
    except OSError as error:
        if error.errno in FULL:
            raise
        return 0


def send_range(source: int, source_offset: int, target: int, offset: int, size: int) -> int:
    """Copy with sendfile(2). Return the bytes copied, at most ``COPY_BYTES``; 0 if it fails, or the source ends.

    Copies between filesystems in three quarters of the time of reads and writes. Moves the position of ``target``: not for
    descriptors that several threads or processes write to.
    """
    if sys.platform != "linux":  # elsewhere it writes to sockets only
        return 0
    try:
        os.lseek(target, offset, os.SEEK_SET)
        return os.sendfile(target, source, source_offset, min(size, COPY_BYTES))
    except OSError as error:
        if error.errno in FULL:
            raise
        return 0


def kernel_copy(source: int, source_offset: int, target: int, offset: int, size: int) -> int:
    """Copy in the kernel. Return the bytes copied, at most ``COPY_BYTES``; 0 if that is not possible, or the source ends: try
    a plain read. Moves the position of ``target``, as ``send_range`` does."""
    return copy_range(source, source_offset, target, offset, size) or send_range(source, source_offset, target, offset, size)


def copy_bytes(
    source: int, source_offset: int, target: int, offset: int, size: int, advance: Callable[[int], None] | None = None
) -> int:
    """Copy ``size`` bytes by the fastest way that works. Return the bytes copied, fewer only if the source ends.

    ``advance`` is called with the bytes copied since its last call. Moves the position of ``target``. Holes are copied as
    zeros: see ``data_ranges``.
    """
    done = 0
    buffer: memoryview | None = None
    while done < size:
        count = 0
        if buffer is None:
            count = kernel_copy(source, source_offset + done, target, offset + done, size - done)
        if not count:
            if buffer is None:
                buffer = memoryview(bytearray(min(BUFFER_BYTES, size - done)))
            count = read_into(source, source_offset + done, buffer[: size - done])
            write_at(target, offset + done, buffer[:count])
        if not count:
            break
        done += count
        if advance:
            advance(count)
    return done


# -- holes and space -----------------------------------------------------------------------------------------------


def data_ranges(fd: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) of the parts of a range that hold data, ascending; gaps read as zero.

    Yields all of it if the system cannot find holes: reading a hole costs time, data taken for a hole would be lost. The
    file's position is restored.
    """
    end = offset + size
    for _ in range(MAX_RANGES if hasattr(os, "SEEK_DATA") else 0):
        if offset >= end:
            return
        found = _next_data(fd, offset, end)
        if found is None:
            return
        yield found
        offset = found[0] + found[1]
    if offset < end:
        yield offset, end - offset


def _next_data(fd: int, offset: int, end: int) -> tuple[int, int] | None:
    try:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        try:
            begin = max(offset, os.lseek(fd, offset, os.SEEK_DATA))  # ZFS has returned 0 for a hole at the end
            stop = os.lseek(fd, begin, os.SEEK_HOLE) if begin < end else end
        finally:
            os.lseek(fd, position, os.SEEK_SET)
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data from here to the end of the file
            return None
        return offset, end - offset
    return (begin, max(min(stop, end), begin + 1) - begin) if begin < end else None


def punch_hole(fd: int, offset: int, size: int) -> bool:
    """Make the range read as zero and free its space; the file keeps its length. Return False if that is not possible.

    FALLOC_FL_ZERO_RANGE is not tried: filesystems that have it can punch, too.
    """
    if size <= 0:
        return True
    if sys.platform != "linux":
        return False
    import ctypes

    call = _libc("fallocate")
    if call is None or ctypes.sizeof(ctypes.c_long) < 8:  # a 32-bit libc takes 32-bit offsets here
        return False
    mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    while call(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(size)):
        if ctypes.get_errno() != errno.EINTR:
            return False
    return True


def allocated_bytes(found: os.stat_result) -> int:
    """Return the bytes that a file takes on disk, without its holes; its length if that is unknown."""
    blocks: int = getattr(found, "st_blocks", -1)
    return blocks * 512 if blocks >= 0 else found.st_size


def allocate(fd: int, offset: int, size: int) -> None:
    """Allocate storage for a range that is a hole, or behind the end of the file: it reads as zero."""
    if size > 0 and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, offset, size)
            return
        except OSError as error:
            if error.errno in FULL:
                raise
    zeros = memoryview(bytes(min(ZERO_BYTES, max(0, size))))
    for start in range(offset, offset + size, ZERO_BYTES):
        write_at(fd, start, zeros[: offset + size - start])


@cache
def _libc(name: str) -> Any:
    """Return a function of the C library that Python lacks; None if it does not exist."""
    import ctypes  # rarely needed

    try:
        return getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError, TypeError):
        return None


# -- synchronisation -----------------------------------------------------------------------------------------------


def sync(fd: int) -> None:
    """Flush the file's data and length to stable storage."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:  # macOS, where fsync leaves the data in the drive's own memory
        with suppress(OSError):  # not on network filesystems
            fcntl.fcntl(fd, full)
            return
    os.fsync(fd)


def sync_directory(path: HostPath) -> None:
    """Flush the names in a directory to stable storage. Does nothing if directories cannot be synced (CIFS, Windows)."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | OPEN)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def start_writeback(fd: int, offset: int, size: int) -> None:
    """Start write-back of the range, so that the final sync has little left to do."""
    if size <= 0:  # a length of 0 would mean up to the end of the file
        return
    call = _libc("sync_file_range") if sys.platform == "linux" else None
    if call is not None:
        import ctypes

        if not call(fd, ctypes.c_int64(offset), ctypes.c_int64(size), SYNC_FILE_RANGE_WRITE):
            return
    drop_cache(fd, offset, size)  # starts write-back of dirty pages


def drop_cache(fd: int, offset: int, size: int) -> None:
    """Drop clean pages of the range from the page cache and start write-back of dirty ones."""
    if size > 0 and hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # only advice
            os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)


_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Hold back signals that would end the program until the end of the block, if the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # A call may raise what a signal's handler raises, with the mask already changed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
