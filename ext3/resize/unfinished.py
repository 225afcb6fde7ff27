"""Interrupted resizes, and how they are finished.

The sign of one: the first backup of the superblock (``interruption``). A filesystem of one group has none: there the superblock
counts as many more blocks as free than the group does, as there are that belong to nobody, or none, and a journal is to be
replayed. What is left: such blocks, marked as used, a journal, a resize inode to be made again, the copy of the journal's
inode, and backups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ..check.bitmap_rows import bitmap_kinds, compare_bitmaps
from ..check.census import Census, counts_by_group
from ..check.census_taking import take_census
from ..constants import JOURNAL_BACKUP_BLOCKS
from ..device.base import BlockDevice
from ..edit.opening import open_for_changes
from ..errors import NeedsCheckError
from ..format.geometry import Geometry
from ..format.group_desc import read_groups
from ..format.schema import INODE_CORE
from ..format.superblock import Superblock, read_superblock
from ..journal.replay import through_journal
from .backup_copies import write_backups
from .full_census import Tables, tables_of
from .interruption import unfinished_geometry
from .journal_relocation import journal_backup
from .new_geometry import geometry_of_size
from .preconditions import check_descriptors, check_limits, check_state, open_tables, resize_map_block
from .switch import free_in_steps, reserve_places, restore_resize_inode
from .transactions import Transactions

__all__ = ["finish"]

Numbers = npt.NDArray[np.int64]

_LEAKS = ("bg_block_bitmap", "bg_free_blocks_count")
"""Fields in which blocks that belong to nobody show."""


def finish(device: BlockDevice, *, clock: Callable[[], int] = time.time_ns) -> bool:
    """Finish a resize that was interrupted. Return False if there is none.

    A journal that it left is replayed. Blocks that belong to nobody are freed, the resize inode is made again if its blocks
    are still there, and the backups are written. In a filesystem of one group nothing tells a journal that a resize left from
    another one: it is replayed if the filesystem is whole afterwards. Raise NeedsCheckError with nothing written if anything
    else is wrong, UnsupportedError, CorruptError, DeviceError.
    """
    superblock = read_superblock(device)
    view, problem = through_journal(device, superblock)
    if problem is not None:
        raise problem
    found = read_superblock(view)
    before = unfinished_geometry(view, found)
    counted = 0
    if before is None:
        if found.geometry.backup_groups:
            return False
        counted = _counted_leaks(view, found)
        if counted < 0 or (not counted and not superblock.needs_recovery):
            return False
    try:
        check_state(found, dirty=True)
        census, leaks = _leaks(_tables(view, found))
    except NeedsCheckError:
        if before is None:
            return False  # counts may be wrong for other reasons
        raise
    if before is None:
        if len(leaks) != counted:
            return False
        before = found.geometry
    if superblock.needs_recovery:
        open_for_changes(device)  # replays
        superblock = read_superblock(device)
    opened = open_tables(device, superblock)
    changes = Transactions(device, opened, clock=clock)
    geometry = superblock.geometry
    want = geometry_of_size(before, geometry.blocks)
    map_at: int | None = None
    if want.resize_inode and not geometry.resize_inode and geometry.first_meta_bg is None:
        reserve = np.concatenate([np.array(places, np.int64) for places in reserve_places(want)])
        if np.isin(reserve, leaks, assume_unique=True).all():
            leaks = np.setdiff1d(leaks, reserve, assume_unique=True)
            map_at, leaks = _place_map(changes, census, reserve, leaks)
    free_in_steps(changes, _runs(leaks, geometry))
    if map_at is not None:
        restore_resize_inode(changes, want, map_at)
    _restore_journal_backup(changes)
    changes.close()
    write_backups(device, changes.superblock.geometry, changes.raw, changes.groups)
    return True


def _counted_leaks(device: BlockDevice, superblock: Superblock) -> int:
    """Return how many more blocks the superblock of a filesystem without backups counts as free than its group does.

    That may have other reasons: the kernel writes the counts of the superblock late.
    """
    return superblock.free_blocks - sum(read_groups(device, superblock)["bg_free_blocks_count"])


def _runs(blocks: Numbers, geometry: Geometry) -> Iterator[range]:
    """Yield the runs of ascending blocks, each in one group."""
    group = (blocks - geometry.first_data_block) // geometry.blocks_per_group
    for run in np.split(blocks, np.flatnonzero((np.diff(blocks) != 1) | (np.diff(group) != 0)) + 1):
        if len(run):
            yield range(int(run[0]), int(run[-1]) + 1)


def _restore_journal_backup(changes: Transactions) -> None:
    """Copy the map of the journal's inode to the superblock, if it differs: the journal moved."""
    superblock = changes.superblock
    if not superblock.has_journal or superblock.journal_backup_type != JOURNAL_BACKUP_BLOCKS:
        return
    words = INODE_CORE.at(changes.read_inode(superblock.journal_ino))["i_block"]
    if tuple(words) != superblock.journal_backup[: len(words)]:
        changes.set_fields(s_jnl_blocks=journal_backup(changes, words))


def _tables(device: BlockDevice, superblock: Superblock) -> Tables:
    """Return superblock and descriptors on a device. Raise NeedsCheckError or CorruptError unless they keep their limits."""
    check_limits(device, superblock)
    groups = read_groups(device, superblock)
    check_descriptors(superblock, groups)
    resize_map_block(device, superblock, groups)
    return tables_of(device, superblock, groups)


def _leaks(tables: Tables) -> tuple[Census, Numbers]:
    """Return the blocks that are marked as used and belong to nobody. Raises NeedsCheckError if anything else is wrong."""
    inventory = take_census(tables)
    for violation in inventory.violations:
        if violation.field not in _LEAKS:
            raise NeedsCheckError(f"was interrupted while it was resized, and is damaged ({violation.error})")
    census, geometry = inventory.census, tables.superblock.geometry
    leaks = np.concatenate([np.zeros(0, np.int64), *_leaks_by_group(tables, census)])
    marked = counts_by_group(census.used, geometry)
    marked += np.bincount((leaks - geometry.first_data_block) // geometry.blocks_per_group, minlength=geometry.groups)
    if (marked + tables.groups["bg_free_blocks_count"] != geometry.columns.group_blocks).any():
        raise NeedsCheckError("was interrupted while it was resized, and has wrong counts of free blocks")
    return census, leaks


def _leaks_by_group(tables: Tables, census: Census) -> Iterator[Numbers]:
    blocks, _ = bitmap_kinds(tables.superblock, census)
    for _ in compare_bitmaps(tables.device.read, tables.superblock, tables.groups, (blocks,)):
        pass
    for group, stored in sorted(blocks.differing, key=lambda pair: pair[0]):
        used, marked = blocks.differences(group, stored)
        if (used & ~marked).any() or not blocks.padded(group, stored):
            raise NeedsCheckError("was interrupted while it was resized, and has blocks in use that are marked as free")
        yield np.flatnonzero(marked & ~used) + group * blocks.per_group + blocks.first


def _place_map(changes: Transactions, census: Census, reserve: Numbers, leaks: Numbers) -> tuple[int | None, Numbers]:
    """Choose a block for the map of the resize inode. Return it, and the other leaks; None if there is no block."""
    if len(leaks):
        return int(leaks[0]), leaks[1:]
    free = ~census.used
    free[reserve] = False
    if not free.any():
        return None, leaks
    block = int(free.argmax())
    changes.take_run(range(block, block + 1))
    return block, leaks
