"""Block map editor: finds the blocks of an inode, maps more of them, frees some.

The editor owns the 15 words of ``i_block``; pointer blocks are read and written through ``Blocks``. Every change is planned
in full before it is made, so an error leaves the map as it was. Source: Linux ``fs/ext4/indirect.c``.
"""

from __future__ import annotations

import errno
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from ..constants import DIRECT_BLOCKS, N_BLOCKS, POINTER_SIZE, SECTOR
from ..errors import CorruptError, NoSpaceError, PathError
from ..format.block_map import (
    Extent,
    Extents,
    MapReader,
    PointerBounds,
    Pointers,
    consecutive,
    empty_pointers,
    group_runs,
    map_limit,
    map_path,
    pack_pointers,
    parse_pointers,
    table_runs,
)
from ..format.indirect_blocks import SECTORS_LIMIT
from .block_map_cut import Cut
from .blocks import Blocks, Run

__all__ = ["BlockMapEditor", "FileTooLargeError"]

FORMATS = tuple(struct.Struct(f"<{count}I") for count in range(65))
"""Packers by the number of pointers."""


class FileTooLargeError(PathError):
    """File of more blocks than a block map, or the 32 bits of i_blocks, can hold."""

    kind = "too-large"
    code = errno.EFBIG


class _Table:
    """Table of data pointers: the inode's (``block`` 0), a pointer block, or one yet to be allocated (None)."""

    __slots__ = ("block", "pointers", "start")

    def __init__(self, start: int, block: int | None, pointers: Pointers) -> None:
        self.start = start
        self.block = block
        self.pointers = pointers

    def holes(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Yield (logical block, count) of the holes in logical blocks [low, high)."""
        at = low = max(low, self.start)
        end = min(high, self.start + len(self.pointers))
        runs = [] if self.block is None else table_runs(self.pointers[low - self.start : end - self.start])
        for index, _, count in runs:
            if low + index > at:
                yield at, low + index - at
            at = low + index + count
        if end > at:
            yield at, end - at


class BlockMapEditor:
    """Editor of one map. ``first`` and ``end``: where the filesystem's data blocks may lie (end excluded).

    ``sectors`` is the inode's i_blocks, in 512 bytes; every change updates it. ``metadata``: its data blocks are a
    directory's, which the journal must revoke when they are freed. The object is stale once blocks were rolled back:
    make a new one.
    """

    def __init__(
        self,
        blocks: Blocks,
        i_block: Sequence[int],
        *,
        first: int,
        end: int,
        where: str,
        sectors: int = 0,
        metadata: bool = False,
    ) -> None:
        if len(i_block) != N_BLOCKS:
            raise ValueError(f"i_block has {N_BLOCKS} words, not {len(i_block)}")
        self._blocks = blocks
        self._words = list(i_block)
        self._bounds = PointerBounds(first, end, where)
        self._metadata = metadata
        self._per_block = blocks.block_size // POINTER_SIZE
        self._tail: tuple[int, int] | None = None
        self.sectors = sectors

    @property
    def i_block(self) -> tuple[int, ...]:
        """The 15 words to store in the inode."""
        return tuple(self._words)

    @property
    def limit(self) -> int:
        """Number of blocks this map can address."""
        return map_limit(self._blocks.block_size)

    # -- lookup ----------------------------------------------------------------------------------------------------

    def block(self, logical: int) -> int | None:
        """Return the block that holds logical block ``logical``, None at a hole. Raises CorruptError for a pointer outside."""
        slot, indices = self._path(logical)
        block = self._words[slot]
        if block:
            self._bounds.check(block, f"i_block[{slot}]")
        for index in indices:
            if not block:
                return None
            (pointer,) = FORMATS[1].unpack_from(self._blocks.read(block), index * POINTER_SIZE)
            if pointer:
                self._bounds.check(pointer, f"pointers in block {block}[{index}]")
            block = pointer
        return block or None

    def runs(self, logical: int, count: int) -> list[Extent]:
        """Return the mapped parts of ``count`` blocks from ``logical``, ascending, in as few runs as possible."""
        end = min(logical + count, self.limit)
        if count == 1 or end <= DIRECT_BLOCKS:
            return group_runs((at, block) for at in range(logical, end) if (block := self.block(at)) is not None)
        found = Extents()
        for leaf in self._reader().leaves(self._words, logical, end):
            for run in leaf.runs(self._bounds, logical, end):
                found.add(*run)
        return list(found)

    # -- map -------------------------------------------------------------------------------------------------------

    def map(self, logical: int, count: int, goal: int) -> list[Extent]:
        """Map every hole among ``count`` blocks from ``logical`` to a new block. Return the new runs, ascending.

        The search for free blocks starts behind the block mapped last, or behind the previous logical block, if
        ``logical`` follows it, else at ``goal``. The new blocks are not written: their content is up to the caller.
        Raise NoSpaceError or FileTooLargeError with nothing changed.
        """
        if count <= 0:
            return []
        if logical + count > self.limit:
            raise FileTooLargeError(self._bounds.where, f"a file of {logical + count} blocks; its map holds {self.limit}")
        if count > self._bounds.end - self._bounds.first:
            size, most = self._blocks.block_size, self._bounds.end - self._bounds.first
            message = f"{self._bounds.where}: {count} blocks are wanted and the filesystem has {most}"
            raise NoSpaceError(message, needed_bytes=count * size, available_bytes=0)
        goal = self._goal_for(logical, goal)
        found = self._map_in_one_table(logical, count, goal)
        if found is None:
            found = self._map_any(logical, logical + count, goal)
        if found:
            at, physical, length = found[-1]
            self._tail = at + length, physical + length
        return found

    def append(self, logical: int, data: Sequence[bytes], goal: int) -> list[Extent]:
        """Map as many blocks of metadata from ``logical`` on as there are in ``data``, and write them. Return the new runs."""
        found = self.map(logical, len(data), goal)
        numbers = [block for _, first, count in found for block in range(first, first + count)]
        if len(numbers) != len(data):
            raise CorruptError(self._bounds.where, "block map", f"blocks from {logical} on", "none behind the end")
        for block, content in zip(numbers, data, strict=True):
            self._blocks.write(block, content)
        return found

    def _goal_for(self, logical: int, goal: int) -> int:
        if self._tail and self._tail[0] == logical:
            return self._tail[1]
        if 0 < logical <= self.limit and (before := self.block(logical - 1)) is not None:
            return before + 1
        return goal

    def _map_in_one_table(self, logical: int, count: int, goal: int) -> list[Extent] | None:
        """Map a few blocks, all holes, in one existing table, as is usual. Return None in any other case."""
        slot, indices = self._path(logical)
        if count >= len(FORMATS):
            return None
        if not indices:
            if slot + count > DIRECT_BLOCKS or any(self._words[slot : slot + count]):
                return None
            numbers, found = self._take(logical, count, goal)
            self._words[slot : slot + count] = numbers
            return found
        table = self._words[slot]
        if indices[-1] + count > self._per_block or not table:
            return None
        self.block(logical)  # checks the pointers to the table
        for index in indices[:-1]:
            (table,) = FORMATS[1].unpack_from(self._blocks.read(table), index * POINTER_SIZE)
            if not table:
                return None
        data = self._blocks.read(table)
        at = indices[-1] * POINTER_SIZE
        if any(FORMATS[count].unpack_from(data, at)):
            return None
        numbers, found = self._take(logical, count, goal)
        self._blocks.write(table, data[:at] + FORMATS[count].pack(*numbers) + data[at + count * POINTER_SIZE :])
        return found

    def _take(self, logical: int, count: int, goal: int) -> tuple[list[int], list[Extent]]:
        self._check_sectors(count)
        runs = self._blocks.allocate(count, goal)
        self._count(count)
        numbers: list[int] = []
        found = []
        for first, length in runs:
            found.append((logical + len(numbers), first, length))
            numbers.extend(range(first, first + length))
        return numbers, found

    def _map_any(self, low: int, high: int, goal: int) -> list[Extent]:
        """Map the holes of [low, high): missing pointer blocks first, then the data behind them."""
        leaves = self._all_leaves(low, high)
        holes = [hole for leaf in leaves.values() for hole in leaf.holes(low, high)]
        data = sum(count for _, count in holes)
        if not data:
            return []
        fresh = [leaf for leaf in leaves.values() if leaf.block is None]
        missing = self._missing_tables(fresh)
        tables = len(fresh) + len(missing)
        self._check_sectors(data + tables)
        numbers, runs = _split(self._blocks.allocate(data + tables, goal), tables)
        changed = self._link_tables(missing, fresh, iter(numbers))
        found = Extents()
        for logical, physical, count in _fill(holes, runs):
            leaf = leaves[self._leaf_start(logical)]
            at = logical - leaf.start
            leaf.pointers[at : at + count] = consecutive(physical, count)
            if leaf.block:
                changed[leaf.block] = leaf.pointers
            found.add(logical, physical, count)
        if low < DIRECT_BLOCKS:
            self._words[:DIRECT_BLOCKS] = leaves[0].pointers
        for block, pointers in changed.items():
            self._blocks.write(block, pack_pointers(pointers))
        self._count(data + tables)
        return list(found)

    def _leaf_start(self, logical: int) -> int:
        """Return the first logical block of the table of data pointers in which a block is."""
        return 0 if logical < DIRECT_BLOCKS else logical - (logical - DIRECT_BLOCKS) % self._per_block

    def _all_leaves(self, low: int, high: int) -> dict[int, _Table]:
        """Return every table of data pointers that [low, high) touches, including those to be made, by its start."""
        found = {}
        start = self._leaf_start(low)
        while start < high:
            length = self._per_block if start else DIRECT_BLOCKS
            found[start] = _Table(start, None, empty_pointers(length))
            start += length
        for leaf in self._reader().leaves(self._words, low, high):
            found[leaf.start] = _Table(leaf.start, leaf.block, leaf.pointers)
        return found

    def _missing_tables(self, fresh: list[_Table]) -> list[tuple[int, ...]]:
        """Return the missing tables above the fresh leaves: (slot,) or (slot, index), in the order of need."""
        missing: dict[tuple[int, ...], None] = {}
        for leaf in fresh:
            slot, indices = self._path(leaf.start)
            if len(indices) > 1 and not self._words[slot]:
                missing.setdefault((slot,))
            if len(indices) > 2:
                key = (slot, indices[0])
                if key not in missing and ((slot,) in missing or not self._pointer(self._words[slot], indices[0])):
                    missing.setdefault(key)
        return list(missing)

    def _link_tables(self, missing: list[tuple[int, ...]], fresh: list[_Table], numbers: Iterator[int]) -> dict[int, Pointers]:
        """Number the new tables and enter them in those above. Return the content of all changed tables by block."""
        changed: dict[int, Pointers] = {}

        def table(block: int) -> Pointers:
            if block not in changed:
                changed[block] = parse_pointers(self._blocks.read(block))
            return changed[block]

        for key in missing:
            block = next(numbers)
            changed[block] = empty_pointers(self._per_block)
            if len(key) == 1:
                self._words[key[0]] = block
            else:
                table(self._words[key[0]])[key[1]] = block
        for leaf in fresh:
            leaf.block = next(numbers)
            slot, indices = self._path(leaf.start)
            if len(indices) == 1:
                self._words[slot] = leaf.block
                continue
            parent = self._words[slot]
            for index in indices[:-2]:
                parent = table(parent)[index]
            table(parent)[indices[-2]] = leaf.block
        return changed

    # -- free ------------------------------------------------------------------------------------------------------

    def truncate(self, blocks: int) -> int:
        """Free everything from logical block ``blocks`` on. Return the number of blocks freed, pointer blocks included."""
        return self.punch(blocks, self.limit - blocks)

    def punch(self, logical: int, count: int) -> int:
        """Make a hole of ``count`` blocks from ``logical``. Return the number of blocks freed, pointer blocks included.

        Raises CorruptError, with nothing changed, if a pointer leads outside or a block is used twice.
        """
        end = min(logical + count, self.limit)
        if not any(self._words[DIRECT_BLOCKS:]):
            return self._punch_direct(logical, min(end, DIRECT_BLOCKS))
        cut = Cut(self._reader(), self._words, logical, end)
        if not cut.data and not cut.tables:
            return 0
        data = self._disjoint(cut.data, "data block")
        starts = [first for first, _ in data]
        for block in cut.reader.loaded:
            at = bisect_right(starts, block) - 1
            if at >= 0 and block < sum(data[at]):
                raise CorruptError(self._bounds.where, "data block", block, "one that holds no pointers")
        tables = self._disjoint([(block, 1) for block in cut.tables], "pointer block")
        # Freeing comes first because it fails if a block is marked as free already.
        if data:
            self._blocks.free(data, metadata=self._metadata)
        if tables:
            self._blocks.free(tables, metadata=True)
        self._words = cut.words
        for block, pointers in cut.changed:
            self._blocks.write(block, pack_pointers(pointers))
        return self._freed(cut.count + len(cut.tables))

    def _punch_direct(self, low: int, high: int) -> int:
        """Punch where there are no pointer blocks, as is usual."""
        for slot in range(low, high):
            block = self._words[slot]
            if block:
                self._bounds.check(block, f"i_block[{slot}]")
        blocks = [(block, 1) for block in self._words[low:high] if block]
        if not blocks:
            return 0
        self._blocks.free(self._disjoint(blocks, "data block"), metadata=self._metadata)
        self._words[low:high] = [0] * (high - low)
        return self._freed(len(blocks))

    def _freed(self, count: int) -> int:
        self.sectors = max(0, self.sectors - count * (self._blocks.block_size // SECTOR))
        self._tail = None
        return count

    def _disjoint(self, runs: Iterable[Run], name: str) -> list[Run]:
        """Return the runs in order, joined. Raises CorruptError if a block is there twice: it can be freed only once."""
        found: list[Run] = []
        end = 0
        for first, count in sorted(runs):
            if first < end:
                raise CorruptError(self._bounds.where, name, first, "one that is used once")
            if found and first == end:
                found[-1] = (found[-1][0], found[-1][1] + count)
            else:
                found.append((first, count))
            end = first + count
        return found

    # -- pointer blocks --------------------------------------------------------------------------------------------

    def _path(self, logical: int) -> tuple[int, tuple[int, ...]]:
        """Return (word of i_block, index in each pointer block below it) of a logical block. Raises FileTooLargeError."""
        try:
            return map_path(logical, self._per_block)
        except ValueError:
            if logical < 0:
                raise
            message = f"block {logical} lies behind what a map holds, {self.limit} blocks"
            raise FileTooLargeError(self._bounds.where, message) from None

    def _reader(self) -> MapReader:
        return MapReader(self._blocks.read, self._per_block, self._bounds)

    def _pointer(self, table: int, index: int) -> int:
        (pointer,) = FORMATS[1].unpack_from(self._blocks.read(table), index * POINTER_SIZE)
        return int(pointer)

    def _check_sectors(self, count: int) -> None:
        if self.sectors + count * (self._blocks.block_size // SECTOR) > SECTORS_LIMIT:
            raise FileTooLargeError(self._bounds.where, f"more than {SECTORS_LIMIT} sectors of 512 bytes")

    def _count(self, count: int) -> None:
        self.sectors += count * (self._blocks.block_size // SECTOR)


def _split(runs: Iterable[Run], count: int) -> tuple[list[int], list[Run]]:
    """Return the first ``count`` blocks of runs, one by one, and the runs that are left."""
    numbers: list[int] = []
    left: list[Run] = []
    for first, length in runs:
        part = min(length, count - len(numbers))
        numbers += range(first, first + part)
        if part < length:
            left.append((first + part, length - part))
    return numbers, left


def _fill(holes: Iterable[tuple[int, int]], runs: Iterable[Run]) -> Iterator[Extent]:
    """Yield the extents that fill holes (logical block, count) with the blocks of runs, of which there are as many."""
    supply = iter(runs)
    first = left = 0
    for hole, count in holes:
        at, end = hole, hole + count
        while at < end:
            if not left:
                first, left = next(supply)
            part = min(end - at, left)
            yield at, first, part
            at, first, left = at + part, first + part, left - part
