"""Blocks of the group metadata of an edit session: the bitmaps and descriptors that allocations change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..alloc.allocator import BlockAllocator, InodeAllocator
from ..format.geometry import Geometry
from ..format.group_desc import Groups
from ..format.schema import GROUP_DESC

__all__ = ["changed_group_blocks"]


def changed_group_blocks(
    groups: Groups, blocks: BlockAllocator, inodes: InodeAllocator, geometry: Geometry, read: Callable[[int], bytes]
) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each bitmap and descriptor block that changed since the last commit.

    ``groups``: says where the bitmaps lie. ``read``: gives a block as it is now.
    """
    for allocator, field in ((blocks, "bg_block_bitmap"), (inodes, "bg_inode_bitmap")):
        for group in allocator.dirty:
            yield groups[field][group], allocator.bitmap(group).pack()
    descriptors: dict[int, bytearray] = {}
    for group in sorted({*blocks.dirty, *inodes.dirty}):
        index, place = divmod(group, geometry.descriptors_per_block)
        block = geometry.descriptor_block(index)
        if block not in descriptors:
            descriptors[block] = bytearray(read(block))
        row = GROUP_DESC.at(descriptors[block], place * GROUP_DESC.size)
        row["bg_free_blocks_count"] = blocks.free_counts[group]
        row["bg_free_inodes_count"] = inodes.free_counts[group]
        row["bg_used_dirs_count"] = inodes.dirs[group]
    for block, data in descriptors.items():
        yield block, bytes(data)
