"""Blocks of the group metadata of an edit session: the bitmaps and descriptors that allocations change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..alloc.allocator import BlockAllocator, InodeAllocator
from ..format.geometry import Geometry
from ..format.layout import Table

__all__ = ["changed_group_blocks"]


def changed_group_blocks(
    groups: Table, blocks: BlockAllocator, inodes: InodeAllocator, geometry: Geometry, read: Callable[[int], bytes]
) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each bitmap and descriptor block that changed since the last commit.

    ``groups``: GROUP_DESC rows with the current counts, shape (groups,). ``read``: gives a block as it is now.
    """
    for allocator, field in ((blocks, "bg_block_bitmap"), (inodes, "bg_inode_bitmap")):
        for group in allocator.dirty:
            yield int(groups[field][group]), allocator.bitmap(group).pack(geometry.block_size)
    per_block = geometry.descriptors_per_block
    for index in sorted({group // per_block for group in (*blocks.dirty, *inodes.dirty)}):
        block = geometry.descriptor_block(index)
        rows = groups[index * per_block : (index + 1) * per_block].tobytes()
        yield block, rows + read(block)[len(rows) :]
