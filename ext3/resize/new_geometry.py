"""Geometry of a filesystem after a resize. Pure arithmetic.

Blocks per group and inodes per group stay. More group descriptors than one block holds come out of the reserve behind the
primary ones, so that nothing moves. Beyond the reserve, or without one, the resize inode is dropped and meta_bg set, from the
first new descriptor block on: those lie in the groups they describe. Fewer descriptors go back to the reserve.
Source: e2fsprogs ``resize/resize2fs.c`` (adjust_fs_info), ``lib/ext2fs/closefs.c``; Linux ``fs/ext4/resize.c``.
"""

from __future__ import annotations

from ..errors import GeometryError
from ..format.geometry import MIN_LAST_GROUP_BLOCKS, Geometry, descriptor_blocks, group_count, reserved_share
from ..format.group_desc import Groups

__all__ = ["MAX_BLOCKS", "geometry_of_size", "least_last_group", "metadata_end", "resized_geometry"]

MAX_BLOCKS = (1 << 32) - 1
"""Most blocks that 32-bit block numbers count."""


def geometry_of_size(old: Geometry, blocks: int) -> Geometry:
    """Return the geometry of exactly ``blocks`` blocks. The share of the blocks reserved for root is kept."""
    before = old.descriptor_blocks
    groups = group_count(blocks, old.first_data_block, old.blocks_per_group)
    after = descriptor_blocks(groups, old.block_size)
    reserved, resize_inode, first_meta_bg = old.reserved_gdt_blocks, old.resize_inode, old.first_meta_bg
    if first_meta_bg is not None:
        # More than there are descriptor blocks are refused by the kernel.
        first_meta_bg = min(first_meta_bg, before, after)
    elif after > before and not (resize_inode and reserved >= after - before):
        reserved, resize_inode, first_meta_bg = 0, False, before
    elif resize_inode:
        reserved = min(reserved + before - after, old.block_size // 4)
    return old._replace(
        blocks=blocks,
        reserved_gdt_blocks=reserved,
        reserved_blocks=reserved_share(old.reserved_blocks, old.blocks, blocks),
        resize_inode=resize_inode,
        first_meta_bg=first_meta_bg,
    )


def metadata_end(old: Geometry, groups: Groups, group: int) -> int:
    """Return the block behind the last one of a group's metadata, wherever its descriptor has it."""
    ends = (
        old.first_block(group) + old.head_count(group),
        groups["bg_block_bitmap"][group] + 1,
        groups["bg_inode_bitmap"][group] + 1,
        groups["bg_inode_table"][group] + old.inode_table_blocks,
    )
    return max(ends)


def least_last_group(old: Geometry, groups: Groups, new: Geometry) -> int:
    """Return the fewest blocks of the last group of ``new``: its metadata, and as many more as mke2fs asks for.

    ``groups``: the descriptors that there are, which say where the metadata of old groups lies.
    """
    last = new.groups - 1
    least = new.overhead(last)
    if last:
        least += MIN_LAST_GROUP_BLOCKS
    if last < old.groups:
        least = max(least, metadata_end(old, groups, last) - old.first_block(last))
    if last == old.groups - 1:  # what there is may stay
        least = min(least, old.block_count(old.groups - 1))
    return least


def resized_geometry(old: Geometry, groups: Groups, blocks: int) -> Geometry:
    """Return the geometry of at most ``blocks`` blocks: a last group that is too short for its metadata is left out.

    Raises GeometryError for a size that no filesystem of these groups has.
    """
    size = old.block_size
    most = min(MAX_BLOCKS, old.first_data_block + MAX_BLOCKS // old.inodes_per_group * old.blocks_per_group)
    if blocks > most:
        raise GeometryError(
            f"{blocks} blocks of {size} bytes are more than this filesystem can have", field="size", most=most * size
        )
    while blocks > old.first_data_block:
        new = geometry_of_size(old, blocks)
        last = new.block_count(new.groups - 1)
        if last >= min(least_last_group(old, groups, new), old.blocks_per_group):
            return new
        blocks = new.first_block(new.groups - 1)
    least = metadata_end(old, groups, 0)
    raise GeometryError(f"{blocks} blocks are too few for the metadata of one group", field="size", least=least * size)
