"""Moves of blocks, in batches of which each is one transaction.

A block that moves is written to its new place before the transaction that changes what points to it. If that is a pointer block
that moves itself, the new one points to the new place already; so the transaction changes only inodes, and pointer blocks that
stay: the ``root`` of each pointer. Where this is too much for one transaction, pointer blocks are changed in their old places
first, and move after all that they lead to. An attribute block that several inodes share may move in several transactions:
until the last there are two blocks, whose reference counts add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..check.block_maps import read_blocks
from ..device.base import BlockDevice
from ..errors import JournalFullError
from ..format.schema import XATTR_HEADER
from ..progress import Progress
from .references import Pointers
from .transactions import Transactions

__all__ = ["BlockMover", "Moves", "copy_blocks"]

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

COPY_BYTES = 8 << 20
"""Most bytes copied at once."""
BATCH_BYTES = 1 << 30
"""Bytes copied after which a transaction is made of what is done."""
ZERO_RUN_BYTES = 64 << 10
"""Zeros from this length on become holes."""
REFCOUNT_AT = XATTR_HEADER.offset_of("h_refcount")


@dataclass(frozen=True, slots=True)
class Moves:
    """Blocks that move: ``old`` (ascending) and ``new``."""

    old: Numbers
    new: Numbers

    def index(self, blocks: Numbers) -> tuple[Flags, Numbers]:
        """Return which of ``blocks`` move, and the row of each of those."""
        row = np.searchsorted(self.old, blocks)
        inside = row < len(self.old)
        inside[inside] = self.old[row[inside]] == blocks[inside]
        return inside, row[inside]

    def moved(self, blocks: Numbers) -> Numbers:
        """Return where blocks are after the moves."""
        inside, row = self.index(blocks)
        result = blocks.copy()
        result[inside] = self.new[row]
        return result


class BlockMover:
    """Moves of the blocks that ``pointers`` lead to. All batches are planned at once, before anything is written."""

    def __init__(self, changes: Transactions, pointers: Pointers, moves: Moves) -> None:
        """Raise JournalFullError if a single pointer does not fit the journal."""
        self._changes = changes
        self._moves = moves
        self._size = changes.block_size
        self._pointers = pointers
        self._in_place = False
        """Pointer blocks that move are changed in their old places first: for maps too large for one transaction."""
        blocks, counts = np.unique(pointers.block[pointers.attributes], return_counts=True)
        self._left = dict(zip(blocks.tolist(), counts.tolist(), strict=True))
        """References to attribute blocks that still lead to the old place."""
        self._arrived: dict[int, int] = {}
        """References to attribute blocks that lead to the new place, in part."""
        self._batches = self._plan()

    def _plan(self) -> list[slice]:
        """Order the pointers, and return the batches of them."""
        root, _ = self._roots()
        order = np.argsort(root, kind="stable")
        self._order(order)
        try:
            return list(self._packed(root[order]))
        except JournalFullError:
            self._in_place = True
        _, depth = self._roots()
        container = self._pointers.at // self._size
        order = np.lexsort((container, -depth))
        self._order(order)
        batches: list[slice] = []
        container, depth = container[order], depth[order]
        levels = np.flatnonzero(np.diff(depth, prepend=-1))
        for low, count in zip(levels.tolist(), np.diff(levels, append=len(depth)).tolist(), strict=True):
            # What leads to a pointer block changes after all that this block leads to.
            batches += self._packed(container[low : low + count], low)
        return batches

    def _order(self, order: Numbers) -> None:
        pointers = self._pointers
        self._pointers = Pointers(pointers.at[order], pointers.block[order], pointers.attributes[order])

    def _roots(self) -> tuple[Numbers, Numbers]:
        """Return the block that stays from which each pointer is reached, and over how many pointer blocks that move."""
        pointers = self._pointers
        container: Numbers = pointers.at // self._size
        row = np.full(len(self._moves.old), -1, np.int64)
        inside, index = self._moves.index(pointers.block)
        row[index] = np.flatnonzero(inside)
        root = container
        depth = np.zeros(len(root), np.int64)
        for _ in range(3):
            inside, index = self._moves.index(root)
            if not inside.any():
                break
            root = root.copy()
            root[inside] = container[row[index]]
            depth[inside] += 1
        return root, depth

    def _packed(self, units: Numbers, begin: int = 0) -> Iterator[slice]:
        """Yield batches of pointers, from row ``begin`` on, ordered by their ``units``: those of one unit move together.

        Where pointer blocks are changed in place, a unit may be divided. Raises JournalFullError for one that does not fit.
        """
        changes = self._changes
        rows = slice(begin, begin + len(units))
        block, shared = self._pointers.block[rows], self._pointers.attributes[rows]
        groups = self._groups(block), self._groups(self._moves.moved(block))
        starts = np.flatnonzero(np.diff(units, prepend=-1))
        parts = list(zip(starts.tolist(), (starts + np.diff(starts, append=len(units))).tolist(), strict=True))
        parts.reverse()
        low, blocks, touched = 0, 0, set[int]()
        while parts:
            start, end = parts.pop()
            own = {*groups[0][start:end].tolist(), *groups[1][start:end].tolist()}
            more = 1 + 2 * int(shared[start:end].sum())
            full = (start - low) * self._size >= BATCH_BYTES
            if full or changes.blocks_needed(blocks + more + len(touched | own), touched | own) > changes.batch_capacity:
                needed = changes.blocks_needed(more + len(own), own)
                if needed > changes.capacity:
                    if not self._in_place or end - start == 1:
                        raise JournalFullError(needed, changes.capacity)
                    parts += [((start + end) // 2, end), (start, (start + end) // 2)]
                    continue
                if low < start:
                    yield slice(begin + low, begin + start)
                low, blocks, touched = start, 0, set()
            blocks += more
            touched |= own
        if low < len(units):
            yield slice(begin + low, begin + len(units))

    def _groups(self, blocks: Numbers) -> Numbers:
        superblock = self._changes.superblock
        groups: Numbers = (blocks - superblock.first_data_block) // superblock.blocks_per_group
        return groups

    def run(self, progress: Progress) -> None:
        """Move everything."""
        for batch in self._batches:
            self._move(batch, progress)

    def _move(self, batch: slice, progress: Progress) -> None:
        changes, moves, size = self._changes, self._moves, self._size
        pointers = self._pointers
        at, block, attributes = pointers.at[batch], pointers.block[batch], pointers.attributes[batch]
        container = at // size
        target = moves.moved(block)
        inside, _ = moves.index(container)
        if self._in_place:
            inside[:] = False
        tables = np.unique(container[inside])
        plain = np.setdiff1d(block[~attributes], tables, assume_unique=True)
        copy_blocks(changes.device, plain, moves.moved(plain), size, progress)
        self._write_tables(tables, container[inside], at[inside] % size, target[inside])
        for where, to in zip(at[~inside].tolist(), target[~inside].tolist(), strict=True):
            changes.patch(where, to.to_bytes(4, "little"))
        taken = [moves.moved(block[~attributes])]
        freed = [block[~attributes]]
        for old, count in zip(*map(np.ndarray.tolist, np.unique(block[attributes], return_counts=True)), strict=True):
            first, last = self._move_attributes(old, count)
            taken += [moves.moved(np.array([old]))] if first else []
            freed += [np.array([old])] if last else []
        changes.take_blocks(np.concatenate(taken))
        changes.free_blocks(np.concatenate(freed))
        changes.commit()

    def _write_tables(self, tables: Numbers, container: Numbers, start: Numbers, target: Numbers) -> None:
        """Write pointer blocks that move to their new places, with the new places of what they point to."""
        size = self._size
        new = self._moves.moved(tables)
        at_once = max(1, COPY_BYTES // size)
        order = np.argsort(container, kind="stable")
        container, start, target = container[order], start[order], target[order]
        for low in range(0, len(tables), at_once):
            part = tables[low : low + at_once]
            data = read_blocks(self._changes.device.read, part, size)
            begin, end = np.searchsorted(container, [part[0], part[-1] + 1])
            row = np.searchsorted(part, container[begin:end])
            data.view("<u4")[row, start[begin:end] // 4] = target[begin:end]
            _write_rows(self._changes.device, new[low : low + at_once], data, size)

    def _move_attributes(self, old: int, count: int) -> tuple[bool, bool]:
        """Move ``count`` references to the attribute block ``old``. Return whether they are the first, and the last."""
        changes = self._changes
        new = int(self._moves.moved(np.array([old]))[0])
        arrived = self._arrived.get(old, 0) + count
        left = self._left[old] - count
        data = changes.read(old)
        moved = _with_count(data, arrived)
        if arrived == count:
            changes.device.write(new * self._size, moved)
        else:
            changes.put(new, moved)
        if left:
            changes.put(old, _with_count(data, left))
        self._arrived[old], self._left[old] = arrived, left
        return arrived == count, not left


def _with_count(data: bytes, count: int) -> bytes:
    return data[:REFCOUNT_AT] + count.to_bytes(4, "little") + data[REFCOUNT_AT + 4 :]


def copy_blocks(device: BlockDevice, old: Numbers, new: Numbers, size: int, progress: Progress) -> None:
    """Copy blocks to free places, in long writes. Long runs of zeros become holes."""
    order = np.argsort(new, kind="stable")
    old, new = old[order], new[order]
    at_once = max(1, COPY_BYTES // size)
    for low in range(0, len(old), at_once):
        part = slice(low, low + at_once)
        _write_rows(device, new[part], read_blocks(device.read, old[part], size), size)
        progress.advance(len(old[part]) * size)


def _write_rows(device: BlockDevice, blocks: Numbers, rows: npt.NDArray[np.uint8], size: int) -> None:
    """Write blocks of which the content is in ``rows``; neighbours together."""
    zero: Flags = np.logical_not(rows.any(axis=1))
    breaks = np.flatnonzero((np.diff(blocks) != 1) | (zero[1:] != zero[:-1])) + 1
    runs = _joined(zip([0, *breaks.tolist()], [*breaks.tolist(), len(blocks)], strict=True), blocks, zero, size)
    for begin, end, hole in runs:
        if hole:
            device.make_zero(int(blocks[begin]) * size, (end - begin) * size)
        else:
            device.write(int(blocks[begin]) * size, rows[begin:end].reshape(-1).data)


def _joined(runs: Iterator[tuple[int, int]], blocks: Numbers, zero: Flags, size: int) -> Sequence[tuple[int, int, bool]]:
    """Return (first, end, hole) of runs; short runs of zeros are joined with their neighbours."""
    found: list[tuple[int, int, bool]] = []
    for begin, end in runs:
        if begin == end:
            continue
        hole = bool(zero[begin]) and (end - begin) * size >= ZERO_RUN_BYTES
        if found and not hole and not found[-1][2] and blocks[begin] == blocks[begin - 1] + 1:
            found[-1] = (found[-1][0], end, False)
        else:
            found.append((begin, end, hole))
    return found
