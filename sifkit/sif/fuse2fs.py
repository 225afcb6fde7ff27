"""Superblock fields that fuse2fs writes to the wrong place of a SIF image.

fuse2fs mounts an overlay partition at its offset, but it writes changed fields of the superblock at byte 1024 of the file, as
if the partition began at byte 0 (seen with fuse2fs 1.47, as Apptainer runs it for users without root). There they lie between
the header and the descriptor table, where they harm nothing.
"""

from __future__ import annotations

from .store import Store

__all__ = ["is_misplaced_superblock"]

_SUPERBLOCK = 1024
"""Offset of the superblock in a filesystem, in bytes; also its size."""
_FIELDS = (
    (0x0C, 8),  # free blocks, free inodes
    (0x2C, 10),  # mount time, write time, mount count
    (0x3A, 2),  # state
    (0x40, 4),  # last check
    (0x60, 4),  # incompat features, for needs_recovery
    (0x88, 64),  # last mount point
    (0xE8, 4),  # first orphan
    (0x158, 4),  # free blocks, high half
    (0x178, 8),  # KiB written
    (0x194, 108),  # errors
)
"""Offset and size of the fields that change while a filesystem is in use, in bytes."""


def is_misplaced_superblock(store: Store, offset: int, size: int) -> bool:
    """True if a range of the file holds nothing but zeros and the fields that fuse2fs writes there."""
    if offset > _SUPERBLOCK or not 2 * _SUPERBLOCK <= offset + size <= 1 << 16:
        return False
    found = bytearray(store.read_some(offset, size))
    for start, length in _FIELDS:
        at = _SUPERBLOCK + start - offset
        found[at : at + length] = bytes(length)
    return not any(found)
