"""Resize inode: checked before the passes, and made anew behind pass 1, when the free blocks are known.

Every pointer is compared, as the kernel does before it grows a mounted filesystem; e2fsck compares a quarter of them.
Source: e2fsprogs ``e2fsck/super.c`` (check_resize_inode), ``lib/ext2fs/res_gdt.c``; Linux ``fs/ext4/resize.c``
(verify_reserved_gdb).
"""

from __future__ import annotations

import numpy as np

from ..check.census import system_ranges
from ..constants import DIND_SLOT, RESIZE_INO, S_IFMT, S_IFREG, Compat
from ..errors import CorruptError, DeviceError, NoSpaceError
from ..format.block_map import pack_pointers
from ..format.resize_inode import reserved_blocks, resize_blocks, resize_record
from ..format.schema import INODE_CORE
from .context import Context
from .problem import Place
from .problems.volume import RESERVED_BLOCKS, RESIZE_INODE, RESIZE_INODE_UNUSED, RESIZE_NO_SPACE, RESIZE_WITH_META_BG
from .storage import Stage

__all__ = ["check_resize_inode", "rebuild_resize_inode"]

NS = 1_000_000_000
PLACE = Place(ino=RESIZE_INO)


def check_resize_inode(context: Context) -> None:
    """Check that the resize inode maps the reserved descriptor blocks, or that there is none of either."""
    geometry = context.superblock.geometry
    if geometry.resize_inode and geometry.first_meta_bg is not None and context.fix(RESIZE_WITH_META_BG):
        compat = context.superblock.compat & ~Compat.RESIZE_INODE
        context.set_superblock(s_feature_compat=compat, s_reserved_gdt_blocks=0)
        context.write_backups = True
        geometry = context.superblock.geometry
    try:
        raw = context.read_inode(RESIZE_INO)
    except CorruptError:  # the inode table is to be placed anew
        context.rebuild_resize_inode = geometry.resize_inode
        return
    if geometry.resize_inode:
        if (fault := _fault(context, raw)) is not None:
            context.must_check = True
            if context.fix(RESIZE_INODE, PLACE, got=fault[0], want=fault[1]):
                context.write_inode(RESIZE_INO, bytes(len(raw)))
                context.rebuild_resize_inode = True
        return
    if geometry.reserved_gdt_blocks and context.fix(RESERVED_BLOCKS, got=geometry.reserved_gdt_blocks):
        context.set_superblock(s_reserved_gdt_blocks=0)
        context.write_backups = True
    if INODE_CORE.view(raw)[0]["i_block"].any() and context.fix(RESIZE_INODE_UNUSED, PLACE):
        context.write_inode(RESIZE_INO, bytes(len(raw)))


def _fault(context: Context, raw: bytes) -> tuple[str, str] | None:
    """Return what is wrong with the resize inode, and what is wanted; None if it is sound."""
    superblock = context.superblock
    geometry = superblock.geometry
    core = INODE_CORE.view(raw)[0]
    if int(core["i_mode"]) & S_IFMT != S_IFREG:
        return f"i_mode is {int(core['i_mode']):#o}", "a regular file"
    if not core["i_links_count"]:
        return "i_links_count is 0", "1"
    words = core["i_block"].tolist()
    for slot, word in enumerate(words):
        if word and slot != DIND_SLOT:
            return f"i_block[{slot}] is {word}", "0"
    map_at = words[DIND_SLOT]
    if not superblock.first_data_block <= map_at < superblock.blocks_count or not map_at:
        return f"i_block[{DIND_SLOT}] is {map_at}", f"from {superblock.first_data_block} to {superblock.blocks_count - 1}"
    if any(first <= map_at < first + count for first, count in system_ranges(superblock, context.groups)):
        return f"i_block[{DIND_SLOT}] is {map_at}", "no block of the filesystem's metadata"
    size = context.block_size
    for first, tables in resize_blocks(geometry, map_at):
        rows = np.array(tables, np.uint32)
        if first + len(rows) > superblock.blocks_count:
            return f"block {first + len(rows) - 1} is reserved", f"< {superblock.blocks_count}"
        try:
            found = np.frombuffer(context.storage.read(first * size, len(rows) * size), "<u4").reshape(rows.shape)
        except DeviceError as error:
            return error.message, "blocks that can be read"
        # Only slots that lead somewhere matter, unless one that should not makes descriptors look like pointers.
        first_block = geometry.first_data_block
        on_descriptors = (found >= first_block) & (found <= first_block + geometry.descriptor_blocks) & (found != 0)
        different = (found != rows) & ((rows != 0) | on_descriptors)
        if different.any():
            row, slot = (int(number) for number in np.argwhere(different)[0])
            return f"pointers in block {first + row}[{slot}] is {int(found[row, slot])}", str(int(rows[row, slot]))
    return None


def _cleared(context: Context) -> bool:
    """Report a resize inode that pass 1 cleared. Return True if it is to be made anew."""
    core = INODE_CORE.view(context.read_inode(RESIZE_INO))[0]
    return not core["i_links_count"] and context.fix(RESIZE_INODE, PLACE, got="cleared", want="in use")


def rebuild_resize_inode(context: Context) -> None:
    """Make the resize inode anew, if it was found broken, or pass 1 cleared it. Needs what pass 1 found in use."""
    geometry = context.superblock.geometry
    if not context.rebuild_resize_inode and not (geometry.resize_inode and _cleared(context)):
        return
    try:
        context.inode_place(RESIZE_INO)
    except CorruptError as error:  # a new inode table was refused
        context.leave(RESIZE_INODE, PLACE, got=str(error), want="an inode table")
        return
    try:
        map_at = context.allocate_block(int(geometry.columns.free_first[0]))
    except NoSpaceError:
        context.leave(RESIZE_NO_SPACE, PLACE)
        return
    # Without backups the reserved blocks list nothing.
    contents = dict.fromkeys(reserved_blocks(geometry), bytes(context.block_size))
    for first, tables in resize_blocks(geometry, map_at):
        contents |= {block: pack_pointers(pointers) for block, pointers in enumerate(tables, first)}
    for block, data in contents.items():
        # What files had in the reserved blocks was copied: their inodes lead to the copies before these are overwritten.
        context.storage.write_block(block, data, Stage.NEW if block == map_at else Stage.MAPS)
    record = resize_record(geometry, map_at, now=context.now * NS)
    context.write_inode(RESIZE_INO, record.pack())
    context.census.mode[RESIZE_INO], context.census.links[RESIZE_INO] = record.mode, record.links
    context.rebuild_resize_inode = False
