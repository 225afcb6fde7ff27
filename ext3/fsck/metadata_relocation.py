"""Metadata of groups: bitmaps and inode tables that are missing, or lie where something else is, get a new place.

A missing table is made of zeros; one in conflict is copied. The passes begin again afterwards. Source of the rules: e2fsprogs
``e2fsck/pass1.c`` (mark_table_blocks, handle_fs_bad_blocks, new_table_block).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..check.census import system_ranges
from ..errors import DeviceError
from .context import Context, GaveUp, Restart
from .problem import Place
from .problems import inodes as problems
from .storage import Stage

__all__ = ["BITMAP_FIELDS", "MetadataPlaces"]

BITMAP_FIELDS = {"bg_block_bitmap": "block bitmap", "bg_inode_bitmap": "inode bitmap"}
FIELDS = {"bg_inode_table": "inode table", **BITMAP_FIELDS}
"""Descriptor fields, in the order in which they are checked."""
CONFLICTS = {
    "bg_inode_table": problems.INODE_TABLE_CONFLICT,
    "bg_block_bitmap": problems.BLOCK_BITMAP_CONFLICT,
    "bg_inode_bitmap": problems.INODE_BITMAP_CONFLICT,
}
HEAD = "head"
"""Name of what a group begins with: superblock and descriptors."""


class MetadataPlaces:
    """Places of the metadata of all groups."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._geometry = context.superblock.geometry
        self._moves: dict[tuple[int, str], bool] = {}
        """(group, field) of what gets a new place, and whether its content is copied."""

    def inside(self, block: int) -> bool:
        """Return whether a block lies in the filesystem."""
        return self._geometry.first_data_block <= block < self._geometry.blocks

    def relocate(self, group: int, field: str, *, copy: bool) -> None:
        """Note that a bitmap or inode table gets a new place when all blocks in use are known."""
        self._moves.setdefault((group, field), copy)

    def find(self, block: int) -> tuple[int, str] | None:
        """Return (group, field) of what metadata a block holds; the field of superblock and descriptors is ``head``."""
        geometry, groups = self._geometry, self._context.groups
        for group in range(geometry.groups):
            first = geometry.first_block(group)
            if first <= block < first + geometry.head_count(group):
                return group, HEAD
            for field, count in self._counts():
                if 0 < int(groups[field][group]) <= block < int(groups[field][group]) + count:
                    return group, field
        return None

    def _counts(self) -> list[tuple[str, int]]:
        return [("bg_block_bitmap", 1), ("bg_inode_bitmap", 1), ("bg_inode_table", self._geometry.inode_table_blocks)]

    def check(self) -> None:
        """Mark the system blocks in the census, and report what is missing or overlaps."""
        context = self._context
        context.census.mark_system(context.superblock, context.groups)
        self._check_missing()
        ranges = sorted(system_ranges(context.superblock, context.groups))
        if any(first + count > after for (first, count), (after, _) in pairwise(ranges)):
            self._check_conflicts()

    def _check_missing(self) -> None:
        context, geometry = self._context, self._geometry
        for field, count in self._counts():
            places = context.groups[field].astype(np.int64)
            bad = (places < max(geometry.first_data_block, 1)) | (places + count > geometry.blocks)
            for group in np.flatnonzero(bad).tolist():
                if context.fix(problems.METADATA_MISSING, Place(group=group), got=FIELDS[field]):
                    self.relocate(group, field, copy=False)
                elif field == "bg_inode_table":
                    raise GaveUp(f"the inodes of group {group} cannot be read")

    def _check_conflicts(self) -> None:
        """Find what overlaps: the table or bitmap that comes later, group by group, is the one that is moved."""
        context, geometry = self._context, self._geometry
        used = np.zeros(geometry.blocks, np.bool_)
        for first, count in zip(geometry.columns.group_first.tolist(), geometry.columns.head_blocks.tolist(), strict=True):
            used[first : first + count] = True
        counts = dict(self._counts())
        for group in range(geometry.groups):
            for field in FIELDS:
                if (group, field) in self._moves:
                    continue
                first, count = int(context.groups[field][group]), counts[field]
                part = used[first : first + count]
                if not part.any():
                    part[:] = True
                    continue
                block = first + int(part.argmax())
                part[:] = True
                if context.fix(CONFLICTS[field], Place(group=group, block=block)):
                    self.relocate(group, field, copy=True)

    def apply(self) -> None:
        """Give what was noted a new place, and begin the passes again. Call it when all blocks in use are known."""
        if not self._moves:
            return
        context = self._context
        counts = dict(self._counts())
        for (group, field), copy in sorted(self._moves.items()):
            count = counts[field]
            place = self._free_run(group, count)
            if not place:
                raise GaveUp(f"group {group} has no room for its {FIELDS[field]}, which needs {count} blocks in a row")
            old = int(context.groups[field][group])
            if copy:  # until the descriptors are written, storage has its only copy there
                context.held[old : old + count] = True
            for at in range(count):
                context.storage.write_block(
                    place + at, self._content(old + at) if copy else bytes(context.block_size), Stage.NEW
                )
            context.census.used[place : place + count] = True
            context.groups[field][group] = place
            context.fix(problems.METADATA_MOVED, Place(group=group), got=FIELDS[field], want=place)
        context.write_groups()
        context.write_backups = True
        raise Restart

    def _content(self, block: int) -> bytes:
        try:
            return self._context.read(block)
        except DeviceError:
            return bytes(self._context.block_size)

    def _free_run(self, group: int, count: int) -> int:
        """Return the first of ``count`` free blocks in a row in a group, 0 if there are none."""
        first = self._geometry.first_block(group)
        end = first + self._geometry.block_count(group)
        part = self._context.census.used[first:end] | self._context.held[first:end]
        edges = np.flatnonzero(np.diff(np.concatenate([[True], part, [True]]).astype(np.int8)))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if end - begin >= count:
                return first + int(begin)
        return 0
