"""Census of a filesystem: which blocks and inodes are in use, and how many names each inode has.

It is counted from whole inode tables, block maps and directories, never from bitmaps or counters. The check fills it pass by
pass (``ext3.fsck``); ``take_census`` fills it at once and lists what disagrees. A few bytes for each block and inode, in
arrays whose untouched pages take no memory; so they are looked through in pieces (``rows_where``), without temporary arrays
of their length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..constants import ROOT_INO, S_IFDIR, S_IFMT
from ..format.geometry import Geometry
from ..format.layout_columns import Table
from ..format.superblock import Superblock

__all__ = ["MODELESS", "Census", "counts_by_group", "pieces", "rows_where", "system_ranges"]

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

MODELESS = 1
"""Mode, in a census, of an inode in use whose i_mode is 0."""
PIECE_ROWS = 1 << 22
"""Rows of long columns that are looked at together."""
DENSE = 8
"""Numbers in a range of so many times their count are counted faster with the whole range."""


def pieces(count: int) -> Iterator[slice]:
    """Yield the pieces in which ``count`` rows are looked at."""
    for low in range(0, count, PIECE_ROWS):
        yield slice(low, min(low + PIECE_ROWS, count))


def rows_where(count: int, condition: Callable[[slice], Flags]) -> Numbers:
    """Return the rows, of ``count``, for which ``condition``, which gets a piece of them, is true; ascending."""
    found = [part.start + np.flatnonzero(condition(part)) for part in pieces(count)]
    return np.concatenate([np.zeros(0, np.int64), *found])


def counts_by_group(flags: Flags, geometry: Geometry) -> Numbers:
    """Return how many blocks of each group have their flag set; ``flags``: by block number."""
    first, count = geometry.columns.group_first.tolist(), geometry.columns.group_blocks.tolist()
    counts = (np.count_nonzero(flags[low : low + length]) for low, length in zip(first, count, strict=True))
    return np.fromiter(counts, np.int64, geometry.groups)


class Census:
    """Counts by inode number and by block number; row 0 of the inode columns is unused.

    ``mode``: i_mode of each inode in use (MODELESS if that is 0), 0 for a free one; ``links``: its i_links_count; ``names``:
    the directory entries that lead to it, ``.`` and ``..`` included. ``used``: blocks in use; ``shared``: those claimed more
    than once; ``system``: superblocks, descriptors, bitmaps and inode tables. ``owner``: the inode of each block, if asked for
    (0: none, or a system block).
    """

    def __init__(self, superblock: Superblock, *, owners: bool = False) -> None:
        inodes, blocks = superblock.inodes_count + 1, superblock.blocks_count
        self.mode: npt.NDArray[np.uint16] = np.zeros(inodes, np.uint16)
        self.links: npt.NDArray[np.uint16] = np.zeros(inodes, np.uint16)
        self.names: npt.NDArray[np.uint32] = np.zeros(inodes, np.uint32)
        self.used: Flags = np.zeros(blocks, np.bool_)
        self.shared: Flags = np.zeros(blocks, np.bool_)
        self.system: Flags = np.zeros(blocks, np.bool_)
        self.owner: npt.NDArray[np.uint32] | None = np.zeros(blocks, np.uint32) if owners else None
        self.any_shared = False

    def is_dir(self, ino: int) -> bool:
        return int(self.mode[ino]) & S_IFMT == S_IFDIR

    @property
    def directories(self) -> Numbers:
        """Numbers of the directories in use, ascending."""
        return rows_where(len(self.mode), lambda part: (self.mode[part] & S_IFMT) == S_IFDIR)

    def wrong_links(self, first_ino: int) -> Numbers:
        """Return the inodes in use that have no names, or not as many as links; below ``first_ino`` only the root is one."""

        def wrong(part: slice) -> Flags:
            mode, names, links = self.mode[part], self.names[part], self.links[part]
            odd: Flags = (mode != 0) & ((names != links) | (names == 0))
            return odd

        found = rows_where(len(self.mode), wrong)
        checked: Numbers = found[(found == ROOT_INO) | (found >= first_ino)]
        return checked

    def add_names(self, inos: Numbers) -> None:
        """Count one name more of each of these inodes, for each time it is there."""
        if not len(inos):
            return
        low, high = int(inos.min()), int(inos.max()) + 1
        if high - low > DENSE * len(inos):
            np.add.at(self.names, inos, 1)
        else:
            self.names[low:high] += np.bincount(inos - low, minlength=high - low).astype(np.uint32)

    def mark_system(self, superblock: Superblock, groups: Table) -> None:
        """Mark the system blocks of every group as used, and what lies before the first group. Two that overlap are shared."""
        before = slice(0, superblock.first_data_block)
        self.used[before] = self.system[before] = True
        for first, count in system_ranges(superblock, groups):
            part = slice(first, first + count)
            if self.used[part].any():
                self.shared[part] |= self.used[part]
                self.any_shared = True
            self.used[part] = True
            self.system[part] = True

    def claim(self, blocks: Numbers) -> None:
        """Mark blocks (of files, in any order) as used; those used already, or given twice, are shared."""
        if not len(blocks):
            return
        taken = self.used[blocks]
        if taken.any():
            self.shared[blocks[taken]] = True
            self.any_shared = True
        self.used[blocks] = True
        ordered = np.sort(blocks)
        twice = ordered[1:] == ordered[:-1]
        if twice.any():
            self.shared[ordered[1:][twice]] = True
            self.any_shared = True


def system_ranges(superblock: Superblock, groups: Table) -> list[tuple[int, int]]:
    """Return (first block, count) of the superblock and descriptors, the bitmaps and the inode table of each group.

    A bitmap or table that the descriptor does not name (0), or that leaves the filesystem, is left out.
    """
    geometry = superblock.geometry
    first, blocks = geometry.first_data_block, geometry.blocks
    found: list[tuple[int, int]] = []
    starts, heads = geometry.columns.group_first.tolist(), geometry.columns.head_blocks.tolist()
    for start, head in zip(starts, heads, strict=True):
        if head:
            found.append((start, min(head, blocks - start)))
    for field, count in (("bg_block_bitmap", 1), ("bg_inode_bitmap", 1), ("bg_inode_table", geometry.inode_table_blocks)):
        places = groups[field].astype(np.int64)
        inside = (places >= first) & (places > 0) & (places + count <= blocks)
        found += [(place, count) for place in places[inside].tolist()]
    return found
