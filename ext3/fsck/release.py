"""Release of an inode: its blocks and its reference to an attribute block are given up, its record is a deleted inode's.

Source: e2fsprogs ``e2fsck/pass2.c`` (deallocate_inode).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import XATTR_MAGIC, Compat
from ..format.schema import XATTR_HEADER
from .attribute_check import with_refcount
from .context import Context
from .inode_forms import has_map
from .map_tables import MapTables, runs_of
from .record import Record

__all__ = ["owned_blocks", "release_attribute_block", "release_inode"]

Numbers = npt.NDArray[np.int64]


def release_inode(context: Context, ino: int) -> None:
    """Release an inode in use. Entries that name it are the caller's. A block that has another owner stays in use."""
    record = Record(ino, context.read_inode(ino))
    blocks = owned_blocks(context, record)
    record.delete(context.now)
    if record.get("i_file_acl"):
        blocks = np.append(blocks, release_attribute_block(context, record))
    record.save(context)
    context.free(runs_of(blocks))
    context.free_inode(ino)


def owned_blocks(context: Context, record: Record) -> Numbers:
    """Return the blocks of an inode's map that lie in the filesystem and are no metadata of it."""
    none = np.zeros(0, np.int64)
    if not has_map(context, record):
        return none
    blocks = np.concatenate([none, *MapTables(context).blocks(record.words)])
    found: Numbers = blocks[~context.census.system[blocks]]
    return found


def release_attribute_block(context: Context, record: Record) -> Numbers:
    """Give up the reference of an inode to its attribute block. Return the block if nothing refers to it any longer."""
    block = record.get("i_file_acl")
    record.core["i_file_acl"] = 0
    superblock = context.superblock
    inside = superblock.first_data_block <= block < superblock.blocks_count
    if not superblock.compat & Compat.EXT_ATTR or not inside or block not in context.attribute_blocks:
        return np.zeros(0, np.int64)
    context.attribute_blocks[block] -= 1
    count = context.attribute_blocks[block]
    if not count:
        del context.attribute_blocks[block]
        return np.array([block], np.int64)
    raw = context.corrected.get(block) or context.read(block)
    if XATTR_HEADER.view(raw)[0]["h_magic"] == XATTR_MAGIC:
        raw = with_refcount(raw, count)
        if context.census.shared[block]:
            context.corrected[block] = raw
        else:
            context.write(block, raw)
    return np.zeros(0, np.int64)
