"""Resize inode: maps the descriptor blocks that are reserved for growth, and their places in the backup groups.

Its map is one double indirect block. That one lists the reserved blocks behind the primary descriptors, each in the slot of
its number modulo the pointers of a block; each reserved block lists the same block in the backup groups, in their order.
Source: e2fsprogs ``lib/ext2fs/res_gdt.c``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from ..constants import DIND_SLOT, N_BLOCKS, S_IFREG, SECTOR
from .block_map import Pointers, empty_pointers, indirect_trees
from .geometry import Geometry
from .inode import InodeRecord

__all__ = ["reserved_blocks", "resize_blocks", "resize_record"]


def reserved_blocks(geometry: Geometry) -> range:
    """Return the reserved blocks behind the primary descriptors."""
    first = geometry.first_data_block + 1 + geometry.descriptor_blocks
    return range(first, first + geometry.reserved_gdt_blocks)


def resize_blocks(geometry: Geometry, map_at: int) -> Iterator[tuple[int, list[Pointers]]]:
    """Yield (first block, the pointers of each block) of the map in block ``map_at``, and of the reserved blocks."""
    pointers = geometry.pointers_per_block
    primary = reserved_blocks(geometry)
    double = empty_pointers(pointers)
    for block in primary:
        double[(block - geometry.first_data_block - 1) % pointers] = block
    yield map_at, [double]
    starts = [group * geometry.blocks_per_group for group in geometry.backup_groups[:pointers]]
    if primary and starts:
        rest = empty_pointers(pointers - len(starts))
        yield primary[0], [array("I", [block + start for start in starts]) + rest for block in primary]


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
