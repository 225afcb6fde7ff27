"""Data of regular files: read, write at an offset, punch holes.

Called inside an operation, except ``write_all``, ``replace`` and ``punch``, which run as many operations as the journal
needs. Data is written in place, to new blocks before the transaction that adds them to the file, as the kernel
does in ordered mode. Source: Linux ``fs/ext4/inode.c`` and ``fs/ext4/indirect.c``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import JournalFullError, NoSpaceError
from ..format.block_map import Extent
from ..format.indirect_blocks import blocks_needed
from .inode_cache import FIXED, IMMUTABLE, InodeCache, Node, check_changeable
from .privileges import content_changed
from .setattr import set_attributes
from .truncate import LARGE_FILE, check_end, clear_tail, regular, set_size, zero_in_block

__all__ = [
    "check_space",
    "data_ranges",
    "file_written",
    "map_holes",
    "punch",
    "read",
    "replace",
    "writable_file",
    "write",
    "write_all",
]


def writable_file(nodes: InodeCache, ino: int, end: int, *, start: int = -1) -> Node:
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
    node = writable_file(nodes, ino, end, start=offset)
    first = offset // size
    count = -(-end // size) - first
    new = map_holes(nodes, node, offset, end)
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
    file_written(nodes, node, end)


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
        set_size(nodes, writable_file(nodes, ino, 0), 0)
        write(nodes, ino, 0, data)

    try:
        nodes.run(both)
    except (JournalFullError, NoSpaceError):
        check_space(nodes, ino, [(0, len(data))])
        set_attributes(nodes, ino, size=0)
        nodes.session.sync()
        write_all(nodes, ino, 0, data)


def map_holes(nodes: InodeCache, node: Node, offset: int, end: int) -> list[Extent]:
    """Map every hole in the bytes from ``offset`` to ``end``. Return the new extents."""
    size = nodes.block_size
    first = offset // size
    if offset > node.record.size:
        clear_tail(nodes, node)
    if end >= LARGE_FILE:
        nodes.need_large_file(node)
    return nodes.map(node).map(first, -(-end // size) - first, nodes.session.goal_of(node.ino))


def file_written(nodes: InodeCache, node: Node, end: int) -> None:
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
    node = writable_file(nodes, ino, 0)
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


def check_space(nodes: InodeCache, ino: int, segments: Iterable[tuple[int, int]]) -> None:
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
