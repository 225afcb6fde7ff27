"""Metadata of new groups, written outside of the old end before the filesystem has them.

Bitmaps, inode tables and descriptors, in slots of the descriptor blocks that the old geometry does not use, or in the groups
themselves (meta_bg). Backups come after the switch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..device.base import BlockDevice
from ..format.geometry import Geometry
from ..format.layout_columns import Table
from ..format.schema import GROUP_DESC

__all__ = ["new_descriptors", "write_new_groups"]

Numbers = npt.NDArray[np.int64]


def new_descriptors(old: Geometry, groups: Table, new: Geometry) -> Table:
    """Return the descriptors of all groups of ``new``: those of ``groups``, then empty ones."""
    table = GROUP_DESC.zeros(new.groups)
    kept = min(old.groups, new.groups)
    table[:kept] = groups[:kept]
    added = slice(kept, new.groups)
    table["bg_block_bitmap"][added] = new.columns.block_bitmap[added]
    table["bg_inode_bitmap"][added] = new.columns.inode_bitmap[added]
    table["bg_inode_table"][added] = new.columns.inode_table[added]
    table["bg_free_blocks_count"][added] = new.columns.free_counts[added]
    table["bg_free_inodes_count"][added] = new.inodes_per_group
    return table


def write_new_groups(device: BlockDevice, old: Geometry, new: Geometry, groups: Table) -> None:
    """Write what the groups from ``old.groups`` on need; ``groups``: the descriptors of ``new``. Nothing of ``old`` changes."""
    size = new.block_size
    table_bytes = new.inode_table_blocks * size
    inode_bits = _bitmap(new.inodes_per_group, new.inodes_per_group, 0, size)
    patterns: dict[tuple[int, int], bytes] = {}
    rows = zip(
        new.columns.block_bitmap[old.groups :].tolist(),
        new.columns.group_overhead[old.groups :].tolist(),
        new.columns.group_blocks[old.groups :].tolist(),
        strict=True,
    )
    for bitmap_at, used, count in rows:
        pattern = patterns.get((used, count))
        if pattern is None:
            pattern = patterns[used, count] = _bitmap(count, count, used, size) + inode_bits
        device.make_zero((bitmap_at + 2) * size, table_bytes)
        device.write(bitmap_at * size, pattern)
    for block, start, data in _descriptor_parts(old, new, groups):
        device.write(block * size + start, data)


def _bitmap(count: int, padding_from: int, used: int, size: int) -> bytes:
    """Return a bitmap of ``count`` numbers, of which the first ``used`` are in use; the bits behind them are set."""
    bits = np.zeros(size * 8, np.uint8)
    bits[:used] = 1
    bits[padding_from:] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def _descriptor_parts(old: Geometry, new: Geometry, groups: Table) -> Iterator[tuple[int, int, bytes]]:
    """Yield (block, byte in it, content) of the descriptors of the new groups, in their primary places."""
    per_block = new.descriptors_per_block
    for index in range(old.groups // per_block, new.descriptor_blocks):
        low = max(old.groups, index * per_block)
        rows = groups[low : (index + 1) * per_block].tobytes()
        start = (low - index * per_block) * GROUP_DESC.size
        # Behind the last descriptor there is nothing.
        yield new.descriptor_block(index), start, rows.ljust(new.block_size - start, b"\0")
