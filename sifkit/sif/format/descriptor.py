"""Descriptors: 585-byte records of the table, one for each data object."""

from __future__ import annotations

from typing import Any, NamedTuple

from .metadata import EXTRA_BYTES, Metadata, PartitionMeta, parse_metadata
from .schema import DESCRIPTOR
from .types import Arch, DataType, FSType, PartType, as_code, describe

__all__ = ["DESCRIPTOR_BYTES", "EMPTY_SLOT", "MAX_GROUP", "NAME_BYTES", "Descriptor", "join_group", "join_link"]

DESCRIPTOR_BYTES = DESCRIPTOR.size
EMPTY_SLOT = bytes(DESCRIPTOR_BYTES)
NAME_BYTES = 128
"""Size of the name field, which need not be NUL-terminated."""
GROUP_MASK = 0xF0000000
"""Mask of group numbers on disk, in the group field and in links to a group; alone it means no group."""
MAX_GROUP = 0x0FFFFFFF
USED_OFFSET = DESCRIPTOR.offset_of("Used")
"""Offset of the byte that marks a descriptor as used."""
_FIELDS = {
    "group_id": "GroupID",
    "linked_id": "LinkedID",
    "offset": "Offset",
    "size": "Size",
    "size_with_padding": "SizeWithPadding",
    "created": "CreatedAt",
    "modified": "ModifiedAt",
    "uid": "UID",
    "gid": "GID",
}


class Descriptor(NamedTuple):
    """Descriptor of a data object. ``offset`` and sizes are in bytes, from the start of the image; times are Unix seconds.

    ``group_id`` and ``linked_id`` are as on disk, with the mask; ``group``, ``link`` and ``link_group`` are decoded. ``name``
    and ``extra`` are without trailing NULs. ``slot`` is the index in the table, from 0.
    """

    data_type: DataType | int
    id: int
    offset: int
    size: int
    size_with_padding: int
    created: int
    modified: int
    group_id: int = GROUP_MASK
    linked_id: int = 0
    uid: int = 0
    gid: int = 0
    name: bytes = b""
    extra: bytes = b""
    slot: int = -1

    # the slot says where a descriptor is, not what it says

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descriptor) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:-1])

    @classmethod
    def parse(cls, raw: bytes | memoryview, offset: int = 0, *, slot: int = -1) -> Descriptor | None:
        """Parse the descriptor at byte ``offset`` of ``raw``, without checks; None if it is unused."""
        if not raw[offset + USED_OFFSET]:
            return None
        fields: dict[str, Any] = DESCRIPTOR.read(raw, offset)
        return cls(
            data_type=as_code(DataType, fields["DataType"]),
            id=fields["ID"],
            name=fields["Name"].rstrip(b"\0"),
            extra=fields["Extra"].rstrip(b"\0"),
            slot=slot,
            **{name: fields[column] for name, column in _FIELDS.items()},
        )

    def pack(self) -> bytes:
        """Return the 585 bytes on disk."""
        return DESCRIPTOR.build(
            {
                "DataType": self.data_type,
                "Used": 1,
                "ID": self.id,
                "Name": self.name,
                "Extra": self.extra,
                **{column: getattr(self, name) for name, column in _FIELDS.items()},
            }
        )

    @property
    def end(self) -> int:
        """First byte after the object."""
        return self.offset + self.size

    @property
    def group(self) -> int:
        """Group number, 0 for none. Readers ignore the upper four bits."""
        return self.group_id & MAX_GROUP

    @property
    def link(self) -> int:
        """ID of the linked object, 0 for none. With all upper four bits set the link is to a group."""
        return 0 if self._links_group else self.linked_id & MAX_GROUP

    @property
    def link_group(self) -> int:
        """Number of the linked group, 0 for none."""
        return self.linked_id & MAX_GROUP if self._links_group else 0

    @property
    def _links_group(self) -> bool:
        return self.linked_id & GROUP_MASK == GROUP_MASK

    @property
    def metadata(self) -> Metadata | None:
        """Metadata in the Extra bytes; None for types without metadata."""
        return parse_metadata(self.data_type, self.extra)

    @property
    def partition(self) -> PartitionMeta | None:
        """Metadata of a partition; None for other types."""
        if self.data_type != DataType.PARTITION:
            return None
        return PartitionMeta.parse(self.extra.ljust(EXTRA_BYTES, b"\0"))

    @property
    def fs_type(self) -> FSType | int | None:
        """Declared filesystem of a partition."""
        return self.partition.fs_type if self.partition else None

    @property
    def part_type(self) -> PartType | int | None:
        return self.partition.part_type if self.partition else None

    @property
    def arch(self) -> Arch | bytes | None:
        return self.partition.arch if self.partition else None

    @property
    def type_text(self) -> str:
        """Type and metadata as siftool prints them: ``FS (Squashfs/*System/amd64)``."""
        metadata = self.metadata
        detail = metadata.text if metadata else ""
        return describe(self.data_type) + (f" ({detail})" if detail else "")


def join_group(group: int) -> int:
    """Encode a group number (0: none) as on disk."""
    return GROUP_MASK | group


def join_link(link: int, link_group: int) -> int:
    """Encode a link to an object or to a group (at most one is not 0) as on disk."""
    return GROUP_MASK | link_group if link_group else link
