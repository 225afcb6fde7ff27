"""Inode table: where inodes lie. Many decoded or packed at once: see ``inode_table_columns``; one inode: see ``inode``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import PathNotFoundError
from .group_desc import Groups, metadata_block

if TYPE_CHECKING:
    from .layout_columns import Table
    from .superblock import Superblock

__all__ = ["check_number", "inode_offset", "table_offset"]


def table_offset(superblock: Superblock, groups: Groups | Table, group: int) -> int:
    """Return the byte where a group's inode table begins. Raises CorruptError if the table leaves the filesystem."""
    blocks = superblock.geometry.inode_table_blocks
    return metadata_block(superblock, groups, group, "bg_inode_table", blocks) * superblock.block_size


def inode_offset(superblock: Superblock, groups: Groups | Table, ino: int) -> int:
    """Return the byte where the record of an inode begins. Raises PathNotFoundError for a number that is none, CorruptError."""
    geometry = superblock.geometry
    check_number(superblock, ino)
    group, block, byte = geometry.locate_inode(ino)
    return table_offset(superblock, groups, group) + block * geometry.block_size + byte


def check_number(superblock: Superblock, ino: int) -> None:
    """Raise PathNotFoundError for a number that is no inode's."""
    if not 1 <= ino <= superblock.inodes_count:
        raise PathNotFoundError(f"inode {ino}", f"inodes are from 1 to {superblock.inodes_count}")
