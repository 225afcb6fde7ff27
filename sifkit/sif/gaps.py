"""Gaps of an image: bytes that belong to no part of it, and whether they are zero.

Deleted objects leave their bytes there in many images. SIF readers ignore them, but anyone with the file can read them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from .format.descriptor import Descriptor
from .format.header import HEADER_BYTES, GlobalHeader
from .format.placement import PAGE_BYTES, align, dead_spans
from .store import ZEROS, Store

__all__ = ["Span", "first_nonzero", "occupied_gaps", "unowned_spans"]

Span = tuple[int, int]
"""Offset and size in bytes."""


def unowned_spans(header: GlobalHeader, descriptors: Iterable[Descriptor], size: int) -> list[Span]:
    """Return the spans that belong neither to the header nor to the table nor to an object, in a file of ``size`` bytes.

    The last span may be after all of them. Invalid offsets (negative, beyond the end) are tolerated.
    """
    taken = [(0, HEADER_BYTES), (header.descriptors_offset, header.table_end)]
    taken += [(descriptor.offset, descriptor.end) for descriptor in descriptors if descriptor.size > 0]
    spans = []
    position = 0
    for begin, end in sorted(taken):
        if min(begin, size) > position:
            spans.append((position, min(begin, size) - position))
        position = max(position, end)
    if size > position:
        spans.append((position, size - position))
    return spans


def first_nonzero(store: Store, offset: int, size: int) -> int | None:
    """Return the offset of the first byte of a range that is not zero, or None. Holes are not read."""
    for begin, length in store.data_spans(offset, size):
        end = begin + length
        for start in range(begin, end, len(ZEROS)):
            piece = store.read_some(start, min(len(ZEROS), end - start))
            if piece != ZEROS[: len(piece)]:
                return start + len(piece) - len(piece.lstrip(b"\0"))
    return None


def occupied_gaps(store: Store, header: GlobalHeader, descriptors: Iterable[Descriptor]) -> list[Span]:
    """Return the gaps between objects that have storage of their own, or bytes that are not zero."""
    block = PAGE_BYTES if store.fd is None else max(PAGE_BYTES, os.fstat(store.fd).st_blksize)
    found = []
    for begin, size in dead_spans(header, descriptors):
        if header.descriptors_size > header.table_bytes and begin == header.table_end:
            continue  # by the header these are the table's
        end = min(begin + size, store.size)
        first = align(begin, block)
        inside = store.data_spans(first, end // block * block - first)
        if next(iter(inside), None) is not None or first_nonzero(store, begin, end - begin) is not None:
            found.append((begin, end - begin))
    return found
