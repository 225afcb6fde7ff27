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

__all__ = ["LOCATIONS", "group_ranges_overlap", "metadata_block", "outside_group", "read_bitmap", "read_groups"]

LOCATIONS = ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table")
"""Fields of a descriptor that name a block."""
Flags = npt.NDArray[np.bool_]


def read_groups(device: BlockDevice, superblock: Superblock, *, copy: int = 0) -> Table:
    """Return the descriptors of all groups: GROUP_DESC rows, shape (groups,). ``copy``: the group whose backup is read.

    Raises CorruptError if they leave the filesystem.
    """
    geometry, size = superblock.geometry, superblock.block_size
    leading = geometry.leading_descriptor_blocks
    first = geometry.descriptor_block(0, copy)
    if leading and first + leading > superblock.blocks_count:
        raise CorruptError("group descriptors", "last block", first + leading - 1, f"< {superblock.blocks_count}")
    pieces = [device.read(first * size, leading * size)] if leading else []
    for index in range(leading, geometry.descriptor_blocks):
        block = geometry.descriptor_block(index, copy)
        if block >= superblock.blocks_count:
            raise CorruptError("group descriptors", f"block {index}", block, f"< {superblock.blocks_count}")
        pieces.append(device.read(block * size, size))
    return GROUP_DESC.view(b"".join(pieces), superblock.groups_count)


def outside_group(superblock: Superblock, groups: Table, field: str) -> Flags:
    """Return for which groups ``field``, one of LOCATIONS, names a block outside of the group, where it must lie."""
    geometry = superblock.geometry
    count = geometry.inode_table_blocks if field == "bg_inode_table" else 1
    place = groups[field].astype(np.int64)
    found: Flags = (place < geometry.group_first) | (place + count > geometry.group_first + geometry.group_blocks)
    return found


def group_ranges_overlap(superblock: Superblock, groups: Table) -> bool:
    """Return whether metadata of groups, all of it inside its group, overlaps other metadata."""
    geometry = superblock.geometry
    tables = np.full(geometry.groups, geometry.inode_table_blocks, np.int64)
    ones = np.ones(geometry.groups, np.int64)
    first = np.concatenate([geometry.group_first, *(groups[field].astype(np.int64) for field in LOCATIONS)])
    count = np.concatenate([geometry.head_blocks, ones, ones, tables])
    first, count = first[count > 0], count[count > 0]
    order = np.argsort(first, kind="stable")
    first, count = first[order], count[order]
    return bool((first[:-1] + count[:-1] > first[1:]).any())


def metadata_block(superblock: Superblock, groups: Table, group: int, field: str, count: int = 1) -> int:
    """Return the block a descriptor's ``field`` names. Raises CorruptError unless ``count`` blocks from there are in bounds."""
    geometry = superblock.geometry
    block = int(groups[field][group])
    first = max(1, geometry.first_data_block)  # block 0 has the superblock, and stands for none
    if not first <= block <= geometry.blocks - count:
        want = f"from {first} to {geometry.blocks - count}"
        raise CorruptError(f"group {group}", field, block, want)
    return block


def read_bitmap(device: BlockDevice, superblock: Superblock, groups: Table, group: int, field: str) -> npt.NDArray[np.bool_]:
    """Return a bitmap (``bg_block_bitmap`` or ``bg_inode_bitmap``) of a group: bool, shape (8 * block_size,), True = used.

    Bit 0 is the group's first block or inode; bits behind its last are padding, which should be set.
    """
    block = metadata_block(superblock, groups, group, field)
    raw = device.read(block * superblock.block_size, superblock.block_size)
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").astype(np.bool_)
