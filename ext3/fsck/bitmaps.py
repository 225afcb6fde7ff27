"""Pass 5: bitmaps, counts of the groups and of the superblock are those of the blocks and inodes in use.

In: ``census.used`` and ``mode``, and what repairs of this run allocated and freed: that is no fault, but it is written.
Source: e2fsprogs ``e2fsck/pass5.c``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
import numpy.typing as npt

from ..check.bitmap_rows import BitmapKind, bitmap_kinds, compare_bitmaps, range_text
from ..constants import S_IFMT, S_IFREG
from .context import Context
from .problem import Place, Problem
from .problems.counts import (
    BLOCK_BITMAP,
    BLOCK_BITMAP_PADDING,
    FREE_BLOCKS,
    FREE_INODES,
    GROUP_DIRECTORIES,
    GROUP_FREE_BLOCKS,
    GROUP_FREE_INODES,
    INODE_BITMAP,
    INODE_BITMAP_PADDING,
)
from .storage import Stage

__all__ = ["check_bitmaps"]

Numbers = npt.NDArray[np.int64]
Rows = dict[int, bytes]
"""Bitmaps to be written, by block."""

GROUPS_SHOWN = 16


def check_bitmaps(context: Context) -> None:
    """Run pass 5."""
    kinds = blocks, inodes = bitmap_kinds(context.superblock, context.census)
    for done in compare_bitmaps(context.storage.read, context.superblock, context.groups, kinds):
        if context.progress is not None:
            context.progress(5, done, context.superblock.groups_count)
    rows: Rows = {}
    _check_rows(context, blocks, context.allocated | context.freed, BLOCK_BITMAP, rows)
    _check_block_counts(context, blocks)
    _check_rows(context, inodes, context.inodes_allocated | context.inodes_freed, INODE_BITMAP, rows)
    _check_inode_counts(context, inodes)
    _check_padding(context, inodes, INODE_BITMAP_PADDING, rows)
    _check_padding(context, blocks, BLOCK_BITMAP_PADDING, rows)
    for block, data in rows.items():
        context.storage.write_block(block, data, Stage.MAPS)
    context.write_groups()  # also if only a file's map led there, and was corrected
    context.settle()
    _sum_up(context)


# Bitmaps


def _check_rows(context: Context, kind: BitmapKind, changed: set[int], problem: Problem, rows: Rows) -> None:
    """Report the bitmaps that differ by more than repairs ``changed``, and add what is to be written to ``rows``."""
    ours = np.sort(np.fromiter(changed, np.int64, len(changed))) - kind.first
    for group, stored in kind.differing:
        used, marked = kind.differences(group, stored)
        begin = group * kind.per_group
        low, high = np.searchsorted(ours, [begin, begin + len(used)])
        mine = ours[low:high] - begin
        differs = used != marked
        differs[mine] = False
        odd = np.flatnonzero(differs)
        result = marked.copy()
        result[mine] = used[mine]
        if not len(odd) or context.fix(problem, Place(group=group), got=range_text(odd + kind.first + begin, marked[odd])):
            result = used
        if not np.array_equal(result, marked):
            bits = np.unpackbits(stored, bitorder="little")
            bits[: len(result)] = result
            rows[int(context.groups[kind.column][group])] = np.packbits(bits, bitorder="little").tobytes()


def _check_padding(context: Context, kind: BitmapKind, problem: Problem, rows: Rows) -> None:
    """Set the bits behind the last number of each group."""
    unset = {group: stored for group, stored in kind.differing if not kind.padded(group, stored)}
    if not unset:
        return
    shown = " ".join(map(str, islice(unset, GROUPS_SHOWN))) + (" ..." if len(unset) > GROUPS_SHOWN else "")
    if not context.fix(problem, Place(group=next(iter(unset))), got=shown):
        return
    for group, stored in unset.items():
        block = int(context.groups[kind.column][group])
        raw = rows.get(block) or stored.tobytes()
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        bits[kind.real(group) :] = 1
        rows[block] = np.packbits(bits, bitorder="little").tobytes()


# Counts


def _check_block_counts(context: Context, kind: BitmapKind) -> None:
    geometry = context.superblock.geometry
    free = geometry.columns.group_blocks - kind.used
    change = _by_group(context.freed, kind) - _by_group(context.allocated, kind)
    _check_groups(context, "bg_free_blocks_count", free, change, GROUP_FREE_BLOCKS)
    _check_total(context, "s_free_blocks_count", int(free.sum()), int(change.sum()), FREE_BLOCKS)


def _check_inode_counts(context: Context, kind: BitmapKind) -> None:
    free = kind.per_group - kind.used
    change = _by_group(context.inodes_freed, kind) - _by_group(context.inodes_allocated, kind)
    groups = context.superblock.groups_count
    group = (context.census.directories - 1) // kind.per_group
    directories = np.bincount(group, minlength=groups).astype(np.int64)
    made = np.zeros(groups, np.int64)
    for ino, count in context.directories_changed:
        made[(ino - 1) // kind.per_group] += count
    _check_groups(context, "bg_free_inodes_count", free, change, GROUP_FREE_INODES)
    _check_groups(context, "bg_used_dirs_count", directories, made, GROUP_DIRECTORIES)
    _check_total(context, "s_free_inodes_count", int(free.sum()), int(change.sum()), FREE_INODES)


def _by_group(numbers: Iterable[int], kind: BitmapKind) -> Numbers:
    """Count numbers by their group."""
    every = np.fromiter(numbers, np.int64)
    return np.bincount((every - kind.first) // kind.per_group, minlength=len(kind.used)).astype(np.int64)


def _check_groups(context: Context, column: str, want: Numbers, change: Numbers, problem: Problem) -> None:
    """Check a count of every group. ``change``: by how much repairs change it.

    A block that was marked as used, belonged to no file and was allocated by a repair changes no count.
    """
    stored = context.groups[column].astype(np.int64)
    expected = np.clip(stored + change, 0, 0xFFFF)
    result = want.copy()
    for group in np.flatnonzero((expected != want) & (stored != want)).tolist():
        if not context.fix(problem, Place(group=group), got=int(stored[group]), want=int(want[group])):
            result[group] = expected[group]
    if not np.array_equal(stored, result):
        context.groups[column] = result
        context.groups_changed = True


def _check_total(context: Context, name: str, want: int, change: int, problem: Problem) -> None:
    """Check a sum in the superblock."""
    stored = context.field(name)
    expected = min(max(stored + change, 0), 0xFFFFFFFF)
    result = want
    if want not in (stored, expected) and not context.fix(problem, got=stored, want=want):
        result = expected
    if result != stored:
        context.set_superblock(**{name: result})


def _sum_up(context: Context) -> None:
    report, superblock, mode = context.report, context.superblock, context.census.mode
    report.inodes_count = superblock.inodes_count
    report.inodes_used = superblock.inodes_count - context.field("s_free_inodes_count")
    report.directories = len(context.census.directories)
    report.files = int(np.count_nonzero((mode & S_IFMT) == S_IFREG))
    report.blocks_count = superblock.blocks_count
    report.blocks_used = superblock.blocks_count - context.field("s_free_blocks_count")
    report.block_size = superblock.block_size
    report.label = superblock.label
