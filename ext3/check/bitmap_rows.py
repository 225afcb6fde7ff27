"""Bitmaps of all groups, computed from a census and compared with those on storage.

Bitmaps are compared packed, many at once; only those that differ need to be unpacked. Source: e2fsprogs
``e2fsck/pass5.c``; ``lib/ext2fs/rw_bitmaps.c`` for the padding, whose bits are set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError
from ..format.layout_columns import Table
from ..format.superblock import Superblock
from .block_maps import read_blocks

if TYPE_CHECKING:
    from .census import Census

__all__ = ["BitmapKind", "bitmap_kinds", "compare_bitmaps", "pack_rows", "range_text"]

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

BATCH_BYTES = 4 << 20
"""Bytes of bitmaps of one kind that are compared at once."""
RANGES_SHOWN = 64
_ONES = np.array([bin(number).count("1") for number in range(256)], np.uint8)


@dataclass(slots=True)
class BitmapKind:
    """Bitmaps of one kind: of blocks or of inodes.

    ``column``: the field of the descriptor that locates them. ``flags``: what is in use, from number ``first`` on;
    ``per_group`` of them belong to a group. ``compare_bitmaps`` fills ``used``, the numbers in use of each group, and
    ``differing``: (group, bitmap on storage) of those that are not as computed.
    """

    column: str
    flags: Flags
    first: int
    per_group: int
    used: Numbers
    differing: list[tuple[int, Bytes]] = field(default_factory=list)

    @property
    def row_bytes(self) -> int:
        return -(-self.per_group // 8)

    def real(self, group: int) -> int:
        """Return how many numbers a group has: the last one may have fewer."""
        return min(self.per_group, len(self.flags) - group * self.per_group)

    def row(self, group: int, size: int) -> Bytes:
        """Return the bitmap of a group, ``size`` bytes."""
        row: Bytes = pack_rows(self.flags, self.per_group, group, group + 1, size)[0]
        return row

    def differences(self, group: int, stored: Bytes) -> tuple[Flags, Flags]:
        """Return, for each number of a group, whether it is in use, and whether ``stored`` says so."""
        real = self.real(group)
        begin = group * self.per_group
        marked = np.unpackbits(stored, count=real, bitorder="little").astype(np.bool_)
        return self.flags[begin : begin + real], marked

    def padded(self, group: int, stored: Bytes) -> bool:
        """Return whether all bits behind the last number of a group are set."""
        return bool(np.unpackbits(stored, bitorder="little")[self.real(group) :].all())


def bitmap_kinds(superblock: Superblock, census: Census) -> tuple[BitmapKind, BitmapKind]:
    """Return the bitmaps of blocks and those of inodes as a census has them. Reserved inodes count as used."""
    groups, first = superblock.groups_count, superblock.first_data_block
    inodes = census.mode[1:] != 0
    inodes[: superblock.first_ino - 1] = True
    return (
        BitmapKind("bg_block_bitmap", census.used[first:], first, superblock.blocks_per_group, np.zeros(groups, np.int64)),
        BitmapKind("bg_inode_bitmap", inodes, 1, superblock.inodes_per_group, np.zeros(groups, np.int64)),
    )


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


def compare_bitmaps(
    read: Callable[[int, int], bytes], superblock: Superblock, groups: Table, kinds: tuple[BitmapKind, ...]
) -> Iterator[int]:
    """Compare all bitmaps, group by group; yield the number of groups done. ``read``: the device's.

    A bitmap that its descriptor does not locate in the filesystem is passed over.
    """
    size, count = superblock.block_size, superblock.groups_count
    batch = max(1, BATCH_BYTES // size)
    for low in range(0, count, batch):
        high = min(low + batch, count)
        places = [groups[kind.column][low:high].astype(np.int64) for kind in kinds]
        inside = [(place >= max(1, superblock.first_data_block)) & (place < superblock.blocks_count) for place in places]
        stored = _read(read, np.concatenate([place[good] for place, good in zip(places, inside, strict=True)]), size)
        done = 0
        for kind, good in zip(kinds, inside, strict=True):
            want = pack_rows(kind.flags, kind.per_group, low, high, size)
            ones = _ONES[want[:, : kind.row_bytes]].sum(axis=1, dtype=np.int64)
            kind.used[low:high] = kind.per_group - 8 * kind.row_bytes + ones
            found = stored[done : done + int(good.sum())]
            done += len(found)
            located = np.flatnonzero(good)
            for row in np.flatnonzero((found != want[good]).any(axis=1)).tolist():
                kind.differing.append((low + int(located[row]), found[row].copy()))
            if high == count:
                kind.used[-1] -= kind.per_group - kind.real(count - 1)
        yield high


def _read(read: Callable[[int, int], bytes], places: Numbers, size: int) -> Bytes:
    """Return bitmap blocks; one that cannot be read is all zero."""
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


def range_text(numbers: Numbers, marked: Flags) -> str:
    """Return differences as e2fsck prints them: ``-5`` is marked and not in use, ``+(7--9)`` in use and not marked."""
    breaks = np.flatnonzero((np.diff(numbers) != 1) | (marked[1:] != marked[:-1])) + 1
    starts, ends = [0, *breaks.tolist()], [*breaks.tolist(), len(numbers)]
    parts = []
    for start, end in list(zip(starts, ends, strict=True))[:RANGES_SHOWN]:
        first, last = int(numbers[start]), int(numbers[end - 1])
        sign = "-" if marked[start] else "+"
        parts.append(f"{sign}{first}" if first == last else f"{sign}({first}--{last})")
    if len(starts) > RANGES_SHOWN:
        parts.append(f"and {len(starts) - RANGES_SHOWN} more")
    return " ".join(parts)
