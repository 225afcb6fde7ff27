"""Group descriptors, and the bitmaps they locate, as tables.

Source: Linux ``fs/ext4/super.c`` and ``balloc.c``. All block numbers count from the start of the device; groups count
from 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..device.base import BlockDevice
from ..errors import CorruptError
from .layout import Table
from .schema import GROUP_DESC

if TYPE_CHECKING:
    from .superblock import Superblock

__all__ = ["metadata_block", "read_bitmap", "read_groups"]


def read_groups(device: BlockDevice, superblock: Superblock) -> Table:
    """Return the descriptors of all groups: GROUP_DESC rows, shape (groups,).

    Raises CorruptError if they leave the filesystem.
    """
    geometry, size = superblock.geometry, superblock.block_size
    leading = geometry.leading_descriptor_blocks
    last = superblock.first_data_block + leading
    if last >= superblock.blocks_count:
        raise CorruptError("group descriptors", "last block", last, f"< {superblock.blocks_count}")
    pieces = [device.read(geometry.descriptor_block(0) * size, leading * size)] if leading else []
    for index in range(leading, geometry.descriptor_blocks):
        block = geometry.descriptor_block(index)
        if block >= superblock.blocks_count:
            raise CorruptError("group descriptors", f"block {index}", block, f"< {superblock.blocks_count}")
        pieces.append(device.read(block * size, size))
    return GROUP_DESC.view(b"".join(pieces), superblock.groups_count)


def metadata_block(superblock: Superblock, groups: Table, group: int, field: str, count: int = 1) -> int:
    """Return the block a descriptor's ``field`` names. Raises CorruptError unless ``count`` blocks from there are in bounds."""
    geometry = superblock.geometry
    block = int(groups[field][group])
    if not geometry.first_data_block <= block <= geometry.blocks - count:
        want = f"from {geometry.first_data_block} to {geometry.blocks - count}"
        raise CorruptError(f"group {group}", field, block, want)
    return block


def read_bitmap(device: BlockDevice, superblock: Superblock, groups: Table, group: int, field: str) -> npt.NDArray[np.bool_]:
    """Return a bitmap (``bg_block_bitmap`` or ``bg_inode_bitmap``) of a group: bool, shape (8 * block_size,), True = used.

    Bit 0 is the group's first block or inode; bits behind its last are padding, which should be set.
    """
    block = metadata_block(superblock, groups, group, field)
    raw = device.read(block * superblock.block_size, superblock.block_size)
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").astype(np.bool_)
