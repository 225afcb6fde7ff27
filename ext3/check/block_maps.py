"""Block maps of many inodes at once: their pointers checked, their blocks listed.

A map is sound here if all its pointers lie in the filesystem and none leads to a system block. What is not sound is left to
code that looks at single inodes. Source: Linux ``fs/ext4/indirect.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..constants import DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, POINTER_SIZE

__all__ = ["ManyMaps", "map_many", "read_blocks"]

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Pointers = npt.NDArray[np.uint32]

TABLES_BYTES = 8 << 20
"""Most bytes of pointer blocks in memory at once."""
GAP_BLOCKS = 4
"""Gaps between wanted blocks are read too, up to this many."""


class ManyMaps(NamedTuple):
    """Maps of ``rows`` inodes. ``sound``: which rows have a sound map; only their blocks are listed.

    ``row``, ``logical``, ``block``: one element for each block of data. ``pointer_row``, ``pointer_block``: the pointer blocks.
    ``last``: the last logical block with data of each row, -1 if there is none; ``blocks``: its blocks, data and pointers.
    """

    sound: Flags
    row: Numbers
    logical: Numbers
    block: Numbers
    pointer_row: Numbers
    pointer_block: Numbers
    last: Numbers
    blocks: Numbers


def read_blocks(read: Callable[[int, int], bytes], blocks: Numbers, block_size: int) -> npt.NDArray[np.uint8]:
    """Return the content of blocks, in their order, shape (len(blocks), block_size); neighbours are read together.

    ``read``: the device's, of an offset and a size in bytes.
    """
    found = np.empty((len(blocks), block_size), np.uint8)
    order = np.argsort(blocks, kind="stable")
    ordered = blocks[order]
    breaks = np.flatnonzero(np.diff(ordered) > 1 + GAP_BLOCKS) + 1
    most = max(1, TABLES_BYTES // block_size)
    for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(blocks)], strict=True):
        at = begin
        while at < end:
            start = int(ordered[at])
            stop = min(end, int(np.searchsorted(ordered, start + most)))
            count = int(ordered[stop - 1]) - start + 1
            data = np.frombuffer(read(start * block_size, count * block_size), np.uint8).reshape(count, block_size)
            found[order[at:stop]] = data[ordered[at:stop] - start]
            at = stop
    return found


def map_many(
    read: Callable[[int, int], bytes],
    i_block: Pointers,
    *,
    block_size: int,
    first: int,
    system: Flags,
    most: Numbers | None = None,
) -> ManyMaps:
    """Return the maps of inodes with these words, shape (rows, 15). ``first``: first data block; ``system``: system blocks.

    Each pointer block is read once; the rows that share one are not sound, nor are those with more pointer blocks than
    ``most`` says. Raises DeviceError.
    """
    walk = _Walk(read, len(i_block), block_size, first, system, most)
    direct = i_block[:, :DIRECT_BLOCKS]
    owner, logical = np.nonzero(direct)
    walk.take(owner, logical, direct[owner, logical].astype(np.int64))
    start = DIRECT_BLOCKS
    for slot in range(IND_SLOT, N_BLOCKS):
        level = slot - IND_SLOT + 1
        owner = np.flatnonzero(i_block[:, slot])
        if len(owner):
            walk.descend(owner, i_block[owner, slot].astype(np.int64), np.full(len(owner), start, np.int64), level)
        start += walk.per_block**level
    return walk.finish()


class _Walk:
    """Walk of the maps of ``rows`` inodes."""

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        rows: int,
        block_size: int,
        first: int,
        system: Flags,
        most: Numbers | None,
    ) -> None:
        self.per_block = block_size // POINTER_SIZE
        self._read = read
        self._rows = rows
        self._block_size = block_size
        self._first = first
        self._system = system
        self._left: Numbers = np.full(rows, len(system)) if most is None else most.copy()
        """Pointer blocks that each row may have yet."""
        self._seen: Flags | None = None
        """Pointer blocks that were read."""
        self._sound: Flags = np.ones(rows, np.bool_)
        self._last: Numbers = np.full(rows, -1, np.int64)
        self._data: list[tuple[Numbers, Numbers, Numbers]] = []
        self._pointers: list[tuple[Numbers, Numbers]] = []

    def _inside(self, owner: Numbers, blocks: Numbers) -> Flags:
        """Return which blocks may belong to a file; the maps of the others are not sound."""
        good = (blocks >= self._first) & (blocks < len(self._system))
        good[good] = ~self._system[blocks[good]]
        self._sound[owner[~good]] = False
        return good

    def take(self, owner: Numbers, logical: Numbers, blocks: Numbers) -> None:
        """Note blocks of data."""
        good = self._inside(owner, blocks)
        if not good.all():
            owner, logical, blocks = owner[good], logical[good], blocks[good]
        self._data.append((owner, logical, blocks))
        np.maximum.at(self._last, owner, logical)

    def descend(self, owner: Numbers, blocks: Numbers, starts: Numbers, level: int) -> None:
        """Read pointer blocks of ``level``, the first logical block of each being in ``starts``, and what lies below."""
        if self._seen is None:
            self._seen = np.zeros(len(self._system), np.bool_)
        good = self._inside(owner, blocks)
        owner, blocks, starts = owner[good], blocks[good], starts[good]
        once = ~self._seen[blocks]
        order = np.argsort(blocks, kind="stable")
        twice = blocks[order][1:] == blocks[order][:-1]
        once[order[1:][twice]] = once[order[:-1][twice]] = False
        self._sound[owner[~once]] = False
        owner, blocks, starts = owner[once], blocks[once], starts[once]
        self._seen[blocks] = True
        np.subtract.at(self._left, owner, 1)
        over = self._left[owner] < 0
        if over.any():
            self._sound[owner[over]] = False
            owner, blocks, starts = owner[~over], blocks[~over], starts[~over]
        self._pointers.append((owner, blocks))
        span = self.per_block ** (level - 1)
        at_once = max(1, TABLES_BYTES // self._block_size)
        for low in range(0, len(blocks), at_once):
            part = slice(low, low + at_once)
            tables = read_blocks(self._read, blocks[part], self._block_size).view("<u4")
            table, index = np.nonzero(tables)
            below = tables[table, index].astype(np.int64)
            of, logical = owner[part][table], starts[part][table] + index * span
            if level == 1:
                self.take(of, logical, below)
            elif len(below):
                self.descend(of, below, logical, level - 1)

    def finish(self) -> ManyMaps:
        none = np.zeros(0, np.int64)
        row, logical, block = (np.concatenate([none, *column]) for column in zip((none,) * 3, *self._data, strict=True))
        pointer_row, pointer_block = (
            np.concatenate([none, *column]) for column in zip((none,) * 2, *self._pointers, strict=True)
        )
        if not self._sound.all():
            keep, pointer_keep = self._sound[row], self._sound[pointer_row]
            row, logical, block = row[keep], logical[keep], block[keep]
            pointer_row, pointer_block = pointer_row[pointer_keep], pointer_block[pointer_keep]
        count = np.bincount(row, minlength=self._rows) + np.bincount(pointer_row, minlength=self._rows)
        return ManyMaps(self._sound, row, logical, block, pointer_row, pointer_block, self._last, count.astype(np.int64))
