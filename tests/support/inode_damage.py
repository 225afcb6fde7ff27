"""Damage to single inodes of an image, as debugfs and broken disks make it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ext3
from ext3.format.inode_table import inode_offset
from ext3.format.schema import INODE_CORE

__all__ = ["damage_attributes", "patch_inode"]


def patch_inode(image: str | Path, path: str, **fields: Any) -> int:
    """Set fields of the inode of ``path`` (``i_size``, or ``i_block`` with its first pointer); return its number."""
    with ext3.Filesystem.open(image) as fs:
        ino = fs.lookup(path, follow=False)
        offset, size = inode_offset(fs.superblock, fs.groups, ino), fs.superblock.inode_size
    with open(image, "r+b") as file:
        raw = bytearray(os.pread(file.fileno(), size, offset))
        row = INODE_CORE.view(raw)
        for name, value in fields.items():
            if name == "i_block":
                row[name][0, 0] = value
            else:
                row[name] = value
        os.pwrite(file.fileno(), raw, offset)
    return ino


def damage_attributes(image: str | Path, path: str) -> int:
    """Overwrite the attribute block of ``path``; return its number."""
    with ext3.Filesystem.open(image) as fs:
        block = fs.stat(path, follow=False).file_acl
        size = fs.superblock.block_size
    assert block, "its attributes are in the inode"
    with open(image, "r+b") as file:
        os.pwrite(file.fileno(), b"\xde\xad\xbe\xef" * 8, block * size)
    return block
