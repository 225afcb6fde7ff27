"""Group descriptors: where the bitmaps and inode tables of the groups lie, and what is free. As numpy: ``group_desc_columns``.

Source: Linux ``fs/ext4/super.c`` and ``balloc.c``. All block numbers count from the start of the device; groups count
from 0.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from ..device.base import BlockDevice
from ..errors import CorruptError
from .schema import GROUP_DESC

if TYPE_CHECKING:
    from .layout_columns import Table
    from .superblock import Superblock

__all__ = ["LOCATIONS", "Groups", "metadata_block", "read_descriptors", "read_groups"]

LOCATIONS = ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table")
"""Fields of a descriptor that name a block."""


class Groups:
    """Group descriptors of a filesystem. ``groups[field][group]`` is a number, as in a numpy table of GROUP_DESC.

    A field is decoded, for all groups at once, when it is first used. ``raw``: the descriptors as they were read.
    """

    def __init__(self, raw: bytes, count: int) -> None:
        self.raw = raw[: count * GROUP_DESC.size]
        self._columns: dict[str, array[int]] = {}

    def __len__(self) -> int:
        return len(self.raw) // GROUP_DESC.size

    def __getitem__(self, field: str) -> array[int]:
        found = self._columns.get(field)
        if found is None:
            at = GROUP_DESC.offset_of(field)
            size = GROUP_DESC.end_of(field) - at
            found = self._columns[field] = array({2: "H", 4: "I"}[size], self.raw)[at // size :: GROUP_DESC.size // size]
            if sys.byteorder == "big":
                found.byteswap()
        return found


def read_groups(device: BlockDevice, superblock: Superblock) -> Groups:
    """Return the descriptors of all groups. Raises CorruptError if they leave the filesystem."""
    return Groups(read_descriptors(device, superblock), superblock.groups_count)


def read_descriptors(device: BlockDevice, superblock: Superblock, *, copy: int = 0) -> bytes:
    """Return the blocks of the descriptors, end to end. ``copy``: the group whose backup is read.

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
    return b"".join(pieces)


def metadata_block(superblock: Superblock, groups: Groups | Table, group: int, field: str, count: int = 1) -> int:
    """Return the block a descriptor's ``field`` names. Raises CorruptError unless ``count`` blocks from there are in bounds."""
    geometry = superblock.geometry
    block = int(groups[field][group])
    first = max(1, geometry.first_data_block)  # block 0 has the superblock, and stands for none
    if not first <= block <= geometry.blocks - count:
        want = f"from {first} to {geometry.blocks - count}"
        raise CorruptError(f"group {group}", field, block, want)
    return block
