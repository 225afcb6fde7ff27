"""Resize inode: maps the descriptor blocks that are reserved for growth, and their places in the backup groups.

Its map is one double indirect block. That one lists the reserved blocks behind the primary descriptors, each in the slot of
its number modulo the pointers of a block; each reserved block lists the same block in the backup groups, in their order.
Source: e2fsprogs ``lib/ext2fs/res_gdt.c``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..constants import DIND_SLOT, N_BLOCKS, S_IFREG, SECTOR
from .block_map import indirect_trees
from .geometry import Geometry
from .inode import InodeRecord

__all__ = ["reserved_blocks", "resize_blocks", "resize_record"]

Rows = npt.NDArray[np.uint32]


def reserved_blocks(geometry: Geometry) -> npt.NDArray[np.int64]:
    """Return the reserved blocks behind the primary descriptors."""
    first = geometry.first_data_block + 1 + geometry.descriptor_blocks
    return np.arange(first, first + geometry.reserved_gdt_blocks, dtype=np.int64)


def resize_blocks(geometry: Geometry, map_at: int) -> Iterator[tuple[int, Rows]]:
    """Yield (first block, pointers, a row for each block) of the map in block ``map_at``, and of the reserved blocks."""
    pointers = geometry.pointers_per_block
    primary = reserved_blocks(geometry)
    double = np.zeros((1, pointers), np.uint32)
    double[0, (primary - geometry.first_data_block - 1) % pointers] = primary
    yield map_at, double
    backups = np.array(geometry.backup_groups[:pointers], np.int64)
    if len(primary) and len(backups):
        rows = np.zeros((len(primary), pointers), np.uint32)
        rows[:, : len(backups)] = primary[:, None] + backups[None, :] * geometry.blocks_per_group
        yield int(primary[0]), rows


def resize_record(geometry: Geometry, map_at: int, *, now: int) -> InodeRecord:
    """Return the inode whose map lies in block ``map_at``, made at ``now`` (nanoseconds)."""
    record = InodeRecord.new(geometry.inode_size, mode=S_IFREG | 0o600, uid=0, gid=0, now=now, generation=0)
    record.links = 1
    i_block = [0] * N_BLOCKS
    i_block[DIND_SLOT] = map_at
    record.i_block = tuple(i_block)
    _, double, _ = indirect_trees(geometry.pointers_per_block)
    record.size = (double.start + double.span) * geometry.block_size
    blocks = 1 + geometry.reserved_gdt_blocks * (1 + len(geometry.backup_groups))
    record.sectors = blocks * (geometry.block_size // SECTOR)
    return record
