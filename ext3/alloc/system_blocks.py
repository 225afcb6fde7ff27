"""System blocks: superblocks, descriptors, bitmaps, inode tables, journal. Edits never write or free them.

A damaged image may have a file that claims such blocks; writing or freeing them as file blocks would destroy the filesystem.
Source: Linux ``fs/ext4/block_validity.c`` (system zones), ``fs/ext4/super.c`` (ext4_check_descriptors).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from ..errors import CorruptError
from ..format.group_desc import LOCATIONS, Groups
from ..format.superblock import Superblock

__all__ = ["SystemBlocks"]


class SystemBlocks:
    """System blocks of each group, and the blocks of the journal."""

    def __init__(self, superblock: Superblock, groups: Groups, journal: Iterable[tuple[int, int]] = ()) -> None:
        """Raise CorruptError if a group's bitmaps or inode table lie outside the group, which ext3 does not allow.

        ``journal``: (first block, count) of its parts, in any order.
        """
        self.superblock = superblock
        self._groups = groups
        self._known: dict[int, list[tuple[int, int]]] = {}
        runs = sorted(journal)
        self._starts = [first for first, _ in runs]
        self._ends = [first + count for first, count in runs]
        self._table_blocks = superblock.geometry.inode_table_blocks
        for field in LOCATIONS:
            self._check_places(field, self._table_blocks if field == "bg_inode_table" else 1)

    def _check_places(self, field: str, count: int) -> None:
        """Raise CorruptError if a field leads to blocks outside of its group."""
        geometry = self.superblock.geometry
        first = geometry.first_data_block
        most = first + geometry.blocks_per_group - count
        for group, place in enumerate(self._groups[field]):
            if group == geometry.groups - 1:
                most = geometry.blocks - count
            if not first <= place <= most:
                raise CorruptError(f"group {group}", field, place, f"from {first} to {most}")
            first += geometry.blocks_per_group
            most += geometry.blocks_per_group

    def of_group(self, group: int) -> list[tuple[int, int]]:
        """Return (first block, end) of each range of system blocks in a group."""
        found = self._known.get(group)
        if found is None:
            geometry = self.superblock.geometry
            start = geometry.first_block(group)
            bitmap, inode_bitmap, table = (self._groups[field][group] for field in LOCATIONS)
            found = self._known[group] = [
                (start, start + geometry.head_count(group)),
                (bitmap, bitmap + 1),
                (inode_bitmap, inode_bitmap + 1),
                (table, table + self._table_blocks),
            ]
        return found

    def check(self, block: int, count: int, where: str) -> None:
        """Raise CorruptError (``where``) unless ``count`` blocks from ``block`` are in the filesystem and no system blocks."""
        superblock = self.superblock
        first = superblock.first_data_block
        if block < first or count < 1 or block + count > superblock.blocks_count:
            raise CorruptError(where, "block", block, f"from {first} to {superblock.blocks_count - count}")
        per_group = superblock.blocks_per_group
        end = block + count
        for group in range((block - first) // per_group, (end - 1 - first) // per_group + 1):
            for low, high in self.of_group(group):
                if block < high and end > low:
                    raise CorruptError(where, "block", max(block, low), f"not the metadata of group {group}")
        if self._starts:
            at = bisect_right(self._starts, end - 1) - 1
            if at >= 0 and self._ends[at] > block:
                raise CorruptError(where, "block", max(block, self._starts[at]), "not one of the journal's")
