"""Layout: one declaration of an on-disk structure, in construct's words, with several views of it.

* ``record`` and ``at``: one structure in plain Python, decoded or changed in place;
* ``packer``: a ``struct.Struct``, for variable-length walks (directory entries, journal tags);
* ``dtype``, ``view``, ``zeros``: many structures as a numpy table (see ``layout_columns``); the first use loads numpy;
* ``schema``: the construct ``Struct``, for documentation.

Every byte must be named (``Padding`` would be lost on rewrite), all integers share one byte order, and the size must equal
the number given: checked at import.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .field_kinds import NamedField

if TYPE_CHECKING:
    import numpy as np

    from .layout_columns import Table

__all__ = ["Layout", "Record"]

_Place = tuple[int, struct.Struct, int]
"""Of a field: its byte, its packer, and the numbers in it if it is an array, else 0."""


class Layout:
    """Fixed-size structure of plain integers, byte strings and arrays of integers."""

    def __init__(self, name: str, *fields: NamedField, size: int) -> None:
        self.name = name
        self.fields = fields
        orders = {field.kind.order for field in fields if field.kind.order}
        if len(orders) > 1:
            raise TypeError(f"{name}: mixed byte order")
        self.order = (orders or {"<"}).pop()
        self.packer = struct.Struct(self.order + "".join(map(_letters, fields)))
        self.size = size
        if self.packer.size != size:
            raise TypeError(f"{name}: size {self.packer.size} should be {size}")

    @cached_property
    def _places(self) -> dict[str, _Place]:
        found = {}
        at = 0
        for field in self.fields:
            packer = struct.Struct(self.order + _letters(field))
            found[field.name] = at, packer, 0 if field.kind.code == "s" else field.kind.count or 0
            at += packer.size
        return found

    @property
    def schema(self) -> Any:
        """Structure as a construct ``Struct``."""
        import construct as c

        return c.Struct(*(field.name / field.kind.in_construct() for field in self.fields))

    # -- one structure -----------------------------------------------------------------------------------------------

    def offset_of(self, name: str) -> int:
        """Return the byte where a field begins."""
        return self._places[name][0]

    def end_of(self, name: str) -> int:
        """Return the byte behind a field."""
        at, packer, _ = self._places[name]
        return at + packer.size

    def record(self, buffer: bytes | bytearray | memoryview) -> dict[str, Any]:
        """Return the structure at the beginning of ``buffer`` as a plain dict: ints, bytes and lists."""
        row = self.at(buffer)
        return {field.name: row[field.name] for field in self.fields}

    def at(self, buffer: bytes | bytearray | memoryview, offset: int = 0) -> Record:
        """Return the structure at byte ``offset`` of ``buffer``, without a copy."""
        if not 0 <= offset <= len(buffer) - self.size:
            raise ValueError(f"{self.name} at byte {offset}: it leaves the buffer of {len(buffer)} bytes")
        return Record(self._places, buffer, offset)

    # -- many structures ---------------------------------------------------------------------------------------------

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """Structure as a numpy dtype."""
        from .layout_columns import dtype_of

        return dtype_of(self)

    def view(self, buffer: bytes | bytearray | memoryview, count: int = 1, offset: int = 0) -> Table:
        """Return ``count`` structures at byte ``offset`` of ``buffer``, without a copy (writable if the buffer is)."""
        import numpy as np

        return np.frombuffer(buffer, self.dtype, count, offset)

    def zeros(self, count: int = 1) -> Table:
        """Return ``count`` new structures, all bytes zero."""
        import numpy as np

        return np.zeros(count, self.dtype)


class Record:
    """One structure in a buffer: fields by name, as ints, bytes and lists. In a writable buffer they can be set.

    A number for an array sets all of it. A value that does not fit its field raises struct.error, a buffer of bytes TypeError;
    shorter bytes are padded with zeros.
    """

    __slots__ = ("_buffer", "_offset", "_places")

    def __init__(self, places: dict[str, _Place], buffer: bytes | bytearray | memoryview, offset: int) -> None:
        self._places = places
        self._buffer: Any = buffer
        self._offset = offset

    def __getitem__(self, name: str) -> Any:
        at, packer, count = self._places[name]
        values = packer.unpack_from(self._buffer, self._offset + at)
        return list(values) if count else values[0]

    def __setitem__(self, name: str, value: Any) -> None:
        at, packer, count = self._places[name]
        if not count:
            packer.pack_into(self._buffer, self._offset + at, value)
        else:
            packer.pack_into(self._buffer, self._offset + at, *([value] * count if isinstance(value, int) else value))


def _letters(field: NamedField) -> str:
    """Return a field as ``struct`` has it."""
    return f"{field.kind.count or ''}{field.kind.code}"
