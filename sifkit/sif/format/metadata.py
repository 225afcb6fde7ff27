"""Metadata of objects: the start of a descriptor's 384 Extra bytes, as one value per data type.

Unknown codes are plain integers. ``pack_onto`` keeps the Extra bytes after the metadata as they were.
"""

from __future__ import annotations

from typing import NamedTuple

from ...packed_struct import PackedStruct
from .schema import CRYPTO, OCI, PARTITION, SBOM, SIGNATURE
from .types import (
    Arch,
    DataType,
    FormatType,
    FSType,
    HashType,
    MessageType,
    PartType,
    SBOMFormat,
    arch_bytes,
    arch_from_bytes,
    as_code,
    describe,
)

__all__ = [
    "EXTRA_BYTES",
    "FINGERPRINT_BYTES",
    "CryptoMeta",
    "Metadata",
    "OCIMeta",
    "PartitionMeta",
    "SBOMMeta",
    "SignatureMeta",
    "parse_metadata",
]

EXTRA_BYTES = 384
FINGERPRINT_BYTES = 20
"""Size of an OpenPGP v4 fingerprint, at the start of a signature's 256-byte entity."""
_ENTITY_BYTES = 256
_HEX_DIGITS = set(b"0123456789abcdef")


def _onto(layout: PackedStruct, extra: bytes, **values: object) -> bytes:
    return layout.build(values) + extra.ljust(EXTRA_BYTES, b"\0")[layout.size :]


class PartitionMeta(NamedTuple):
    """Metadata of a partition: declared filesystem, partition type, architecture."""

    fs_type: FSType | int
    part_type: PartType | int
    arch: Arch | bytes

    @classmethod
    def parse(cls, extra: bytes) -> PartitionMeta:
        fields = PARTITION.read(extra)
        return cls(as_code(FSType, fields["FSType"]), as_code(PartType, fields["PartType"]), arch_from_bytes(fields["Arch"]))

    def pack_onto(self, extra: bytes) -> bytes:
        return _onto(PARTITION, extra, FSType=self.fs_type, PartType=self.part_type, Arch=arch_bytes(self.arch))

    @property
    def text(self) -> str:
        """Text as siftool prints it: ``Squashfs/*System/amd64``."""
        arch = self.arch.text if isinstance(self.arch, Arch) else Arch.UNKNOWN.text
        return f"{describe(self.fs_type)}/{describe(self.part_type)}/{arch}"


class SignatureMeta(NamedTuple):
    """Metadata of a signature: hash type, and the signer's OpenPGP v4 fingerprint, empty for signatures made with a PEM key.

    ``entity`` is without trailing NULs.
    """

    hash_type: HashType | int
    entity: bytes = b""

    @classmethod
    def parse(cls, extra: bytes) -> SignatureMeta:
        fields = SIGNATURE.read(extra)
        return cls(as_code(HashType, fields["HashType"]), fields["Entity"].rstrip(b"\0"))

    def pack_onto(self, extra: bytes) -> bytes:
        return _onto(SIGNATURE, extra, HashType=self.hash_type, Entity=self.entity[:_ENTITY_BYTES])

    @property
    def fingerprint(self) -> bytes:
        """Fingerprint of 20 bytes, or empty."""
        raw = self.entity[:FINGERPRINT_BYTES]
        return raw.ljust(FINGERPRINT_BYTES, b"\0") if any(raw) else b""

    @property
    def text(self) -> str:
        return describe(self.hash_type)


class CryptoMeta(NamedTuple):
    """Metadata of a cryptographic message: format and type."""

    format_type: FormatType | int
    message_type: MessageType | int

    @classmethod
    def parse(cls, extra: bytes) -> CryptoMeta:
        fields = CRYPTO.read(extra)
        return cls(as_code(FormatType, fields["FormatType"]), as_code(MessageType, fields["MessageType"]))

    def pack_onto(self, extra: bytes) -> bytes:
        return _onto(CRYPTO, extra, FormatType=self.format_type, MessageType=self.message_type)

    @property
    def text(self) -> str:
        return f"{describe(self.format_type)}/{describe(self.message_type)}"


class SBOMMeta(NamedTuple):
    """Metadata of a software bill of materials: its format."""

    sbom_format: SBOMFormat | int

    @classmethod
    def parse(cls, extra: bytes) -> SBOMMeta:
        return cls(as_code(SBOMFormat, SBOM.read(extra)["Format"]))

    def pack_onto(self, extra: bytes) -> bytes:
        return _onto(SBOM, extra, Format=self.sbom_format)

    @property
    def text(self) -> str:
        return describe(self.sbom_format)


class OCIMeta(NamedTuple):
    """Metadata of an OCI index or blob: ``sha256:`` and the hexadecimal digest of its data, computed while it is written."""

    digest: bytes

    @classmethod
    def parse(cls, extra: bytes) -> OCIMeta:
        return cls(OCI.read(extra)["Digest"].partition(b"\0")[0])

    def pack_onto(self, extra: bytes) -> bytes:
        return self.digest[:EXTRA_BYTES].ljust(EXTRA_BYTES, b"\0")

    @property
    def valid(self) -> bool:
        """True if the digest is a SHA-256 digest."""
        algorithm, _, digits = self.digest.partition(b":")
        return algorithm == b"sha256" and len(digits) == 64 and _HEX_DIGITS.issuperset(digits)

    @property
    def text(self) -> str:
        return ""


Metadata = PartitionMeta | SignatureMeta | CryptoMeta | SBOMMeta | OCIMeta

_KINDS: dict[int, type[Metadata]] = {
    DataType.PARTITION: PartitionMeta,
    DataType.SIGNATURE: SignatureMeta,
    DataType.CRYPTO_MESSAGE: CryptoMeta,
    DataType.SBOM: SBOMMeta,
    DataType.OCI_ROOT_INDEX: OCIMeta,
    DataType.OCI_BLOB: OCIMeta,
}


def metadata_kind(data_type: int) -> type[Metadata] | None:
    """Return the metadata class of a data type; None for types without metadata."""
    return _KINDS.get(data_type)


def parse_metadata(data_type: int, extra: bytes) -> Metadata | None:
    """Parse the Extra bytes of a descriptor; None for types without metadata."""
    kind = _KINDS.get(data_type)
    return kind.parse(extra.ljust(EXTRA_BYTES, b"\0")) if kind else None
