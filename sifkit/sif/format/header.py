"""Global header: the first 128 bytes of a SIF file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...errors import show
from ..errors import CorruptSIFError, NotSIFError
from .schema import DESCRIPTOR, GLOBAL_HEADER
from .types import Arch, arch_bytes, arch_from_bytes

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["HEADER_BYTES", "MAGIC", "MAX_LAUNCH_BYTES", "NIL_ID", "VERSION", "YEAR_ONE", "GlobalHeader"]

HEADER_BYTES = GLOBAL_HEADER.size
MAGIC = b"SIF_MAGIC\0"
VERSION = b"01\0"
"""Only version of the format."""
MAX_LAUNCH_BYTES = 31
"""Limit of the launch script: its field has 32 bytes, and readers expect a NUL at the end."""
YEAR_ONE = -62135596800
"""First second of year 1: the reference library writes it for no time, in deterministic images."""
NIL_ID = bytes(16)
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


class GlobalHeader(NamedTuple):
    """Global header. Offsets and sizes are in bytes from the start of the image, times are Unix seconds.

    ``launch`` is without trailing NULs. ``arch`` is that of the primary system partition, three raw bytes if it is unknown.
    """

    launch: bytes
    arch: Arch | bytes
    id_bytes: bytes
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
        """Parse the first 128 bytes of ``raw``. Raises NotSIFError, and CorruptSIFError if it is truncated.

        Only magic and version are checked; ``state.check_header`` checks the numbers.
        """
        if MAGIC not in raw[:64]:
            raise NotSIFError("not a SIF image: no SIF_MAGIC at byte 32", hint="for ext3 images use: sifkit overlay")
        if len(raw) < HEADER_BYTES:
            raise CorruptSIFError("global header", "length", f"{len(raw)} bytes", f"{HEADER_BYTES} bytes")
        fields = GLOBAL_HEADER.read(raw)
        if fields["Magic"] != MAGIC:
            raise NotSIFError("not a SIF image: SIF_MAGIC is not at byte 32", hint="download or build the image again")
        if fields["Version"] != VERSION:
            version = show(fields["Version"].rstrip(b"\0"))
            raise NotSIFError(f"SIF version '{version}' is unknown, only version '01' is supported", hint="use a newer sifkit")
        return cls(
            launch=fields["LaunchScript"].rstrip(b"\0"),
            arch=arch_from_bytes(fields["Arch"]),
            id_bytes=fields["ID"],
            **{name: fields[field] for name, field in _FIELDS.items()},
        )

    def pack(self) -> bytes:
        """Return the 128 bytes on disk."""
        return GLOBAL_HEADER.build(
            {
                "LaunchScript": self.launch,
                "Magic": MAGIC,
                "Version": VERSION,
                "Arch": arch_bytes(self.arch),
                "ID": self.id_bytes,
                **{field: getattr(self, name) for name, field in _FIELDS.items()},
            }
        )

    @property
    def id(self) -> UUID:
        from uuid import UUID  # it takes 3 ms to load

        return UUID(bytes=self.id_bytes)

    @property
    def deterministic(self) -> bool:
        """True if the image has neither ID nor times. Edits preserve that, as the reference library does."""
        return self.id_bytes == NIL_ID and self.created == self.modified == YEAR_ONE

    @property
    def table_bytes(self) -> int:
        return self.descriptors_total * DESCRIPTOR.size

    @property
    def table_end(self) -> int:
        """First byte after the descriptors; in some files ``descriptors_size`` is larger."""
        return self.descriptors_offset + self.table_bytes

    @property
    def table_in_data(self) -> bool:
        """True if the table is in the data area: during an edit of descriptors, and after an interrupted one."""
        return self.descriptors_offset >= self.data_offset
