"""Sign of a resize that was interrupted: the first backup of the superblock is marked (``backup_copies``), or has other numbers
than the primary one. ``unfinished`` finishes it."""

from __future__ import annotations

from ..constants import EXT3_MAGIC, STATE_ERROR, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..errors import Ext3Error
from ..format.geometry import Geometry
from ..format.schema import SUPERBLOCK
from ..format.superblock import Superblock, parse_superblock

__all__ = ["is_unfinished", "unfinished_geometry"]

_FIELDS = ("s_blocks_count", "s_inodes_count", "s_reserved_gdt_blocks", "s_first_meta_bg")


def is_unfinished(device: BlockDevice, superblock: Superblock) -> bool:
    """Return whether the first backup says that a resize of the filesystem was interrupted. Raises DeviceError."""
    return unfinished_geometry(device, superblock) is not None


def unfinished_geometry(device: BlockDevice, superblock: Superblock) -> Geometry | None:
    """Return the geometry in the first backup, if the backup is of this filesystem, and marked or of another geometry."""
    geometry, size = superblock.geometry, superblock.block_size
    if not geometry.has_super(1):
        return None
    offset = (geometry.first_data_block + geometry.blocks_per_group) * size
    if offset + SUPERBLOCK_SIZE > device.size:
        return None
    raw, own = device.read(offset, SUPERBLOCK_SIZE), device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)
    copy, primary = SUPERBLOCK.record(raw), SUPERBLOCK.record(own)
    if copy["s_magic"] != EXT3_MAGIC or copy["s_uuid"] != primary["s_uuid"] or copy["s_block_group_nr"] != 1:
        return None
    try:
        found = parse_superblock(raw, device_size=1 << 63).geometry
    except Ext3Error:
        return None
    same = not copy["s_state"] & STATE_ERROR and all(copy[name] == primary[name] for name in _FIELDS)
    if same and found.resize_inode == geometry.resize_inode and found.first_meta_bg == geometry.first_meta_bg:
        return None
    shape = ("block_size", "first_data_block", "blocks_per_group", "inodes_per_group", "inode_size", "sparse_super")
    if geometry.groups == 1 and any(getattr(found, name) != getattr(geometry, name) for name in shape):
        return None  # left behind by an older filesystem
    return found
