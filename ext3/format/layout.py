"""Layout: one declaration of an on-disk structure, in construct's words, with three views of it.

* ``schema``: the construct ``Struct``, for documentation and single structures;
* ``dtype``: a numpy dtype, for tables (inode tables, group descriptors, xattr entries in bulk);
* ``packer``: a ``struct.Struct``, for variable-length walks (directory entries, journal tags).

Every byte must be named (``Padding`` would be lost on rewrite), all integers share one byte order, and the three sizes
must equal the number given: all checked at import.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from .field_kinds import NamedField

__all__ = ["Layout"]

_NUMPY = {"B": "u1", "H": "u2", "I": "u4", "Q": "u8", "h": "i2"}
"""Integer types of numpy, by their ``struct`` letters."""

Table = npt.NDArray[np.void]


class Layout:
    """Fixed-size structure of plain integers, byte strings and arrays of integers."""

    def __init__(self, name: str, *fields: NamedField, size: int) -> None:
        self.name = name
        self.fields = fields
        orders = {field.kind.order for field in fields if field.kind.order}
        if len(orders) > 1:
            raise TypeError(f"{name}: mixed byte order")
        order = (orders or {"<"}).pop()
        self.dtype = np.dtype([_column(field, order) for field in fields])
        self.packer = struct.Struct(order + "".join(f"{field.kind.count or ''}{field.kind.code}" for field in fields))
        self.size = size
        sizes = (self.dtype.itemsize, self.packer.size)
        if set(sizes) != {size}:
            raise TypeError(f"{name}: sizes {sizes} should be {size}")

    @property
    def schema(self) -> Any:
        """Structure as a construct ``Struct``."""
        import construct as c

        return c.Struct(*(field.name / field.kind.in_construct() for field in self.fields))

    def view(self, buffer: bytes | bytearray | memoryview, count: int = 1, offset: int = 0) -> Table:
        """Return ``count`` records at byte ``offset`` of ``buffer``, without a copy (writable if the buffer is)."""
        return np.frombuffer(buffer, self.dtype, count, offset)

    def zeros(self, count: int = 1) -> Table:
        """Return ``count`` new records, all bytes zero."""
        return np.zeros(count, self.dtype)

    def record(self, buffer: bytes) -> dict[str, Any]:
        """Return one record as a plain dict: ints, bytes and lists."""
        row = np.frombuffer(buffer, self.dtype, 1)[0]
        return {
            name: value.item() if not value.shape else value.tolist()
            for name, value in zip(self.dtype.names or (), row, strict=True)
        }


def _column(field: NamedField, order: str) -> tuple[Any, ...]:
    """Return a field as numpy's dtype has it."""
    kind = field.kind
    if kind.code == "s":
        return field.name, f"V{kind.count}"
    column = (field.name, order + _NUMPY[kind.code])
    return column if kind.count is None else (*column, (kind.count,))
