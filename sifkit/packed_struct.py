"""Packed little-endian structure, declared once by its fields and their types, with a ``struct`` packer.

The construct schema, for documentation and inspection, is made on demand: importing construct takes longer than reading an
image.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

__all__ = ["I16", "I32", "I64", "U8", "U16", "U32", "U64", "PackedStruct"]

I16, I32, I64, U8, U16, U32, U64 = "h", "i", "q", "B", "H", "I", "Q"
"""Integer types by their ``struct`` letters: signed (I) or unsigned (U), of so many bits. A number: size of a byte string."""
_CONSTRUCT = {
    I16: "Int16sl",
    I32: "Int32sl",
    I64: "Int64sl",
    U8: "Int8ul",
    U16: "Int16ul",
    U32: "Int32ul",
    U64: "Int64ul",
}


class PackedStruct:
    """Packed structure of integers and byte strings. Every byte belongs to a field, so that none is lost on rewrite."""

    def __init__(self, name: str, size: int, /, **fields: str | int) -> None:
        self.name = name
        self.size = size
        self.fields = fields
        self.names = tuple(fields)
        self.packer = struct.Struct("<" + "".join(map(_letters, fields.values())))
        if self.packer.size != size:
            raise TypeError(f"{name}: the fields take {self.packer.size} bytes, not {size}")

    @property
    def schema(self) -> Any:
        """Structure as a construct ``Struct``."""
        import construct as c

        def field(kind: str | int) -> Any:
            return c.Bytes(kind) if isinstance(kind, int) else getattr(c, _CONSTRUCT[kind])

        return c.Struct(*(name / field(kind) for name, kind in self.fields.items()))

    def offset_of(self, name: str) -> int:
        """Return the offset of a field in bytes."""
        before = self.names[: self.names.index(name)]
        return struct.calcsize("<" + "".join(_letters(self.fields[field]) for field in before))

    def read(self, raw: bytes | bytearray | memoryview, offset: int = 0) -> dict[str, Any]:
        """Unpack the record at byte ``offset`` of ``raw`` into its fields."""
        return dict(zip(self.names, self.packer.unpack_from(raw, offset), strict=True))

    def build(self, values: Mapping[str, Any]) -> bytes:
        """Pack a record. Exactly its fields must be given; byte strings are padded with NUL."""
        if set(values) != set(self.names):
            raise TypeError(f"{self.name}: fields {sorted(set(values) ^ set(self.names))} are missing or too many")
        return self.packer.pack(*(values[name] for name in self.names))


def _letters(kind: str | int) -> str:
    return f"{kind}s" if isinstance(kind, int) else kind
