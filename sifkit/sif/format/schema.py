"""Structures of a SIF file on disk: packed, little-endian, with signed counts and offsets. Declarations only.

Field names are those of the reference library. Each structure is declared once, by its fields and their types, from which a
``struct`` packer is made. The construct schema, for documentation and inspection, is made on demand: importing construct takes
longer than reading an image.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

__all__ = ["CRYPTO", "DESCRIPTOR", "GLOBAL_HEADER", "OCI", "PARTITION", "SBOM", "SIGNATURE", "PackedStruct"]

I32, I64, U8, U32 = "i", "q", "B", "I"
"""Integer types by their ``struct`` letters: signed 32 and 64 bits, unsigned 8 and 32. A number: size of a byte string."""
_CONSTRUCT = {I32: "Int32sl", I64: "Int64sl", U8: "Int8ul", U32: "Int32ul"}


class PackedStruct:
    """Packed structure of integers and byte strings. Every byte belongs to a field, so that none is lost on rewrite."""

    def __init__(self, name: str, size: int, **fields: str | int) -> None:
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


GLOBAL_HEADER = PackedStruct(
    "global header",
    128,
    LaunchScript=32,
    Magic=10,
    Version=3,
    Arch=3,
    ID=16,
    CreatedAt=I64,
    ModifiedAt=I64,
    DescriptorsFree=I64,
    DescriptorsTotal=I64,
    DescriptorsOffset=I64,
    DescriptorsSize=I64,
    DataOffset=I64,
    DataSize=I64,
)

DESCRIPTOR = PackedStruct(
    "descriptor",
    585,
    DataType=I32,
    Used=U8,
    ID=U32,
    GroupID=U32,
    LinkedID=U32,
    Offset=I64,
    Size=I64,
    SizeWithPadding=I64,
    CreatedAt=I64,
    ModifiedAt=I64,
    UID=I64,
    GID=I64,
    Name=128,
    Extra=384,
)

# Metadata at the start of a descriptor's Extra bytes, by data type; the rest is zero.
PARTITION = PackedStruct("partition", 11, FSType=I32, PartType=I32, Arch=3)
SIGNATURE = PackedStruct("signature", 260, HashType=I32, Entity=256)
CRYPTO = PackedStruct("cryptographic message", 8, FormatType=I32, MessageType=I32)
SBOM = PackedStruct("SBOM", 4, Format=I32)
OCI = PackedStruct("OCI blob", 384, Digest=384)
