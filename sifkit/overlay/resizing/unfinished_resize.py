"""Resizes that were interrupted: the next opening for writing finishes them.

What they leave is harmless (blocks that belong to nobody, old copies of the superblock), and rare; the sign of it is looked
for without loading what finishes them.
"""

from __future__ import annotations

from contextlib import suppress

from ext3.constants import EXT3_MAGIC, STATE_ERROR, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ext3.device.base import BlockDevice
from ext3.errors import Ext3Error
from ext3.format.group_desc import read_groups
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import read_superblock

__all__ = ["finish_resize", "may_be_unfinished"]

_NUMBERS = (
    "s_blocks_count",
    "s_inodes_count",
    "s_reserved_gdt_blocks",
    "s_first_meta_bg",
    "s_feature_compat",
    "s_feature_incompat",
)
"""Fields of the first copy of the superblock that a resize changes last, and before anything else its mark."""


def finish_resize(device: BlockDevice) -> None:
    """Finish a resize of the filesystem on a device that was interrupted, if there is one and nothing else is wrong.

    Raises OSError of the device; other trouble is left to whoever opens the filesystem next.
    """
    with suppress(Ext3Error):
        if may_be_unfinished(device):
            from ext3.resize.unfinished import finish

            finish(device)


def may_be_unfinished(device: BlockDevice) -> bool:
    """Return True if the first copy of the superblock is marked or has other numbers than the primary one.

    Of a filesystem of one group, which has no copy: if the superblock counts more blocks as free than the group does, or may
    do so once the journal is replayed. Raises Ext3Error.
    """
    superblock = read_superblock(device)
    geometry, size = superblock.geometry, superblock.block_size
    if not geometry.backup_groups:
        (free_blocks,) = read_groups(device, superblock)["bg_free_blocks_count"]
        if superblock.needs_recovery or superblock.free_blocks > free_blocks:
            return True
    offset = (geometry.first_data_block + geometry.blocks_per_group) * size
    if not geometry.has_super(1) or offset + SUPERBLOCK_SIZE > device.size:
        return False
    copy, primary = (SUPERBLOCK.record(device.read(at, SUPERBLOCK_SIZE)) for at in (offset, SUPERBLOCK_OFFSET))
    if copy["s_magic"] != EXT3_MAGIC:
        return False
    return bool(copy["s_state"] & STATE_ERROR) or any(copy[name] != primary[name] for name in _NUMBERS)
