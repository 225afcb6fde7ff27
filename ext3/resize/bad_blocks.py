"""List of bad blocks, made anew when a filesystem shrinks: those beyond the new end leave it.

The list is the map of inode 1, without holes: after the change it has as few pointer blocks as it needs, the old ones as far
as they stay. Source: e2fsprogs ``lib/ext2fs/bb_inode.c`` (ext2fs_update_bb_inode), ``resize/resize2fs.c`` (block_mover).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..constants import BAD_INO, SECTOR
from ..device.base import BlockDevice
from ..errors import JournalFullError, NeedsCheckError
from ..format.block_map import BlockMap, map_limit, read_inode_map
from ..format.block_map_columns import group_runs
from ..format.group_desc import Groups
from ..format.indirect_blocks import dense_count
from ..format.indirect_blocks_columns import IndirectBlocks
from ..format.inode import parse_inode
from ..format.inode_table import inode_offset
from ..format.layout_columns import Table
from ..format.schema import INODE_CORE
from ..format.superblock import Superblock
from .transactions import Transactions

__all__ = ["BadBlocks", "check_bad_blocks", "plan_bad_blocks", "read_bad_blocks", "write_bad_blocks"]

Numbers = npt.NDArray[np.int64]


class BadBlocks(NamedTuple):
    """New list of bad blocks: ``blocks``, in order, and its pointer blocks, of which ``taken`` are new ones. ``freed``: what
    was in the old list, and its pointer blocks, and is no more."""

    blocks: Numbers
    pointers: Numbers
    taken: Numbers
    freed: Numbers


def read_bad_blocks(device: BlockDevice, superblock: Superblock, groups: Groups | Table) -> BlockMap:
    """Return the map of the list of bad blocks. Raises CorruptError, DeviceError."""
    raw = device.read(inode_offset(superblock, groups, BAD_INO), superblock.inode_size)
    limit = map_limit(superblock.block_size)
    return read_inode_map(device, superblock, parse_inode(raw, BAD_INO), limit, where="list of bad blocks")


def plan_bad_blocks(found: BlockMap, end: int, per_block: int, take: Callable[[int], Numbers]) -> BadBlocks:
    """Plan the list ``found`` without the blocks from ``end`` on. ``per_block``: pointers in a block. ``take``: returns so
    many free blocks below the end."""
    listed, tables = _listed(found), np.array(found.indirect, np.int64)
    kept, staying = listed[listed < end], tables[tables < end]
    count = dense_count(len(kept), per_block)
    taken = take(max(0, count - len(staying)))
    freed = np.concatenate([listed[listed >= end], tables[tables >= end], staying[count:]])
    return BadBlocks(kept, np.concatenate([staying[:count], taken]), taken, freed)


def _listed(found: BlockMap) -> Numbers:
    parts = [np.arange(start, start + count) for _, start, count in found.extents]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def check_bad_blocks(changes: Transactions, new: BadBlocks) -> None:
    """Raise NeedsCheckError if the list is not the one that was planned for, JournalFullError if the change of it does not fit
    the journal."""
    found = read_bad_blocks(changes.device, changes.superblock, changes.groups)
    before = np.concatenate([_listed(found), np.array(found.indirect, np.int64)])
    after = np.concatenate([new.blocks, np.setdiff1d(new.pointers, new.taken), new.freed])
    if not np.array_equal(np.sort(before), np.sort(after)):
        raise NeedsCheckError("is not the one that was planned for")
    superblock = changes.superblock
    changed = np.concatenate([new.taken, new.freed])
    groups = set(((changed - superblock.first_data_block) // superblock.blocks_per_group).tolist())
    needed = changes.blocks_needed(1 + len(new.pointers) + len(groups), groups)
    if needed > changes.capacity:
        raise JournalFullError(needed, changes.capacity)


def write_bad_blocks(changes: Transactions, new: BadBlocks) -> None:
    """Change the list, in one transaction."""
    size = changes.block_size
    tables = IndirectBlocks(group_runs(np.arange(len(new.blocks)), new.blocks), size // 4)
    rows = (row for part in tables.pack(new.pointers) for row in part)
    for block, row in zip(new.pointers.tolist(), rows, strict=True):
        changes.put(block, row.astype("<u4").tobytes())
    record = bytearray(changes.read_inode(BAD_INO))
    core = INODE_CORE.view(record)[0]
    core["i_block"] = tables.pack_inode(new.pointers)
    # Pointer blocks are not counted, as in e2fsprogs.
    core["i_size"], core["i_blocks"] = len(new.blocks) * size, len(new.blocks) * (size // SECTOR)
    changes.write_inode(BAD_INO, bytes(record))
    changes.take_blocks(new.taken)
    changes.free_blocks(new.freed)
    changes.commit()
