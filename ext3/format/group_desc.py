"""Group descriptors and bitmaps: where they lie, read as tables.

Source: Linux ``fs/ext4/super.c`` (descriptor_loc) and ``balloc.c``; e2fsprogs ``lib/ext2fs/closefs.c``. All block numbers
count from the start of the device; groups count from 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import Compat, Incompat, RoCompat
from ..device.base import BlockDevice
from ..errors import CorruptError
from .geometry import Geometry
from .layout import Table
from .schema import GROUP_DESC
from .superblock import Superblock

__all__ = ["descriptor_block", "geometry_of", "has_super", "metadata_block", "read_bitmap", "read_groups"]


def has_super(superblock: Superblock, group: int) -> bool:
    """Whether a group begins with a copy of the superblock."""
    if group <= 1 or not superblock.ro_compat & RoCompat.SPARSE_SUPER:
        return True
    return any(_is_power_of(group, base) for base in (3, 5, 7))


def _is_power_of(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def descriptor_block(superblock: Superblock, index: int) -> int:
    """The block that holds descriptor block ``index`` (0 = groups 0 to block_size / 32 - 1).

    Behind the superblock, all in a row; under meta_bg from s_first_meta_bg on each lies in the first group it describes.
    """
    if not superblock.incompat & Incompat.META_BG or index < superblock.first_meta_bg:
        return superblock.first_data_block + 1 + index
    group = index * superblock.descriptors_per_block
    return superblock.first_data_block + group * superblock.blocks_per_group + has_super(superblock, group)


def read_groups(device: BlockDevice, superblock: Superblock) -> Table:
    """The descriptors of all groups: GROUP_DESC rows, shape (groups,). CorruptError where they would leave the filesystem."""
    size = superblock.block_size
    count = -(-superblock.groups_count // superblock.descriptors_per_block)
    in_a_row = count
    if superblock.incompat & Incompat.META_BG:
        in_a_row = min(count, superblock.first_meta_bg)
    last = superblock.first_data_block + in_a_row
    if last >= superblock.blocks_count:
        raise CorruptError("group descriptors", "last block", last, f"< {superblock.blocks_count}")
    pieces = [device.read((superblock.first_data_block + 1) * size, in_a_row * size)] if in_a_row else []
    for index in range(in_a_row, count):
        block = descriptor_block(superblock, index)
        if block >= superblock.blocks_count:
            raise CorruptError("group descriptors", f"block {index}", block, f"< {superblock.blocks_count}")
        pieces.append(device.read(block * size, size))
    return GROUP_DESC.view(b"".join(pieces), superblock.groups_count)


def metadata_block(superblock: Superblock, groups: Table, group: int, field: str, count: int = 1) -> int:
    """The block a descriptor's ``field`` names, if ``count`` blocks from there are in the filesystem; else CorruptError."""
    block = int(groups[field][group])
    if not superblock.first_data_block <= block <= superblock.blocks_count - count:
        want = f"from {superblock.first_data_block} to {superblock.blocks_count - count}"
        raise CorruptError(f"group {group}", field, block, want)
    return block


def read_bitmap(device: BlockDevice, superblock: Superblock, groups: Table, group: int, field: str) -> npt.NDArray[np.bool_]:
    """One bitmap block (``bg_block_bitmap`` or ``bg_inode_bitmap``) of a group: bool, shape (8 * block_size,), True = used.

    Bit 0 is the group's first block or inode; bits behind its last are padding, which should be set.
    """
    block = metadata_block(superblock, groups, group, field)
    raw = device.read(block * superblock.block_size, superblock.block_size)
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").astype(np.bool_)


def geometry_of(superblock: Superblock) -> Geometry:
    """The numbers as a Geometry. Where it says that metadata lies holds for fresh images without meta_bg."""
    return Geometry(
        block_size=superblock.block_size,
        blocks=superblock.blocks_count,
        first_data_block=superblock.first_data_block,
        blocks_per_group=superblock.blocks_per_group,
        inodes_per_group=superblock.inodes_per_group,
        inode_size=superblock.inode_size,
        reserved_gdt_blocks=superblock.reserved_gdt_blocks,
        reserved_blocks=superblock.reserved_blocks,
        resize_inode=bool(superblock.compat & Compat.RESIZE_INODE),
        sparse_super=bool(superblock.ro_compat & RoCompat.SPARSE_SUPER),
    )
