"""Placement of the table and of objects: pure arithmetic on offsets and sizes in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise

from ..errors import EditError
from .descriptor import DESCRIPTOR_BYTES, Descriptor
from .header import HEADER_BYTES, GlobalHeader
from .types import DataType

__all__ = [
    "DEFAULT_CAPACITY",
    "MAX_ALIGNMENT",
    "MAX_CAPACITY",
    "MAX_OFFSET",
    "PAGE_BYTES",
    "TABLE_OFFSET",
    "align",
    "check_alignment",
    "data_end",
    "dead_spans",
    "default_alignment",
    "first_overlap",
    "home_of_table",
    "table_bytes",
    "intersecting",
]

TABLE_OFFSET = 4096
"""Offset of the descriptor table in the images of all known writers."""
DEFAULT_CAPACITY = 48
MAX_CAPACITY = 16384
"""Limit of descriptors in a table, which bounds what is read for a hostile count (9.6 MB)."""
PAGE_BYTES = 4096
MAX_OFFSET = (1 << 63) - 1
"""Largest offset: offsets and sizes are signed 64-bit on disk and in system calls."""
MAX_ALIGNMENT = 1 << 30


def table_bytes(capacity: int) -> int:
    """Return the size of a table of ``capacity`` descriptors."""
    return capacity * DESCRIPTOR_BYTES


def align(offset: int, alignment: int) -> int:
    """Round ``offset`` up to a multiple of ``alignment``, which may be any number; 0 or less aligns nothing."""
    return offset if alignment <= 0 else -(-offset // alignment) * alignment


def default_alignment(data_type: int) -> int:
    """Return the alignment of a new object: a page for partitions, so that they can be mapped and loop-mounted; else 0."""
    return PAGE_BYTES if data_type == DataType.PARTITION else 0


def check_alignment(alignment: int) -> int:
    """Return ``alignment``. Raises EditError if it would leave a huge gap."""
    if alignment > MAX_ALIGNMENT:
        raise EditError(f"an alignment of {alignment} bytes is more than 1 GiB", hint="4096 is usual for partitions")
    return alignment


def data_end(header: GlobalHeader, descriptors: Iterable[Descriptor]) -> int:
    """Return the end of the data: of the last object, and of the table if it lies in the data."""
    end = max((descriptor.end for descriptor in descriptors), default=0)
    return max(end, header.data_offset, header.table_end if header.table_in_data else 0)


def home_of_table(header: GlobalHeader, descriptors: Iterable[Descriptor]) -> int | None:
    """Return the offset where the table belongs, between header and data: where it is, at 4096, or just before the data.

    None if it lies in the data and neither of these places is free.
    """
    if not header.table_in_data:
        return header.descriptors_offset
    taken = [(descriptor.offset, descriptor.end) for descriptor in descriptors if descriptor.size]
    for begin in (TABLE_OFFSET, header.data_offset - header.table_bytes):
        end = begin + header.table_bytes
        free = all(end <= start or stop <= begin for start, stop in taken)
        if begin >= HEADER_BYTES and end <= header.data_offset and free:
            return begin
    return None


def dead_spans(header: GlobalHeader, descriptors: Iterable[Descriptor]) -> list[tuple[int, int]]:
    """Return the gaps between objects as (offset, size), from the start of the data to the end of the last object."""
    taken = [(descriptor.offset, descriptor.end) for descriptor in descriptors if descriptor.size > 0]
    if header.table_in_data:
        taken.append((header.descriptors_offset, header.table_end))
    spans = []
    position = header.data_offset
    for begin, end in sorted(taken):
        if begin > position:
            spans.append((position, begin - position))
        position = max(position, end)
    return spans


def intersecting(spans: Iterable[tuple[int, int]], ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield those of ``spans``, (offset, size), that intersect one of ``ranges``, (begin, end). Fast with thousands of both."""
    from bisect import bisect_left

    ordered = sorted(ranges)
    starts = [begin for begin, _ in ordered]
    reach = list(accumulate((end for _, end in ordered), max))
    for offset, size in spans:
        before = bisect_left(starts, offset + size)
        if before and reach[before - 1] > offset:
            yield offset, size


def first_overlap(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, Descriptor] | None:
    """Return the first two objects that overlap, by offset; empty objects do not."""
    ordered = sorted((d for d in descriptors if d.size > 0), key=lambda d: (d.offset, d.end))
    return next(((one, other) for one, other in pairwise(ordered) if one.end > other.offset), None)
