"""Data of regular files: read, write at an offset, punch holes, copy from a file of the host.

Called inside an operation, except ``write_all``, ``replace``, ``punch`` and ``copy_from``, which run as many operations as
the journal needs. Data is written in place, to new blocks before the transaction that adds them to the file, as the kernel
does in ordered mode. Source: Linux ``fs/ext4/inode.c`` and ``fs/ext4/indirect.c``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import IO

from .. import hostio
from ..device.base import FileDevice
from ..errors import Ext3Error, JournalFullError, NoSpaceError, SourceError
from ..format.block_map import Extent
from ..format.indirect_blocks import blocks_needed
from .inode_cache import FIXED, IMMUTABLE, InodeCache, Node, check_changeable
from .privileges import content_changed
from .setattr import set_attributes
from .truncate import LARGE_FILE, check_end, clear_tail, regular, set_size, zero_in_block

__all__ = ["copy_from", "punch", "read", "replace", "write", "write_all"]

STEP_BYTES = 32 << 20
"""Most bytes copied in one operation."""
WRITEBACK_BYTES = 4 << 20
"""Bytes copied by one call in the kernel; write-back of each piece starts while the next one is copied."""
COPY_BYTES = 1 << 20
"""Bytes read and written by one call."""


def _writable(nodes: InodeCache, ino: int, end: int, *, start: int = -1) -> Node:
    """Return a regular file to change up to byte ``end``. ``start``: the first byte to write, -1 to truncate."""
    node = regular(nodes.edit(ino))
    flags = node.record.flags
    if flags:
        check_changeable(node, f"inode {ino}", IMMUTABLE if start >= node.record.size else FIXED)
    check_end(nodes, ino, end)
    return node


# -- read ----------------------------------------------------------------------------------------------------------


def read(nodes: InodeCache, ino: int, offset: int, size: int) -> bytes:
    """Return ``size`` bytes from byte ``offset``, fewer at the end of the file; holes read as zeros."""
    node = regular(nodes.load(ino))
    end = min(offset + size, node.record.size)
    if end <= offset:
        return b""
    block_size = nodes.block_size
    first = offset // block_size
    pieces = []
    at = offset
    device = nodes.session.device
    for logical, physical, count in nodes.map(node).runs(first, -(-end // block_size) - first):
        low, high = max(at, logical * block_size), min(end, (logical + count) * block_size)
        if low > at:
            pieces.append(bytes(low - at))
        pieces.append(device.read(physical * block_size + low - logical * block_size, high - low))
        at = high
    if len(pieces) == 1 and at == end:
        return pieces[0]
    pieces.append(bytes(end - at))
    return b"".join(pieces)


def data_ranges(nodes: InodeCache, ino: int) -> list[tuple[int, int]]:
    """Return (offset, length) in bytes of what is not a hole, ascending."""
    node = regular(nodes.load(ino))
    size, unit = node.record.size, nodes.block_size
    ranges: list[tuple[int, int]] = []
    for logical, _, count in nodes.map(node).runs(0, -(-size // unit)):
        offset, end = logical * unit, min(size, (logical + count) * unit)
        start = ranges.pop()[0] if ranges and sum(ranges[-1]) == offset else offset
        ranges.append((start, end - start))
    return ranges


# -- write ---------------------------------------------------------------------------------------------------------


def write(nodes: InodeCache, ino: int, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data`` at byte ``offset``. Raise NoSpaceError or FileTooLargeError with nothing written."""
    view = memoryview(data).cast("B")
    if not len(view):
        return
    size = nodes.block_size
    end = offset + len(view)
    node = _writable(nodes, ino, end, start=offset)
    first = offset // size
    count = -(-end // size) - first
    new = _map_holes(nodes, node, offset, end)
    mapping = nodes.map(node)
    runs = new if sum(run[2] for run in new) == count else mapping.runs(first, count)
    head = _old_part(nodes, node, first, new, 0, offset % size)
    tail = b""
    if end % size:
        tail = _old_part(nodes, node, end // size, new, end % size, size)
    if head or tail:
        view = memoryview(b"".join((head, view, tail)))
    session = nodes.session
    for logical, physical, length in runs:
        at = (logical - first) * size
        session.write_data(physical, view[at : at + length * size])
    _written(nodes, node, end)


def write_all(nodes: InodeCache, ino: int, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Write as one operation, or as several if one does not fit the journal."""
    try:
        nodes.run(lambda: write(nodes, ino, offset, data))
    except JournalFullError:
        view = memoryview(data).cast("B")
        half = len(view) // 2 // nodes.block_size * nodes.block_size
        if not half:
            raise
        write_all(nodes, ino, offset, view[:half])
        write_all(nodes, ino, offset + half, view[half:])


def replace(nodes: InodeCache, ino: int, data: bytes | bytearray | memoryview) -> None:
    """Replace the content of a file: in one operation if there is space for both, else the old content is freed first."""

    def both() -> None:
        set_size(nodes, _writable(nodes, ino, 0), 0)
        write(nodes, ino, 0, data)

    try:
        nodes.run(both)
    except (JournalFullError, NoSpaceError):
        _check_space(nodes, ino, [(0, len(data))])
        set_attributes(nodes, ino, size=0)
        nodes.session.sync()
        write_all(nodes, ino, 0, data)


def _map_holes(nodes: InodeCache, node: Node, offset: int, end: int) -> list[Extent]:
    """Map every hole in the bytes from ``offset`` to ``end``. Return the new extents."""
    size = nodes.block_size
    first = offset // size
    if offset > node.record.size:
        clear_tail(nodes, node)
    if end >= LARGE_FILE:
        nodes.need_large_file(node)
    return nodes.map(node).map(first, -(-end // size) - first, nodes.session.goal_of(node.ino))


def _written(nodes: InodeCache, node: Node, end: int) -> None:
    record = node.record
    record.size = max(record.size, end)
    nodes.update_map(node)
    content_changed(nodes, node)


def _old_part(nodes: InodeCache, node: Node, logical: int, new: list[Extent], low: int, high: int) -> bytes:
    """Return bytes ``low`` to ``high`` of a block to be written in part; zeros behind the end of the file."""
    if low >= high:
        return b""
    size = nodes.block_size
    inside = min(max(node.record.size - logical * size, low), high)
    if inside <= low or any(at <= logical < at + count for at, _, count in new):
        return bytes(high - low)
    block = nodes.map(node).block(logical)
    assert block is not None  # all of the range is mapped by now
    return nodes.session.read(block)[low:inside].ljust(high - low, b"\0")


# -- holes ---------------------------------------------------------------------------------------------------------


def punch(nodes: InodeCache, ino: int, offset: int, length: int) -> None:
    """Free the whole blocks of a range and zero the rest; the size stays."""
    if offset < 0 or length < 0:
        raise ValueError(f"{length} bytes from byte {offset}")
    try:
        nodes.run(lambda: _punch(nodes, ino, offset, length))
    except JournalFullError:
        length = min(length, nodes.load(ino).record.size - offset)
        half = length // 2 // nodes.block_size * nodes.block_size
        if not half:
            raise
        punch(nodes, ino, offset, half)
        punch(nodes, ino, offset + half, length - half)


def _punch(nodes: InodeCache, ino: int, offset: int, length: int) -> None:
    node = _writable(nodes, ino, 0)
    size = nodes.block_size
    end = min(offset + length, node.record.size)
    if end <= offset:
        return
    if end == node.record.size:
        end = -(-end // size) * size  # bytes behind the end of the file are zero anyway
    low, high = -(-offset // size), end // size
    if low > high:  # inside one block
        zero_in_block(nodes, node, offset // size, offset % size, end % size)
    else:
        if offset % size:
            zero_in_block(nodes, node, low - 1, offset % size, size)
        if end % size:
            zero_in_block(nodes, node, high, 0, end % size)
        nodes.map(node).punch(low, high - low)
        nodes.update_map(node)
    content_changed(nodes, node)


# -- copy in -------------------------------------------------------------------------------------------------------


def copy_from(nodes: InodeCache, ino: int, source: int | IO[bytes], advance: Callable[[int], None]) -> int:
    """Replace the content of a file by that of a file of the host; holes stay holes. Return its size in bytes.

    The file is truncated first, and again on failure. Raise NoSpaceError, before anything is changed, if the source
    does not fit, SourceError if the source cannot be read.
    """
    fd = source if isinstance(source, int) else _descriptor(source)
    if fd is None:
        assert not isinstance(source, int)
        return _copy_stream(nodes, ino, source, advance)
    length = os.fstat(fd).st_size
    _writable(nodes, ino, length)
    segments = [(low, low + size) for low, size in hostio.data_ranges(fd, 0, length)]
    _check_space(nodes, ino, segments)
    record = nodes.load(ino).record
    if record.size or record.sectors or not segments:
        set_attributes(nodes, ino, size=0)
    copier = _Copier(nodes, ino, fd, advance)
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


def _descriptor(source: IO[bytes]) -> int | None:
    """Return the descriptor of a file object at position 0 that supports reads at any offset, else None."""
    try:
        fd = source.fileno()
        seekable = os.lseek(fd, 0, os.SEEK_CUR) == 0 and source.tell() == 0
    except (AttributeError, OSError, ValueError):
        return None
    return fd if seekable else None


def _copy_stream(nodes: InodeCache, ino: int, source: IO[bytes], advance: Callable[[int], None]) -> int:
    set_attributes(nodes, ino, size=0)
    offset = 0
    try:
        while piece := source.read(COPY_BYTES):
            nodes.run(partial(write, nodes, ino, offset, piece))
            offset += len(piece)
            advance(len(piece))
    except BaseException:
        with suppress(Ext3Error):  # what failed first is what matters
            set_attributes(nodes, ino, size=0)
        raise
    return offset


def _check_space(nodes: InodeCache, ino: int, segments: Iterable[tuple[int, int]]) -> None:
    """Raise NoSpaceError unless data in these (first byte, end) fits once the file's own blocks are free."""
    record = nodes.load(ino).record
    own = record.sectors // nodes.sectors_per_block - bool(record.file_acl)
    free = nodes.session.blocks.total_free + own
    needed = blocks_needed(segments, nodes.block_size)
    if needed > free:
        raise NoSpaceError(
            f"no space left in the image: blocks needed {needed:,}, free {free:,}",
            needed_bytes=needed * nodes.block_size,
            available_bytes=free * nodes.block_size,
            hint="remove files, or make the image larger",
        )


class _Copier:
    """Copier of ranges of one file of the host, by the kernel if possible."""

    def __init__(self, nodes: InodeCache, ino: int, fd: int, advance: Callable[[int], None]) -> None:
        self.nodes = nodes
        self.ino = ino
        self.fd = fd
        self.advance = advance
        self.in_kernel = True

    def copy(self, offset: int, end: int) -> None:
        """Copy the bytes from ``offset`` to ``end``, which may begin in the last block of the range copied before."""
        nodes, size = self.nodes, self.nodes.block_size
        node = _writable(nodes, self.ino, end, start=offset)
        low, high = -(-offset // size) * size, end // size * size
        if low >= high:
            write(nodes, self.ino, offset, self._read(offset, end - offset))
            self.advance(end - offset)
            return
        if low > offset:
            write(nodes, self.ino, offset, self._read(offset, low - offset))
        new = _map_holes(nodes, node, low, high)
        for logical, physical, count in new:
            self._fill_blocks(physical, count, logical * size)
        _written(nodes, node, high)
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
            if self.in_kernel and isinstance(device, FileDevice):
                done = self._copy_range(device, offset, target, min(left, WRITEBACK_BYTES))
            if not done:
                piece = self._read(offset, min(left, COPY_BYTES))
                device.write(target, piece)
                done = len(piece)
            if isinstance(device, FileDevice) and done >= COPY_BYTES:
                device.start_writeback(target, done)
            offset, target, left = offset + done, target + done, left - done

    def _copy_range(self, device: FileDevice, offset: int, target: int, size: int) -> int:
        """Return the number of bytes copied, 0 if the kernel cannot."""
        try:
            done = hostio.kernel_copy(self.fd, offset, device.fd, device.offset + target, size)
        except OSError as error:
            raise device.write_failed(target, error) from error
        self.in_kernel = done > 0
        return done

    def _read(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes of the source. Raise SourceError if it became shorter."""
        try:
            data = hostio.read_at(self.fd, offset, size)
        except OSError as error:
            raise SourceError("the source", f"reading: {error.strerror}", error=error) from error
        if len(data) < size:
            raise SourceError("the source", "became shorter while it was copied", hint="copy it again")
        return data
