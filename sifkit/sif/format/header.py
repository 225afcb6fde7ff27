"""The global header: the first 128 bytes of a SIF file."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ...errors import show
from ..errors import CorruptSIFError, NotSIFError
from .schema import DESCRIPTOR, GLOBAL_HEADER
from .types import Arch, arch_bytes, arch_from_bytes

__all__ = ["HEADER_BYTES", "MAGIC", "MAX_LAUNCH_BYTES", "NIL_UUID", "VERSION", "YEAR_ONE", "GlobalHeader"]

HEADER_BYTES = GLOBAL_HEADER.size
MAGIC = b"SIF_MAGIC\0"
VERSION = b"01\0"
"""The only version there is."""
MAX_LAUNCH_BYTES = 31
"""The launch script's field is 32 bytes, and readers want a NUL at its end."""
YEAR_ONE = -62135596800
"""The first second of year 1: the time of deterministic images, which the reference library writes instead of none."""
NIL_UUID = UUID(int=0)
_FIELDS = {
    "created": "CreatedAt",
    "modified": "ModifiedAt",
    "descriptors_free": "DescriptorsFree",
    "descriptors_total": "DescriptorsTotal",
    "descriptors_offset": "DescriptorsOffset",
    "descriptors_size": "DescriptorsSize",
    "data_offset": "DataOffset",
    "data_size": "DataSize",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalHeader:
    """Offsets and sizes are bytes from the image's start, times Unix seconds, counts are of descriptors.

    ``launch`` is without the NULs at its end; ``arch`` is that of the primary system partition (three raw bytes where they
    name no architecture we know).
    """

    launch: bytes
    arch: Arch | bytes
    id: UUID
    created: int
    modified: int
    descriptors_free: int
    descriptors_total: int
    descriptors_offset: int
    descriptors_size: int
    data_offset: int
    data_size: int

    @classmethod
    def parse(cls, raw: bytes) -> GlobalHeader:
        """The header in the first 128 bytes of ``raw``. Raises NotSIFError, and CorruptSIFError where it is cut short.

        Only magic and version are looked at; what the numbers may be is ``state.check_header``'s to say.
        """
        if MAGIC not in raw[:64]:
            raise NotSIFError(
                "not a SIF image: no SIF_MAGIC at byte 32", hint="stand-alone ext3 images are for: sifkit overlay"
            )
        if len(raw) < HEADER_BYTES:
            raise CorruptSIFError("global header", "length", f"{len(raw)} bytes", f"{HEADER_BYTES} bytes")
        fields = GLOBAL_HEADER.read(raw)
        if fields["Magic"] != MAGIC:
            raise NotSIFError("not a SIF image: SIF_MAGIC is not at byte 32", hint="get the image again, or build it anew")
        if fields["Version"] != VERSION:
            version = show(fields["Version"].rstrip(b"\0"))
            raise NotSIFError(f"SIF version '{version}', and only version '01' is known", hint="use a newer sifkit")
        return cls(
            launch=fields["LaunchScript"].rstrip(b"\0"),
            arch=arch_from_bytes(fields["Arch"]),
            id=UUID(bytes=fields["ID"]),
            **{name: fields[field] for name, field in _FIELDS.items()},
        )

    def pack(self) -> bytes:
        """The 128 bytes on disk."""
        return GLOBAL_HEADER.build(
            {
                "LaunchScript": self.launch,
                "Magic": MAGIC,
                "Version": VERSION,
                "Arch": arch_bytes(self.arch),
                "ID": self.id.bytes,
                **{field: getattr(self, name) for name, field in _FIELDS.items()},
            }
        )

    @property
    def deterministic(self) -> bool:
        """Whether the image has neither identity nor times; the reference library keeps such images so, and so do we."""
        return self.id == NIL_UUID and self.created == self.modified == YEAR_ONE

    @property
    def table_bytes(self) -> int:
        return self.descriptors_total * DESCRIPTOR.size

    @property
    def table_end(self) -> int:
        """The first byte behind the descriptors (not what ``descriptors_size`` says: some files say more)."""
        return self.descriptors_offset + self.table_bytes

    @property
    def table_in_data(self) -> bool:
        """Whether the table lies among the data: while descriptors are changed, and after such a change was interrupted."""
        return self.descriptors_offset >= self.data_offset
