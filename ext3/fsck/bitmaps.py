"""Pass 5: bitmaps, counts of the groups and of the superblock are those of the blocks and inodes in use.

In: ``census.used`` and ``mode``, and what repairs of this run allocated and freed. That is no fault, but it is written. Bitmaps
are compared packed; only those that differ are unpacked. Source: e2fsprogs ``e2fsck/pass5.c``, ``lib/ext2fs/rw_bitmaps.c``
(padding).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..check.block_maps import read_blocks
from ..constants import S_IFMT, S_IFREG
from ..errors import DeviceError
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

__all__ = ["check_bitmaps", "pack_rows", "range_text"]

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

BATCH_BYTES = 4 << 20
"""Bytes of one kind of bitmap that are compared at once."""
RANGES_SHOWN = 64
GROUPS_SHOWN = 16
_ONES = np.array([bin(number).count("1") for number in range(256)], np.uint8)


@dataclass(slots=True)
class _Kind:
    """Bitmaps of one kind. ``flags``: what is in use, from number ``first`` on; ``per_group`` of them in a group."""

    column: str
    flags: Flags
    first: int
    per_group: int
    changed: Numbers
    """Numbers whose bits repairs of this run change, ascending."""
    problem: Problem
    padding: Problem
    used: Numbers
    """Numbers in use of each group."""
    differing: list[tuple[int, Bytes]] = field(default_factory=list)
    """(group, bitmap on storage) of those that are not as they should be."""

    @property
    def row_bytes(self) -> int:
        return -(-self.per_group // 8)

    def real(self, group: int) -> int:
        """Return how many numbers a group has: the last one may have fewer."""
        return min(self.per_group, len(self.flags) - group * self.per_group)


def check_bitmaps(context: Context) -> None:
    """Run pass 5."""
    superblock, census = context.superblock, context.census
    groups = superblock.groups_count
    inodes = census.mode[1:] != 0
    inodes[: superblock.first_ino - 1] = True
    blocks = _Kind(
        "bg_block_bitmap",
        census.used[superblock.first_data_block :],
        superblock.first_data_block,
        superblock.blocks_per_group,
        _ordered(context.allocated | context.freed),
        BLOCK_BITMAP,
        BLOCK_BITMAP_PADDING,
        np.zeros(groups, np.int64),
    )
    nodes = _Kind(
        "bg_inode_bitmap",
        inodes,
        1,
        superblock.inodes_per_group,
        _ordered(context.inodes_allocated | context.inodes_freed),
        INODE_BITMAP,
        INODE_BITMAP_PADDING,
        np.zeros(groups, np.int64),
    )
    widest = max(superblock.block_size, blocks.row_bytes, nodes.row_bytes)
    batch = max(1, BATCH_BYTES // widest)
    for low in range(0, groups, batch):
        _compare(context, (blocks, nodes), low, min(low + batch, groups))
        if context.progress is not None:
            context.progress(5, min(low + batch, groups), groups)
    rows: dict[int, bytes] = {}
    _judge_bitmaps(context, blocks, rows)
    _check_block_counts(context, blocks)
    _judge_bitmaps(context, nodes, rows)
    _check_inode_counts(context, nodes)
    for kind in (nodes, blocks):
        _check_padding(context, kind, rows)
    for block, data in rows.items():
        context.storage.write_block(block, data, Stage.MAPS)
    if context.groups_changed:
        context.write_groups()
    _sum_up(context)


# Bitmaps


def pack_rows(flags: Flags, per_group: int, low: int, high: int, row_bytes: int) -> Bytes:
    """Return the bitmaps of groups ``low`` to ``high``, shape (groups, row_bytes): bits past the last number are set."""
    count = high - low
    part = flags[low * per_group : high * per_group]
    if len(part) < count * per_group:
        part = np.concatenate([part, np.ones(count * per_group - len(part), np.bool_)])
    if per_group % 8:
        bits = np.packbits(part.reshape(count, per_group), axis=1, bitorder="little")
        bits[:, -1] |= 0xFF << per_group % 8 & 0xFF
    else:
        bits = np.packbits(part, bitorder="little").reshape(count, -1)
    rows = np.full((count, row_bytes), 0xFF, np.uint8)
    rows[:, : bits.shape[1]] = bits
    return rows


def _compare(context: Context, kinds: tuple[_Kind, ...], low: int, high: int) -> None:
    """Count what is in use in groups, and note the bitmaps that differ."""
    size = context.block_size
    places = [context.groups[kind.column][low:high].astype(np.int64) for kind in kinds]
    inside = [(place >= context.superblock.first_data_block) & (place < context.superblock.blocks_count) for place in places]
    stored = _read(context, np.concatenate([place[good] for place, good in zip(places, inside, strict=True)]))
    done = 0
    for kind, good in zip(kinds, inside, strict=True):
        want = pack_rows(kind.flags, kind.per_group, low, high, size)
        counted = want[:, : kind.row_bytes]
        kind.used[low:high] = kind.per_group - (8 * kind.row_bytes - _ONES[counted].sum(axis=1, dtype=np.int64))
        found = stored[done : done + int(good.sum())]
        done += len(found)
        for row in np.flatnonzero((found != want[good]).any(axis=1)).tolist():
            kind.differing.append((low + int(np.flatnonzero(good)[row]), found[row].copy()))
    last = context.superblock.groups_count - 1
    if high > last:
        for kind in kinds:
            kind.used[last] -= kind.per_group - kind.real(last)


def _read(context: Context, places: Numbers) -> Bytes:
    """Return bitmap blocks; one that cannot be read is all zero."""
    read, size = context.storage.read, context.block_size
    try:
        return read_blocks(read, places, size)
    except DeviceError:
        found = np.zeros((len(places), size), np.uint8)
        for row, block in enumerate(places.tolist()):
            try:
                found[row] = np.frombuffer(read(block * size, size), np.uint8)
            except DeviceError:
                continue
        return found


def _judge_bitmaps(context: Context, kind: _Kind, rows: dict[int, bytes]) -> None:
    """Report the bitmaps that differ, and add what is to be written to ``rows``, by block."""
    size = context.block_size
    for group, stored in kind.differing:
        real = kind.real(group)
        begin = group * kind.per_group
        want = pack_rows(kind.flags, kind.per_group, group, group + 1, size)[0]
        before, after = (np.unpackbits(raw, bitorder="little") for raw in (stored, want))
        differs = before != after
        differs[real:] = False
        low, high = np.searchsorted(kind.changed, [kind.first + begin, kind.first + begin + real])
        ours = kind.changed[low:high] - kind.first - begin
        differs[ours] = False
        odd = np.flatnonzero(differs)
        if len(odd):
            text = range_text(odd + kind.first + begin, before[odd] == 1)
            repaired = context.fix(kind.problem, Place(group=group), got=text)
        else:
            repaired = True
        result = before.copy()
        result[ours] = after[ours]
        if repaired:
            result[:real] = after[:real]
        if not np.array_equal(result, before):
            rows[int(context.groups[kind.column][group])] = np.packbits(result, bitorder="little").tobytes()


def _check_padding(context: Context, kind: _Kind, rows: dict[int, bytes]) -> None:
    """Set the bits behind the last number of each group."""
    unset = [
        group for group, stored in kind.differing if not np.unpackbits(stored, bitorder="little")[kind.real(group) :].all()
    ]
    if not unset:
        return
    shown = " ".join(map(str, unset[:GROUPS_SHOWN])) + (" ..." if len(unset) > GROUPS_SHOWN else "")
    if not context.fix(kind.padding, Place(group=unset[0]), got=shown):
        return
    for group in unset:
        block = int(context.groups[kind.column][group])
        raw = rows.get(block) or context.storage.read_block(block)
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        bits[kind.real(group) :] = 1
        rows[block] = np.packbits(bits, bitorder="little").tobytes()


def range_text(numbers: Numbers, marked: Flags) -> str:
    """Return differences as e2fsck prints them: ``-5`` is marked and not in use, ``+(7--9)`` in use and not marked."""
    signed = np.where(marked, -numbers, numbers)
    breaks = np.flatnonzero((np.diff(numbers) != 1) | (np.diff(marked.astype(np.int8)) != 0)) + 1
    starts, ends = [0, *breaks.tolist()], [*breaks.tolist(), len(numbers)]
    parts = []
    for start, end in list(zip(starts, ends, strict=True))[:RANGES_SHOWN]:
        first, last = abs(int(signed[start])), abs(int(signed[end - 1]))
        sign = "-" if marked[start] else "+"
        parts.append(f"{sign}{first}" if first == last else f"{sign}({first}--{last})")
    if len(starts) > RANGES_SHOWN:
        parts.append(f"and {len(starts) - RANGES_SHOWN} more")
    return " ".join(parts)


def _ordered(numbers: set[int]) -> Numbers:
    return np.sort(np.fromiter(numbers, np.int64, len(numbers)))


# Counts


def _check_block_counts(context: Context, kind: _Kind) -> None:
    geometry = context.superblock.geometry
    free = geometry.group_blocks - kind.used
    change = _by_group(context.freed, kind) - _by_group(context.allocated, kind)
    _check_groups(context, "bg_free_blocks_count", free, change, GROUP_FREE_BLOCKS)
    _check_total(context, "s_free_blocks_count", int(free.sum()), int(change.sum()), FREE_BLOCKS)


def _check_inode_counts(context: Context, kind: _Kind) -> None:
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


def _by_group(numbers: Iterable[int], kind: _Kind) -> Numbers:
    """Count numbers by their group."""
    every = np.fromiter(numbers, np.int64)
    return np.bincount((every - kind.first) // kind.per_group, minlength=len(kind.used)).astype(np.int64)


def _check_groups(context: Context, column: str, want: Numbers, change: Numbers, problem: Problem) -> None:
    """Check a count of every group. ``change``: by how much repairs change it."""
    stored = context.groups[column].astype(np.int64)
    expected = stored + change
    result = want.copy()
    for group in np.flatnonzero(expected != want).tolist():
        got = int(expected[group])
        if not context.fix(problem, Place(group=group), got=got, want=int(want[group])):
            result[group] = min(max(got, 0), 0xFFFF)
    if not np.array_equal(stored, result):
        context.groups[column] = result
        context.groups_changed = True


def _check_total(context: Context, name: str, want: int, change: int, problem: Problem) -> None:
    """Check a sum in the superblock."""
    stored = context.field(name)
    result = want
    if stored + change != want and not context.fix(problem, got=stored + change, want=want):
        result = min(max(stored + change, 0), 0xFFFFFFFF)
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
