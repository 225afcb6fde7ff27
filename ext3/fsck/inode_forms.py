"""Forms of inodes: whether the 15 words are a block map, and whether a symbolic link is one.

Source of the rules: e2fsprogs ``e2fsck/pass1.c`` (e2fsck_pass1_check_symlink), ``lib/ext2fs/valid_blk.c``.
"""

from __future__ import annotations

from ..constants import FAST_SYMLINK_MAX, N_BLOCKS, POINTER_SIZE, InodeFlag
from ..errors import DeviceError
from .context import Context
from .record import Record

__all__ = ["has_map", "symlink_sound"]


def has_map(context: Context, record: Record) -> bool:
    """Return whether the 15 words are a block map: not those of a special file, nor of a target in the inode."""
    if not record.is_symlink:
        return record.is_dir or record.is_file
    if symlink_sound(context, record):
        return record.size > FAST_SYMLINK_MAX
    if not record.get("i_file_acl"):
        return record.get("i_blocks") != 0
    return record.size > FAST_SYMLINK_MAX or (record.size > POINTER_SIZE and not record.words[1])


def symlink_sound(context: Context, record: Record) -> bool:
    """Return whether a symbolic link has a target that ends where i_size says."""
    size = record.size
    if not 0 < size < context.block_size or record.flags & InodeFlag.INDEX:
        return False
    if size <= FAST_SYMLINK_MAX:
        return record.inline.find(b"\0") == size
    words, superblock = record.words, context.superblock
    if any(words[1:N_BLOCKS]) or not superblock.first_data_block <= words[0] < superblock.blocks_count:
        return False
    try:
        return context.read(words[0]).find(b"\0") == size
    except DeviceError:
        return False
