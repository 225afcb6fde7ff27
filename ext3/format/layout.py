"""Layout: one construct declaration of an on-disk structure, with three views of it.

* ``schema``: the construct ``Struct``, for documentation and single structures;
* ``dtype``: a numpy dtype, for tables (inode tables, group descriptors, xattr entries in bulk);
* ``packer``: a ``struct.Struct``, for variable-length walks (directory entries, journal tags).

Every byte must be named (``Padding`` would be lost on rewrite), all integers share one byte order, and the three sizes
must equal the number given: all checked at import.
"""

from __future__ import annotations

import struct
from typing import Any

import construct as c
import numpy as np
import numpy.typing as npt

__all__ = ["Layout"]

_NUMPY = {"B": "u1", "H": "u2", "L": "u4", "Q": "u8", "b": "i1", "h": "i2", "l": "i4", "q": "i8"}
_STRUCT = {"L": "I", "l": "i"}

Table = npt.NDArray[np.void]


class Layout:
    """Fixed-size structure of plain integers, byte strings and arrays of integers."""

    def __init__(self, name: str, *fields: Any, size: int) -> None:
        self.name = name
        self.schema: Any = c.Struct(*fields)
        orders: set[str] = set()
        columns: list[Any] = []
        codes = ""
        for field in fields:
            if not isinstance(field, c.Renamed) or field.name is None:
                raise TypeError(f"{name}: unnamed field {field!r}")
            numpy_type, code = self._leaf(field.subcon, orders)
            columns.append((field.name, *numpy_type))
            codes += code
        if len(orders) > 1:
            raise TypeError(f"{name}: mixed byte order")
        self.dtype = np.dtype(columns)
        self.packer = struct.Struct((orders or {"<"}).pop() + codes)
        self.size = size
        sizes = (self.schema.sizeof(), self.dtype.itemsize, self.packer.size)
        if set(sizes) != {size}:
            raise TypeError(f"{name}: sizes {sizes} should all be {size}")

    def _leaf(self, field: Any, orders: set[str]) -> tuple[tuple[Any, ...], str]:
        if isinstance(field, c.FormatField):
            letter = field.fmtstr[1]
            if field.length > 1:
                orders.add(field.fmtstr[0])
            return (field.fmtstr[0] + _NUMPY[letter],), _STRUCT.get(letter, letter)
        if isinstance(field, c.Bytes):
            return (f"V{field.length}",), f"{field.length}s"
        if isinstance(field, c.Array) and isinstance(field.subcon, c.FormatField):
            inner, code = self._leaf(field.subcon, orders)
            return (*inner, (field.count,)), f"{field.count}{code}"
        raise TypeError(f"{self.name}: {field!r} is not a fixed plain field")

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
