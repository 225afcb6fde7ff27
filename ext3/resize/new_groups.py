"""Metadata of new groups, written outside of the old end before the filesystem has them.

Bitmaps, inode tables and descriptors, in slots of the descriptor blocks that the old geometry does not use, or in the groups
themselves (meta_bg). Backups come after the switch.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..device.base import BlockDevice
from ..format.geometry import Geometry
from ..format.group_desc import Groups
from ..format.schema import GROUP_DESC
from .descriptors import pack_descriptors

__all__ = ["new_descriptors", "write_new_groups"]


def new_descriptors(old: Geometry, groups: Groups, new: Geometry) -> Groups:
    """Return the descriptors of all groups of ``new``: those of ``groups``, then those of empty groups."""
    kept = min(old.groups, new.groups)
    rows = [pack_descriptors(groups, 0, kept)]
    for group in range(kept, new.groups):
        bitmap = new.first_block(group) + new.head_count(group)
        free = new.block_count(group) - new.overhead(group)
        rows.append(GROUP_DESC.packer.pack(bitmap, bitmap + 1, bitmap + 2, free, new.inodes_per_group, *[0] * 7))
    return Groups(b"".join(rows), new.groups)


def write_new_groups(device: BlockDevice, old: Geometry, new: Geometry, groups: Groups) -> None:
    """Write what the groups from ``old.groups`` on need; ``groups``: the descriptors of ``new``. Nothing of ``old`` changes."""
    size = new.block_size
    table_bytes = new.inode_table_blocks * size
    inode_bits = _bitmap(new.inodes_per_group, 0, size)
    patterns: dict[tuple[int, int], bytes] = {}
    for group in range(old.groups, new.groups):
        at, used, count = groups["bg_block_bitmap"][group], new.overhead(group), new.block_count(group)
        pattern = patterns.get((used, count))
        if pattern is None:
            pattern = patterns[used, count] = _bitmap(count, used, size) + inode_bits
        device.make_zero((at + 2) * size, table_bytes)
        device.write(at * size, pattern)
    for block, start, data in _descriptor_parts(old, new, groups):
        device.write(block * size + start, data)


def _bitmap(count: int, used: int, size: int) -> bytes:
    """Return a bitmap of ``count`` numbers, of which the first ``used`` are in use; the bits behind them are set."""
    free = (1 << count) - (1 << used)
    return ((1 << 8 * size) - 1 - free).to_bytes(size, "little")


def _descriptor_parts(old: Geometry, new: Geometry, groups: Groups) -> Iterator[tuple[int, int, bytes]]:
    """Yield (block, byte in it, content) of the descriptors of the new groups, in their primary places."""
    per_block = new.descriptors_per_block
    for index in range(old.groups // per_block, new.descriptor_blocks):
        low = max(old.groups, index * per_block)
        rows = pack_descriptors(groups, low, (index + 1) * per_block)
        start = (low - index * per_block) * GROUP_DESC.size
        # Behind the last descriptor there is nothing.
        yield new.descriptor_block(index), start, rows.ljust(new.block_size - start, b"\0")
