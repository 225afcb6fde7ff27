"""Damage for checks of whole images on the command line: one fault that -p repairs, one at which it stops."""

from __future__ import annotations

import os
from pathlib import Path

from ext3.device.base import FileDevice
from ext3.format.group_desc_columns import read_group_columns
from ext3.format.schema import GROUP_DESC, SUPERBLOCK
from ext3.format.superblock import read_superblock

from .inode_damage import patch_inode

__all__ = ["damage_counts", "damage_pointer", "set_superblock"]


def set_superblock(path: Path, *, offset: int = 0, **fields: int) -> None:
    """Set fields of the primary superblock of the image at byte ``offset`` of a file."""
    with path.open("r+b") as file:
        raw = bytearray(os.pread(file.fileno(), 1024, offset + 1024))
        for name, value in fields.items():
            SUPERBLOCK.view(raw)[0][name] = value
        os.pwrite(file.fileno(), raw, offset + 1024)


def damage_counts(path: Path, *, offset: int = 0) -> None:
    """Make a count of free blocks wrong, which -p repairs; the image says that it is clean."""
    with path.open("r+b") as file:
        device = FileDevice(file.fileno(), offset)
        superblock = read_superblock(device)
        groups = read_group_columns(device, superblock).copy()
        groups["bg_free_blocks_count"][0] -= 7
        place = offset + superblock.geometry.descriptor_block(0) * superblock.block_size
        os.pwrite(file.fileno(), groups.tobytes()[: GROUP_DESC.size], place)


def damage_pointer(path: Path, name: str = "/upper/a") -> int:
    """Let a file point out of the image, at which -p stops; return its inode."""
    return patch_inode(path, name, i_block=4_000_000)
