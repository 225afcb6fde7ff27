"""Structures of a SIF file on disk: packed, little-endian, with signed counts and offsets. Declarations only.

Field names are those of the reference library.
"""

from __future__ import annotations

from ...packed_struct import I32, I64, U8, U32, PackedStruct

__all__ = ["CRYPTO", "DESCRIPTOR", "GLOBAL_HEADER", "OCI", "PARTITION", "SBOM", "SIGNATURE"]

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
