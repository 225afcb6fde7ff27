"""Release of an inode: its blocks and its reference to an attribute block are given up, its record is a deleted inode's.

Source: e2fsprogs ``e2fsck/pass2.c`` (deallocate_inode).
"""

from __future__ import annotations

from itertools import pairwise

from ..constants import XATTR_MAGIC, Compat
from ..format.schema import XATTR_HEADER
from .attribute_check import with_refcount
from .block_walk import MapWalk, Pointer
from .context import Context
from .inode_forms import has_map
from .record import Record

__all__ = ["owned_blocks", "release_attribute_block", "release_inode"]


def release_inode(context: Context, ino: int) -> None:
    """Release an inode in use. Entries that name it are the caller's. A block that has another owner stays in use."""
    record = Record(ino, context.read_inode(ino))
    blocks = owned_blocks(context, record)
    record.delete(context.now)
    if record.get("i_file_acl"):
        blocks += release_attribute_block(context, record)
    record.save(context)
    ordered = sorted(set(blocks))
    breaks = [at for at, (one, other) in enumerate(pairwise(ordered), 1) if other != one + 1]
    bounds = [0, *breaks, len(ordered)]
    context.free([(ordered[low], high - low) for low, high in pairwise(bounds) if high > low])
    context.free_inode(ino)


def owned_blocks(context: Context, record: Record) -> list[int]:
    """Return the blocks of an inode's map that lie in the filesystem and are no metadata of it."""
    if not has_map(context, record):
        return []
    first, end = context.superblock.first_data_block, context.superblock.blocks_count
    system = context.census.system
    found: list[int] = []
    entered: set[int] = set()

    def enter(pointer: Pointer) -> bool:
        fresh = first <= pointer.block < end and pointer.block not in entered
        entered.add(pointer.block)
        return fresh

    for pointer in MapWalk(context, record.words).pointers(enter):
        if first <= pointer.block < end and not system[pointer.block]:
            found.append(pointer.block)
    return found


def release_attribute_block(context: Context, record: Record) -> list[int]:
    """Give up the reference of an inode to its attribute block. Return the block if nothing refers to it any longer."""
    block = record.get("i_file_acl")
    record.core["i_file_acl"] = 0
    superblock = context.superblock
    inside = superblock.first_data_block <= block < superblock.blocks_count
    if not superblock.compat & Compat.EXT_ATTR or not inside or block not in context.attribute_blocks:
        return []
    context.attribute_blocks[block] -= 1
    count = context.attribute_blocks[block]
    if not count:
        del context.attribute_blocks[block]
        return [block]
    raw = context.corrected.get(block) or context.read(block)
    if XATTR_HEADER.view(raw)[0]["h_magic"] == XATTR_MAGIC:
        raw = with_refcount(raw, count)
        if context.census.shared[block]:
            context.corrected[block] = raw
        else:
            context.write(block, raw)
    return []
