"""Resizes that were interrupted near their end: the next opening for writing finishes them.

What they leave is harmless (blocks that belong to nobody, old copies of the superblock), and rare; the sign of it is looked
for without loading what finishes them.
"""

from __future__ import annotations

from contextlib import suppress

from ext3.constants import EXT3_MAGIC, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ext3.device.base import BlockDevice
from ext3.errors import Ext3Error
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
"""Fields of the first copy of the superblock that a resize changes last."""


def finish_resize(device: BlockDevice) -> None:
    """Finish a resize of the filesystem on a device that was interrupted, if there is one and nothing else is wrong.

    Raises OSError of the device; other trouble is left to whoever opens the filesystem next.
    """
    with suppress(Ext3Error):
        if may_be_unfinished(device):
            from ext3.resize.unfinished import finish

            finish(device)


def may_be_unfinished(device: BlockDevice) -> bool:
    """Return True if the first copy of the superblock has other numbers than the primary one. Raises Ext3Error."""
    superblock = read_superblock(device)
    geometry, size = superblock.geometry, superblock.block_size
    offset = (geometry.first_data_block + geometry.blocks_per_group) * size
    if not geometry.has_super(1) or offset + SUPERBLOCK_SIZE > device.size:
        return False
    copy, primary = (SUPERBLOCK.view(device.read(at, SUPERBLOCK_SIZE))[0] for at in (offset, SUPERBLOCK_OFFSET))
    return int(copy["s_magic"]) == EXT3_MAGIC and any(copy[name] != primary[name] for name in _NUMBERS)
