"""Copy of a whole file into a regular file of the image, in the kernel if possible. Holes stay holes.

Runs as many operations as the journal needs. Data goes to new blocks before the transaction that adds them to the file. What
has no size, or a false one (pipes, files of proc), is read to its end, as cp does.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, runtime_checkable

from .. import hostio
from ..device.base import FileDevice
from ..errors import Ext3Error, SourceError
from .file_data import check_space, file_written, map_holes, writable_file, write
from .inode_cache import InodeCache
from .setattr import set_attributes

__all__ = ["SourceFile", "SourceStream", "copy_file"]

STEP_BYTES = 32 << 20
"""Most bytes copied in one operation."""
WRITEBACK_BYTES = 4 << 20
"""Bytes copied by one call in the kernel; write-back of each piece starts while the next one is copied."""
COPY_BYTES = 1 << 20
"""Bytes read and written by one call."""


@runtime_checkable
class SourceFile(Protocol):
    """File to copy, of ``size`` bytes."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return ``size`` bytes from byte ``offset``, fewer at the end of the file."""
        ...

    def data_ranges(self) -> Sequence[tuple[int, int]]:
        """Return (offset, length) in bytes of what is not a hole, ascending."""
        ...

    def host_ranges(self) -> Sequence[tuple[int, int, int, int]] | None:
        """Return (offset, descriptor, offset there, length) of the data ranges; None if they are in no file of the host."""
        ...


class SourceStream(Protocol):
    """Binary file that is read forwards from where it stands, such as a pipe."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most ``size`` bytes, none only at the end."""
        ...


class _HostFile:
    """Open file of the host as a SourceFile."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def read_at(self, offset: int, size: int, /) -> bytes:
        return hostio.read_at(self._fd, offset, size)

    def data_ranges(self) -> list[tuple[int, int]]:
        return list(hostio.data_ranges(self._fd, 0, self.size))

    def host_ranges(self) -> list[tuple[int, int, int, int]]:
        return [(0, self._fd, 0, self.size)]


def copy_file(nodes: InodeCache, ino: int, source: SourceFile | SourceStream | int, advance: Callable[[int], None]) -> int:
    """Replace the content of a file by that of ``source``: a descriptor, a binary file or another stream, or a SourceFile.

    Return its size. The file is truncated first, and again on failure. Raise NoSpaceError if the source does not fit, before
    anything is changed where its size is known, and SourceError if the source cannot be read.
    """
    if isinstance(source, int):
        return _copy_descriptor(nodes, ino, source, advance)
    if isinstance(source, SourceFile):
        return _copy(nodes, ino, source, advance)
    fd = _descriptor(source)
    if fd is None:
        return _copy_stream(nodes, ino, source.read, advance)
    return _copy_descriptor(nodes, ino, fd, advance)


def _copy_descriptor(nodes: InodeCache, ino: int, fd: int, advance: Callable[[int], None]) -> int:
    size = hostio.true_size(fd)
    if size is None:
        return _copy_stream(nodes, ino, hostio.sequential_reader(fd), advance)
    return _copy(nodes, ino, _HostFile(fd, size), advance)


def _copy(nodes: InodeCache, ino: int, source: SourceFile, advance: Callable[[int], None]) -> int:
    length = source.size
    writable_file(nodes, ino, length)
    try:
        copier = _Copier(nodes, ino, source, advance)
    except OSError as error:
        raise _unreadable(error) from error
    segments = copier.segments
    check_space(nodes, ino, segments)
    record = nodes.load(ino).record
    if record.size or record.sectors or not segments:
        set_attributes(nodes, ino, size=0)
    try:
        for low, high in segments:
            for start in range(low - low % STEP_BYTES, high, STEP_BYTES):
                begin, end = max(start, low), min(start + STEP_BYTES, high)
                nodes.run(partial(copier.copy, begin, end))
        if nodes.load(ino).record.size != length:
            set_attributes(nodes, ino, size=length)
    except BaseException:
        with suppress(Ext3Error):  # what failed first is what matters
            set_attributes(nodes, ino, size=0)
        raise
    return length


def _unreadable(error: OSError) -> SourceError:
    reason = getattr(error, "message", "") or error.strerror or str(error)
    return SourceError("the source", f"reading: {reason}", error=error, hint=getattr(error, "hint", ""))


def _descriptor(source: Any) -> int | None:
    """Return the descriptor of a file object at position 0 that supports reads at any offset, else None."""
    try:
        fd: int = source.fileno()
        seekable = os.lseek(fd, 0, os.SEEK_CUR) == 0 and source.tell() == 0
    except (AttributeError, OSError, ValueError):
        return None
    return fd if seekable else None


def _copy_stream(nodes: InodeCache, ino: int, read: Callable[[int], bytes | None], advance: Callable[[int], None]) -> int:
    """Copy what ``read(size)`` gives until it gives nothing. What cannot be read at all changes nothing."""
    piece = _read_piece(read)
    set_attributes(nodes, ino, size=0)
    offset = 0
    try:
        while piece:
            nodes.run(partial(write, nodes, ino, offset, piece))
            offset += len(piece)
            advance(len(piece))
            piece = _read_piece(read)
    except BaseException:
        with suppress(Ext3Error):  # what failed first is what matters
            set_attributes(nodes, ino, size=0)
        raise
    return offset


def _read_piece(read: Callable[[int], bytes | None]) -> bytes:
    """Return the next COPY_BYTES, fewer only at the end: a pipe gives a few at a time. Raise SourceError."""
    pieces: list[bytes] = []
    left = COPY_BYTES
    try:
        while left and (piece := read(left)) != b"":
            if piece is None:  # of a descriptor that does not block
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        raise _unreadable(error) from error
    return b"".join(pieces)


class _Copier:
    """Copier of ranges of one file, by the kernel where they are in a file of the host."""

    def __init__(self, nodes: InodeCache, ino: int, source: SourceFile, advance: Callable[[int], None]) -> None:
        self.nodes = nodes
        self.ino = ino
        self.source = source
        self.advance = advance
        self.segments = [(low, low + size) for low, size in source.data_ranges()]
        """(First byte, end) of the data."""
        self.host_ranges = list(source.host_ranges() or ())
        self.starts = [offset for offset, _, _, _ in self.host_ranges]

    def copy(self, offset: int, end: int) -> None:
        """Copy the bytes from ``offset`` to ``end``, which may begin in the last block of the range copied before."""
        nodes, size = self.nodes, self.nodes.block_size
        node = writable_file(nodes, self.ino, end, start=offset)
        low, high = -(-offset // size) * size, end // size * size
        if low >= high:
            write(nodes, self.ino, offset, self._read(offset, end - offset))
            self.advance(end - offset)
            return
        if low > offset:
            write(nodes, self.ino, offset, self._read(offset, low - offset))
        new = map_holes(nodes, node, low, high)
        for logical, physical, count in new:
            self._fill_blocks(physical, count, logical * size)
        file_written(nodes, node, high)
        if end > high:
            write(nodes, self.ino, high, self._read(high, end - high))
        self.advance(end - offset)

    def _fill_blocks(self, block: int, count: int, offset: int) -> None:
        """Fill ``count`` new blocks with the source's bytes from ``offset`` on."""
        size = self.nodes.block_size
        device = self.nodes.session.data_device(block, count)
        target, left = block * size, count * size
        while left:
            done = 0
            if self.host_ranges and isinstance(device, FileDevice):
                done = self._copy_in_kernel(device, offset, target, min(left, WRITEBACK_BYTES))
            if not done:
                piece = self._read(offset, min(left, COPY_BYTES))
                device.write(target, piece)
                done = len(piece)
            if isinstance(device, FileDevice) and done >= COPY_BYTES:
                device.start_writeback(target, done)
            offset, target, left = offset + done, target + done, left - done

    def _copy_in_kernel(self, device: FileDevice, offset: int, target: int, size: int) -> int:
        """Return the number of bytes copied, 0 if the kernel cannot."""
        start, fd, place, length = self.host_ranges[max(0, bisect_right(self.starts, offset) - 1)]
        if not start <= offset < start + length:
            return 0
        size = min(size, start + length - offset)
        try:
            done = hostio.kernel_copy(fd, place + offset - start, device.fd, device.offset + target, size)
        except OSError as error:
            raise device.write_failed(target, error) from error
        if not done:
            self.host_ranges.clear()  # it would not do it for others
        return done

    def _read(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes of the source. Raise SourceError if it became shorter."""
        try:
            data = self.source.read_at(offset, size)
        except OSError as error:
            raise _unreadable(error) from error
        if len(data) < size:
            raise SourceError("the source", "became shorter while it was copied", hint="copy it again")
        return data
