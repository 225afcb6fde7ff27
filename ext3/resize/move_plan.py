"""Plan of what moves when a filesystem shrinks, and the smallest size it can have. Pure: nothing is read or written.

``minimum_size`` and the refusal of a size below it share their arithmetic with the plan. Source of the rules: e2fsprogs
``resize/resize2fs.c``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..check.census import Census, counts_by_group, pieces, rows_where
from ..constants import BAD_INO, JOURNAL_INO, RESIZE_INO
from ..errors import TooSmallError
from ..format.block_map import BlockMap
from ..format.geometry import Geometry
from ..format.group_desc import Groups
from ..format.superblock import Superblock
from .bad_blocks import BadBlocks, plan_bad_blocks
from .new_geometry import geometry_of_size, least_last_group

__all__ = ["MinimumSize", "PlannedMoves", "check_size", "minimum_size", "plan_moves"]

Numbers = npt.NDArray[np.int64]


def _none() -> Numbers:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class MinimumSize:
    """Smallest size of a filesystem. ``content_blocks``: files, directories, attributes and their pointers; ``journal_blocks``
    with its pointers; the rest is metadata."""

    blocks: int
    content_blocks: int
    journal_blocks: int
    block_size: int

    @property
    def size_bytes(self) -> int:
        return self.blocks * self.block_size


def check_size(superblock: Superblock, groups: Groups, blocks: int, census: Census) -> None:
    """Raise TooSmallError for a size in ``blocks`` that is below the smallest one. ``census``: with owners."""
    least = minimum_size(superblock, groups, census)
    if blocks < least.blocks:
        raise TooSmallError(
            f"{blocks * least.block_size} bytes are too few for what the filesystem holds",
            least=least.size_bytes,
            content_bytes=least.content_blocks * least.block_size,
            journal_bytes=least.journal_blocks * least.block_size,
        )


# -- the smallest size -----------------------------------------------------------------------------------------------


def minimum_size(superblock: Superblock, groups: Groups, census: Census) -> MinimumSize:
    """Return the smallest size that a filesystem can be cut to. ``census``: with owners."""
    old = superblock.geometry
    need = int(np.count_nonzero(census.used)) - int(np.count_nonzero(census.system))  # which is in use
    journal = _owned(census, JOURNAL_INO)
    reserved = superblock.first_ino - 1
    inodes = reserved + int(np.count_nonzero(census.mode[superblock.first_ino :]))
    blocks = _least_blocks(old, groups, census, need, inodes)
    return MinimumSize(blocks, need - journal, journal, old.block_size)


def _owned(census: Census, ino: int) -> int:
    """Return how many blocks an inode has."""
    owner = census.owner
    return 0 if owner is None else sum(int(np.count_nonzero(owner[part] == ino)) for part in pieces(len(owner)))


def _least_blocks(old: Geometry, groups: Groups, census: Census, need: int, inodes: int) -> int:
    edges = old.columns.group_first
    system = counts_by_group(census.system, old)
    room = np.cumsum(old.columns.group_blocks - system)
    """Blocks for content in the groups up to each."""
    enough = np.flatnonzero((room >= need) & (np.arange(1, old.groups + 1) * old.inodes_per_group >= inodes))
    for last in enough.tolist():
        before = int(room[last - 1]) if last else 0
        count = int(system[last]) + max(0, need - before)
        whole = int(edges[last]) + old.block_count(last)
        least = least_last_group(old, groups, geometry_of_size(old, whole))
        if max(count, least) <= old.block_count(last):
            return int(edges[last]) + max(count, least)
    return old.blocks


# -- what moves ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlannedMoves:
    """Blocks and inodes that move, in columns of equal length.

    ``block_from`` (ascending) and ``block_to``: blocks of files, directories, attributes, and pointers; ``journal_from`` and
    ``journal_to``: those of the journal and its pointers; ``inode_from`` (ascending) and ``inode_to``. ``map_to``: where the
    map of the resize inode goes, None if it stays. ``bad_blocks``: the new list of them, None if the old one stays.
    """

    block_from: Numbers
    block_to: Numbers
    journal_from: Numbers
    journal_to: Numbers
    inode_from: Numbers
    inode_to: Numbers
    map_to: int | None
    bad_blocks: BadBlocks | None

    @property
    def blocks(self) -> int:
        """Blocks that are copied."""
        return len(self.block_from) + len(self.journal_from)

    @property
    def inodes(self) -> int:
        return len(self.inode_from)

    @property
    def any(self) -> bool:
        """True if blocks or inodes move to other places."""
        return bool(self.blocks or self.inodes)


def plan_moves(superblock: Superblock, new: Geometry, census: Census, bad_blocks: BlockMap | None) -> PlannedMoves:
    """Plan what moves when a filesystem shrinks to ``new``. ``census``: with owners. ``bad_blocks``: see ``plan``."""
    assert census.owner is not None
    old = superblock.geometry
    used, system = census.used[new.blocks :], census.system[new.blocks :]
    moved = new.blocks + rows_where(len(used), lambda part: used[part] & ~system[part])
    owner = census.owner[moved]
    of_journal, of_map, bad = owner == JOURNAL_INO, owner == RESIZE_INO, owner == BAD_INO
    free = _FreeRuns(census.used[: new.blocks])
    journal_from = moved[of_journal]
    journal_to = free.take(len(journal_from))
    map_to = free.take(int(of_map.sum()))
    block_from = moved[~of_journal & ~of_map & ~bad]
    block_to = free.take(len(block_from))
    bad_after: BadBlocks | None = None
    if bad.any():
        if bad_blocks is None:
            raise ValueError("a plan that drops bad blocks needs their list")
        bad_after = plan_bad_blocks(bad_blocks, new.blocks, old.pointers_per_block, free.take)
    first, mode = superblock.first_ino, census.mode
    beyond = mode[new.inodes + 1 :]
    inode_from = new.inodes + 1 + rows_where(len(beyond), lambda part: beyond[part] != 0)
    inode_to = _free_inodes(mode[: new.inodes + 1], first, len(inode_from))
    return PlannedMoves(
        block_from,
        block_to,
        journal_from,
        journal_to,
        inode_from,
        inode_to,
        int(map_to[0]) if len(map_to) else None,
        bad_after,
    )


def _free_inodes(mode: npt.NDArray[np.uint16], first: int, count: int) -> Numbers:
    """Return the lowest ``count`` inodes from ``first`` on that are not in use."""
    found = [_none()]
    for part in pieces(len(mode) - first):
        if count <= 0:
            break
        free = first + part.start + np.flatnonzero(mode[first:][part] == 0)[:count]
        found.append(free)
        count -= len(free)
    return np.concatenate(found)


class _FreeRuns:
    """Runs of free blocks, of which some are taken. ``used``: which blocks are not free."""

    def __init__(self, used: npt.NDArray[np.bool_]) -> None:
        starts, ends = [_none()], [_none()]
        for part in pieces(len(used)):
            free = np.concatenate([[False], ~used[part], [False]])
            edges = part.start + np.flatnonzero(free[1:] != free[:-1])
            starts.append(edges[::2])
            ends.append(edges[1::2])
        self._starts = np.concatenate(starts)
        self._lengths = np.concatenate(ends) - self._starts

    def take(self, count: int) -> Numbers:
        """Take ``count`` blocks, in as few runs as possible; return them in ascending order."""
        if not count:
            return _none()
        longest = np.argsort(-self._lengths, kind="stable")
        total = np.cumsum(self._lengths[longest])
        if not len(total) or total[-1] < count:
            raise ValueError("more blocks are needed than are free")
        chosen = np.sort(longest[: int(np.searchsorted(total, count)) + 1])
        starts, lengths = self._starts[chosen], self._lengths[chosen]
        before = np.cumsum(lengths) - lengths
        # Of the last run, only what is needed.
        left = int(lengths.sum()) - count
        lengths[-1] -= left
        taken: Numbers = np.repeat(starts - before, lengths) + np.arange(count)
        self._starts[chosen] += lengths
        self._lengths[chosen] -= lengths
        return taken
