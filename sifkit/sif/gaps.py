"""What lies between the parts of an image: which bytes belong to nothing, and whether they are zero.

Deleted objects leave their bytes there in many images: readers never look, but whoever gets the image can.
"""

from __future__ import annotations

from collections.abc import Iterable

from .format.descriptor import Descriptor
from .format.header import HEADER_BYTES, GlobalHeader
from .store import ZEROS, Store

__all__ = ["Span", "first_nonzero", "unowned"]

Span = tuple[int, int]
"""Offset and size in bytes."""


def unowned(header: GlobalHeader, descriptors: Iterable[Descriptor], size: int) -> list[Span]:
    """What belongs neither to the header nor to the table nor to an object, in a file of ``size`` bytes, by place.

    The last span may be what the file has behind all of them. Impossible places (negative, behind the end) do no harm.
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
    """Where the first byte of a range is that is not zero; None where there is none. Holes are not read."""
    for begin, length in store.data_spans(offset, size):
        end = begin + length
        for start in range(begin, end, len(ZEROS)):
            piece = store.read_some(start, min(len(ZEROS), end - start))
            if piece != ZEROS[: len(piece)]:
                return start + len(piece) - len(piece.lstrip(b"\0"))
    return None
