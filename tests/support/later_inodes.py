"""Inodes of the sample image of ``fsck_inodes`` put into the formats of ext4: extents, or data in the inode."""

from __future__ import annotations

import struct

import ext3
from ext3.constants import InodeFlag
from ext3.format.extent_tree import EXTENT, EXTENT_HEADER, EXTENT_INDEX, EXTENT_MAGIC

from .fsck_inodes import Inodes, attribute

__all__ = ["to_extents", "to_inline"]


def to_extents(image: Inodes, name: str, *, node: int = 0, room: int = 4) -> None:
    """Map a file without holes by one extent for each run, in a node of its own if ``node`` is a block."""
    with ext3.Filesystem.open(image.device) as fs:
        runs = fs.block_map(image[name]).extents
        blocks = fs.block_map(image[name]).mapped
    rows = b"".join(EXTENT.packer.pack(logical, count, 0, first) for logical, first, count in runs)
    if node:
        image.set_block(node, EXTENT_HEADER.packer.pack(EXTENT_MAGIC, len(runs), 84, 0, 0) + rows)
        root = EXTENT_HEADER.packer.pack(EXTENT_MAGIC, 1, 4, 1, 0) + EXTENT_INDEX.packer.pack(0, node, 0, 0)
    else:
        assert len(runs) <= room
        root = EXTENT_HEADER.packer.pack(EXTENT_MAGIC, len(runs), 4, 0, 0) + rows
    row = image.core(image[name])
    row["i_block"] = struct.unpack("<15I", root.ljust(60, b"\0"))
    row["i_flags"] |= int(InodeFlag.EXTENTS)
    row["i_blocks"] = 2 * (blocks + bool(node))


def to_inline(image: Inodes, name: str, data: bytes, *, others: bytes = b"") -> None:
    """Put data into an inode: 60 bytes in i_block, the rest in the value of an attribute."""
    row = image.core(image[name])
    row["i_block"] = struct.unpack("<15I", data[:60].ljust(60, b"\0"))
    row["i_size"], row["i_blocks"] = len(data), 0
    row["i_flags"] |= int(InodeFlag.INLINE_DATA)
    rest = data[60:]
    size = 92
    offset = size - -(-len(rest) // 4) * 4
    entries = attribute(b"data", offset if rest else 0, len(rest), index=7) + others
    image.set_area(image[name], entries.ljust(offset, b"\0") + rest)
