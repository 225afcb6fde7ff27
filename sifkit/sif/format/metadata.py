"""What a descriptor tells about its kind of object: the start of its 384 Extra bytes, as one value per data type.

Codes that are not known are plain integers. Writing a value back (``pack_onto``) keeps the Extra bytes behind it as they were.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from .schema import CRYPTO, OCI, PARTITION, SBOM, SIGNATURE, Layout
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
    describe,
    known,
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
"""An OpenPGP v4 fingerprint, at the start of a signature's 256-byte entity."""
_ENTITY_BYTES = 256
_HEX_DIGITS = set(string.digits.encode() + b"abcdef")


def _onto(layout: Layout, extra: bytes, **values: object) -> bytes:
    return layout.build(values) + extra.ljust(EXTRA_BYTES, b"\0")[layout.size :]


@dataclass(frozen=True, slots=True)
class PartitionMeta:
    """A partition: the filesystem it is declared to hold, what it is for, and for which processors."""

    fs_type: FSType | int
    part_type: PartType | int
    arch: Arch | bytes

    @classmethod
    def parse(cls, extra: bytes) -> PartitionMeta:
        fields = PARTITION.read(extra)
        return cls(known(FSType, fields["FSType"]), known(PartType, fields["PartType"]), arch_from_bytes(fields["Arch"]))

    def pack_onto(self, extra: bytes) -> bytes:
        return _onto(PARTITION, extra, FSType=self.fs_type, PartType=self.part_type, Arch=arch_bytes(self.arch))

    @property
    def text(self) -> str:
        """As siftool's table has it: ``Squashfs/*System/amd64``."""
        arch = self.arch.text if isinstance(self.arch, Arch) else Arch.UNKNOWN.text
        return f"{describe(self.fs_type)}/{describe(self.part_type)}/{arch}"


@dataclass(frozen=True, slots=True)
class SignatureMeta:
    """A signature: its hash and who signed, an OpenPGP v4 fingerprint, or nothing for signatures made with a PEM key.

    ``entity`` is without the NULs at its end.
    """

    hash_type: HashType | int
    entity: bytes = b""

    @classmethod
    def parse(cls, extra: bytes) -> SignatureMeta:
        fields = SIGNATURE.read(extra)
        return cls(known(HashType, fields["HashType"]), fields["Entity"].rstrip(b"\0"))

    def pack_onto(self, extra: bytes) -> bytes:
        return _onto(SIGNATURE, extra, HashType=self.hash_type, Entity=self.entity[:_ENTITY_BYTES])

    @property
    def fingerprint(self) -> bytes:
        """20 bytes, or none."""
        raw = self.entity[:FINGERPRINT_BYTES]
        return raw.ljust(FINGERPRINT_BYTES, b"\0") if any(raw) else b""

    @property
    def text(self) -> str:
        return describe(self.hash_type)


@dataclass(frozen=True, slots=True)
class CryptoMeta:
    """A cryptographic message: how it is packed and what it is."""

    format_type: FormatType | int
    message_type: MessageType | int

    @classmethod
    def parse(cls, extra: bytes) -> CryptoMeta:
        fields = CRYPTO.read(extra)
        return cls(known(FormatType, fields["FormatType"]), known(MessageType, fields["MessageType"]))

    def pack_onto(self, extra: bytes) -> bytes:
        return _onto(CRYPTO, extra, FormatType=self.format_type, MessageType=self.message_type)

    @property
    def text(self) -> str:
        return f"{describe(self.format_type)}/{describe(self.message_type)}"


@dataclass(frozen=True, slots=True)
class SBOMMeta:
    """A software bill of materials: its format."""

    sbom_format: SBOMFormat | int

    @classmethod
    def parse(cls, extra: bytes) -> SBOMMeta:
        return cls(known(SBOMFormat, SBOM.read(extra)["Format"]))

    def pack_onto(self, extra: bytes) -> bytes:
        return _onto(SBOM, extra, Format=self.sbom_format)

    @property
    def text(self) -> str:
        return describe(self.sbom_format)


@dataclass(frozen=True, slots=True)
class OCIMeta:
    """An OCI index or blob: ``sha256:`` and the hexadecimal digest of its data, made while the data is written."""

    digest: bytes

    @classmethod
    def parse(cls, extra: bytes) -> OCIMeta:
        return cls(OCI.read(extra)["Digest"].partition(b"\0")[0])

    def pack_onto(self, extra: bytes) -> bytes:
        return self.digest[:EXTRA_BYTES].ljust(EXTRA_BYTES, b"\0")

    @property
    def valid(self) -> bool:
        """Whether the digest reads as one of SHA-256."""
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
    """The class that tells about objects of this type; None for types without metadata."""
    return _KINDS.get(data_type)


def parse_metadata(data_type: int, extra: bytes) -> Metadata | None:
    """What the Extra bytes of a descriptor say, None for types without metadata."""
    kind = _KINDS.get(data_type)
    return kind.parse(extra.ljust(EXTRA_BYTES, b"\0")) if kind else None
