"""Group descriptors whose counts change, packed as they are now."""

from __future__ import annotations

from ..format.group_desc import Groups
from ..format.schema import GROUP_DESC

__all__ = ["pack_descriptors"]

COUNTS = ("bg_free_blocks_count", "bg_free_inodes_count", "bg_used_dirs_count")
"""Fields that change; all others are in ``Groups.raw`` as they were read or made."""


def pack_descriptors(groups: Groups, low: int = 0, high: int | None = None) -> bytes:
    """Return the descriptors of the groups from ``low`` to ``high`` - 1, end to end."""
    size = GROUP_DESC.size
    rows = bytearray(groups.raw[low * size : None if high is None else high * size])
    for field in COUNTS:
        at, end = GROUP_DESC.offset_of(field), GROUP_DESC.end_of(field)
        for place, count in zip(range(0, len(rows), size), groups[field][low:high], strict=True):
            rows[place + at : place + end] = count.to_bytes(end - at, "little")
    return bytes(rows)
