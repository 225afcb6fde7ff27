"""An image of 8 TiB that takes a few MiB: one of 8 GiB whose superblock and descriptors tell of 65,536 groups."""

from __future__ import annotations

import os
from pathlib import Path

import ext3
from ext3.constants import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ext3.format.schema import GROUP_DESC, SUPERBLOCK
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions

__all__ = ["huge_image"]

GROUPS = 1 << 16
BLOCK = 4096
PER_GROUP = 8 * BLOCK


def huge_image(path: Path) -> Path:
    """The image, with upper/ and a file in it. Only the first 64 groups have bitmaps: no other can be allocated from."""
    create(path, CreateOptions(size=8 << 30, block_size=BLOCK, sparse=True))
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.write_bytes("/upper/f", b"content" * 1000)
        fs.symlink("f", "/upper/l")
        fs.set_xattr("/upper/f", b"user.x", b"value")
        inodes = fs.superblock.inodes_per_group
        table_blocks = fs.geometry().inode_table_blocks
        reserved = fs.geometry().reserved_gdt_blocks
        known = fs.superblock.groups_count
    added = GROUPS * GROUP_DESC.size // BLOCK - 1
    assert added <= reserved
    groups = GROUP_DESC.zeros(GROUPS)
    with path.open("r+b") as file:
        file.seek(BLOCK)
        groups[:known] = GROUP_DESC.view(file.read(known * GROUP_DESC.size), known)
        for field, place in (("bg_block_bitmap", 2000), ("bg_inode_bitmap", 2001), ("bg_inode_table", 2002)):
            groups[field][known:] = [group * PER_GROUP + place for group in range(known, GROUPS)]
        groups["bg_free_blocks_count"][known:] = PER_GROUP - 2002 - table_blocks
        groups["bg_free_inodes_count"][known:] = inodes
        file.seek(BLOCK)
        file.write(groups.tobytes())
        file.seek(SUPERBLOCK_OFFSET)
        row = SUPERBLOCK.view(bytearray(file.read(SUPERBLOCK_SIZE)), 1)
        row["s_blocks_count"] = GROUPS * PER_GROUP
        row["s_inodes_count"] = GROUPS * inodes
        row["s_reserved_gdt_blocks"] = reserved - added
        row["s_free_blocks_count"] = int(groups["bg_free_blocks_count"].sum(dtype="i8"))
        row["s_free_inodes_count"] = int(groups["bg_free_inodes_count"].sum(dtype="i8"))
        file.seek(SUPERBLOCK_OFFSET)
        file.write(row.tobytes())
        os.ftruncate(file.fileno(), GROUPS * PER_GROUP * BLOCK)
    return path
