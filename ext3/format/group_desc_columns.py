"""Group descriptor columns: the descriptors of all groups as a numpy table, judged together. One group: see ``group_desc``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..device.base import BlockDevice
from .group_desc import LOCATIONS, Groups, metadata_block, read_descriptors
from .layout_columns import Table
from .schema import GROUP_DESC

if TYPE_CHECKING:
    from .superblock import Superblock

__all__ = ["group_ranges_overlap", "group_table", "outside_group", "read_bitmap", "read_group_columns"]

Flags = npt.NDArray[np.bool_]


def read_group_columns(device: BlockDevice, superblock: Superblock, *, copy: int = 0) -> Table:
    """Return the descriptors of all groups: GROUP_DESC rows, shape (groups,). ``copy``: the group whose backup is read.

    Raises CorruptError if they leave the filesystem.
    """
    return GROUP_DESC.view(read_descriptors(device, superblock, copy=copy), superblock.groups_count)


def group_table(groups: Groups) -> Table:
    """Return descriptors as GROUP_DESC rows, shape (groups,), without a copy."""
    return GROUP_DESC.view(groups.raw, len(groups))


def outside_group(superblock: Superblock, groups: Table, field: str) -> Flags:
    """Return for which groups ``field``, one of LOCATIONS, names a block outside of the group, where it must lie."""
    geometry, columns = superblock.geometry, superblock.geometry.columns
    count = geometry.inode_table_blocks if field == "bg_inode_table" else 1
    place = groups[field].astype(np.int64)
    found: Flags = (place < columns.group_first) | (place + count > columns.group_first + columns.group_blocks)
    return found


def group_ranges_overlap(superblock: Superblock, groups: Table) -> bool:
    """Return whether metadata of groups, all of it inside its group, overlaps other metadata."""
    geometry, columns = superblock.geometry, superblock.geometry.columns
    tables = np.full(geometry.groups, geometry.inode_table_blocks, np.int64)
    ones = np.ones(geometry.groups, np.int64)
    first = np.concatenate([columns.group_first, *(groups[field].astype(np.int64) for field in LOCATIONS)])
    count = np.concatenate([columns.head_blocks, ones, ones, tables])
    first, count = first[count > 0], count[count > 0]
    order = np.argsort(first, kind="stable")
    first, count = first[order], count[order]
    return bool((first[:-1] + count[:-1] > first[1:]).any())


def read_bitmap(device: BlockDevice, superblock: Superblock, groups: Groups | Table, group: int, field: str) -> Flags:
    """Return a bitmap (``bg_block_bitmap`` or ``bg_inode_bitmap``) of a group: bool, shape (8 * block_size,), True = used.

    Bit 0 is the group's first block or inode; bits behind its last are padding, which should be set.
    """
    block = metadata_block(superblock, groups, group, field)
    raw = device.read(block * superblock.block_size, superblock.block_size)
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").astype(np.bool_)
