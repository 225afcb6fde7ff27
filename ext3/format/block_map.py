"""Block map of an inode: 12 direct pointers, then trees of pointer blocks one, two and three levels high.

A pointer 0 is a hole; a pointer block 0 is a hole as large as all it would map. For the pointer blocks of a new
file see ``indirect_blocks_columns``. Source: Linux ``fs/ext4/indirect.c``.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias

from ..constants import DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, POINTER_SIZE
from ..device.base import BlockDevice
from ..errors import CorruptError
from .inode import Inode, check_map_flags

if TYPE_CHECKING:
    from .superblock import Superblock

__all__ = [
    "BlockMap",
    "Extent",
    "Extents",
    "Leaf",
    "MapReader",
    "PointerBounds",
    "Pointers",
    "consecutive",
    "empty_pointers",
    "group_runs",
    "indirect_trees",
    "map_limit",
    "map_path",
    "pack_pointers",
    "parse_pointers",
    "read_block_map",
    "read_inode_map",
    "table_name",
    "table_runs",
]

Pointers: TypeAlias = "array[int]"
"""Pointers of a table, 32 bits each; 0 is a hole."""
Extent = tuple[int, int, int]
"""(logical block, physical block, count) of blocks that follow each other on both sides."""

_search_used = re.compile(rb"[^\0]").search
"""Search for a pointer that is not a hole, in the bytes of a table."""


# -- shape -----------------------------------------------------------------------------------------------------------


def map_limit(block_size: int) -> int:
    """Return how many blocks a map can hold: 12 + p + p^2 + p^3, p being the pointers of a block."""
    pointers = block_size // POINTER_SIZE
    return DIRECT_BLOCKS + pointers + pointers**2 + pointers**3


class IndirectTree(NamedTuple):
    """Tree of pointer blocks below word ``slot`` of the inode, ``level`` (1 to 3) above the data.

    It maps the ``span`` logical blocks from ``start`` on.
    """

    slot: int
    level: int
    start: int
    span: int


def indirect_trees(pointers: int) -> Iterator[IndirectTree]:
    """Yield the three trees of a map with ``pointers`` pointers per block."""
    start = DIRECT_BLOCKS
    for slot in range(IND_SLOT, N_BLOCKS):
        level = slot - IND_SLOT + 1
        yield IndirectTree(slot, level, start, pointers**level)
        start += pointers**level


def map_path(logical: int, pointers: int) -> tuple[int, tuple[int, ...]]:
    """Return the word of the inode that leads to a logical block, and the index in each pointer block on the way.

    Raises ValueError for a block that no map holds.
    """
    if 0 <= logical < DIRECT_BLOCKS:
        return logical, ()
    rest = logical - DIRECT_BLOCKS
    if 0 <= rest < pointers:
        return IND_SLOT, (rest,)
    rest -= pointers
    if 0 <= rest < pointers**2:
        return IND_SLOT + 1, (rest // pointers, rest % pointers)
    rest -= pointers**2
    if 0 <= rest < pointers**3:
        return IND_SLOT + 2, (rest // pointers**2, rest // pointers % pointers, rest % pointers)
    raise ValueError(f"logical block {logical}")


# -- pointers --------------------------------------------------------------------------------------------------------


def parse_pointers(data: bytes) -> Pointers:
    """Return the pointers in a pointer block."""
    pointers = array("I", data)
    if sys.byteorder == "big":
        pointers.byteswap()
    return pointers


def pack_pointers(pointers: Pointers) -> bytes:
    """Return the bytes of a pointer block."""
    if sys.byteorder == "big":
        pointers = pointers[:]
        pointers.byteswap()
    return pointers.tobytes()


def empty_pointers(count: int) -> Pointers:
    """Return ``count`` pointers that are holes."""
    return array("I", bytes(count * POINTER_SIZE))


def consecutive(first: int, count: int) -> Pointers:
    """Return pointers to ``count`` blocks in a row. All are added up at once, as the words of one integer."""
    ones, steps = _words(count)
    return parse_pointers((first * ones + steps).to_bytes(count * POINTER_SIZE, "little"))


@lru_cache(64)
def _words(count: int) -> tuple[int, int]:
    """Return the integers whose ``count`` words of 32 bits are 1, 1, 1 ... and 0, 1, 2 ..."""
    words = struct.Struct(f"<{count}I")
    ones, steps = words.pack(*[1] * count), words.pack(*range(count))
    return int.from_bytes(ones, "little"), int.from_bytes(steps, "little")


# -- runs ------------------------------------------------------------------------------------------------------------


def group_runs(blocks: Iterable[tuple[int, int]]) -> list[Extent]:
    """Return the runs among ascending (logical, physical) blocks."""
    runs: list[Extent] = []
    start = first = count = 0
    for logical, physical in blocks:
        if count and logical == start + count and physical == first + count:
            count += 1
            continue
        if count:
            runs.append((start, first, count))
        start, first, count = logical, physical, 1
    if count:
        runs.append((start, first, count))
    return runs


def table_runs(pointers: Pointers) -> list[Extent]:
    """Return (index, block, count) of the runs of a table. Most tables are one run, and long holes are skipped at once."""
    count = len(pointers)
    first = pointers[0] if count else 0
    if first and pointers[-1] == first + count - 1 and pointers == consecutive(first, count):
        return [(0, first, count)]
    runs: list[Extent] = []
    data = pointers.tobytes()
    at = 0
    while at < count:
        first = pointers[at]
        if not first:
            used = _search_used(data, at * POINTER_SIZE)
            at = used.start() // POINTER_SIZE if used else count
            continue
        end = at + 1
        while end < count and pointers[end] - first == end - at:
            end += 1
        runs.append((at, first, end - at))
        at = end
    return runs


class Extents:
    """Extents of a file, ascending, in columns: a file may have millions. Neighbours that continue each other are joined.

    ``blocks``: how many blocks they have.
    """

    __slots__ = ("_count", "_logical", "_physical", "blocks")

    def __init__(self, extents: Iterable[Extent] = ()) -> None:
        self._logical, self._physical, self._count = array("I"), array("I"), array("I")
        self.blocks = 0
        for logical, physical, count in extents:
            self.add(logical, physical, count)

    def add(self, logical: int, physical: int, count: int) -> None:
        """Append one extent."""
        self.blocks += count
        if self._count:
            length = self._count[-1]
            if logical == self._logical[-1] + length and physical == self._physical[-1] + length:
                self._count[-1] = length + count
                return
        self._logical.append(logical)
        self._physical.append(physical)
        self._count.append(count)

    def __len__(self) -> int:
        return len(self._count)

    def __getitem__(self, index: int) -> Extent:
        return self._logical[index], self._physical[index], self._count[index]

    def __iter__(self) -> Iterator[Extent]:
        return zip(self._logical, self._physical, self._count, strict=True)

    @property
    def end(self) -> int:
        """Logical block behind the last extent, 0 if there is none."""
        return self._logical[-1] + self._count[-1] if self._count else 0

    def cut(self, low: int, high: int) -> Iterator[Extent]:
        """Yield the parts that lie in logical blocks [low, high)."""
        for index in range(max(bisect_right(self._logical, low) - 1, 0), len(self)):
            logical, physical, count = self[index]
            if logical >= high:
                return
            start, end = max(low, logical), min(high, logical + count)
            if start < end:
                yield start, physical + start - logical, end - start

    def find(self, logical: int) -> int | None:
        """Return the physical block of a logical block, None in a hole."""
        return next((physical for _, physical, _ in self.cut(logical, logical + 1)), None)


# -- checked and read ------------------------------------------------------------------------------------------------


class PointerBounds(NamedTuple):
    """Range of blocks that a file's pointers may name: ``first`` to ``end`` - 1. ``where``: the file, in errors."""

    first: int
    end: int
    where: str

    @classmethod
    def of(cls, superblock: Superblock, where: str) -> Self:
        """Return the bounds of a whole filesystem."""
        return cls(superblock.first_data_block, superblock.blocks_count, where)

    def holds(self, block: int) -> bool:
        """Return whether a block is in range."""
        return self.first <= block < self.end

    def check(self, block: int, name: str) -> None:
        """Raise CorruptError if the pointer, called ``name``, is out of range."""
        if not self.holds(block):
            raise CorruptError(self.where, name, block, f"a block from {self.first} to {self.end - 1}")

    def runs(self, pointers: Pointers, name: str, base: int = 0) -> list[Extent]:
        """Return (index, block, count) of the runs. Raise CorruptError for the first pointer that is out of range.

        ``base``: the index in its table, called ``name``, of the first pointer.
        """
        runs = table_runs(pointers)
        for index, block, count in runs:
            if block < self.first or block + count > self.end:
                bad = self.end if self.holds(block) else block
                self.check(bad, f"{name}[{base + index + bad - block}]")
        return runs


class Leaf(NamedTuple):
    """Pointers to data, from logical block ``start`` on: those in the inode itself (``block`` 0) or in a pointer block."""

    start: int
    block: int
    pointers: Pointers

    @classmethod
    def direct(cls, i_block: Sequence[int]) -> Self:
        """Return the pointers in the inode."""
        return cls(0, 0, array("I", i_block[:DIRECT_BLOCKS]))

    def runs(self, bounds: PointerBounds, low: int, high: int) -> list[Extent]:
        """Return the runs in logical blocks [low, high). Raise CorruptError for a pointer there that is out of range."""
        skipped = max(low - self.start, 0)
        part = self.pointers[skipped : max(high - self.start, 0)]
        first = self.start + skipped
        return [(first + index, block, count) for index, block, count in bounds.runs(part, table_name(self.block), skipped)]


def table_name(block: int) -> str:
    """Return the name, for errors, of the pointers in the inode (0) or in a pointer block."""
    return f"pointers in block {block}" if block else "i_block"


class MapReader:
    """Reader of the pointer blocks of one map, of ``pointers`` pointers each.

    No block is read twice, so that every walk ends. ``loaded``: the blocks read, in order.
    """

    def __init__(self, read: Callable[[int], bytes], pointers: int, bounds: PointerBounds) -> None:
        self.bounds = bounds
        self.pointers = pointers
        self.loaded: dict[int, None] = {}
        self._read = read

    def load(self, block: int) -> Pointers:
        """Return the pointers in a pointer block. Raises CorruptError if it was read before."""
        if block in self.loaded:
            raise CorruptError(self.bounds.where, "pointer block", block, "one that is used once")
        self.loaded[block] = None
        return parse_pointers(self._read(block))

    def trees(self, i_block: Sequence[int], low: int, high: int) -> Iterator[IndirectTree]:
        """Yield the existing trees of logical blocks [low, high)."""
        for tree in indirect_trees(self.pointers):
            if i_block[tree.slot] and tree.start < high and tree.start + tree.span > low:
                self.bounds.check(i_block[tree.slot], f"i_block[{tree.slot}]")
                yield tree

    def children(self, block: int, pointers: Pointers, level: int, start: int, low: int, high: int) -> list[Extent]:
        """Return (index, block, first logical block) of each pointer block in a table of them for [low, high)."""
        span = self.pointers ** (level - 1)
        first = max(0, (low - start) // span)
        runs = self.bounds.runs(pointers[first : -(-(high - start) // span)], table_name(block), first)
        return [
            (first + index + step, child + step, start + (first + index + step) * span)
            for index, child, count in runs
            for step in range(count)
        ]

    def leaves(self, i_block: Sequence[int], low: int, high: int) -> Iterator[Leaf]:
        """Yield the existing tables of data pointers for logical blocks [low, high), ascending."""
        if low < DIRECT_BLOCKS:
            yield Leaf.direct(i_block)
        for tree in self.trees(i_block, low, high):
            yield from self._below(i_block[tree.slot], tree.level, tree.start, low, high)

    def _below(self, block: int, level: int, start: int, low: int, high: int) -> Iterator[Leaf]:
        pointers = self.load(block)
        if level == 1:
            yield Leaf(start, block, pointers)
            return
        for _, child, first in self.children(block, pointers, level, start, low, high):
            yield from self._below(child, level - 1, first, low, high)


class BlockMap(NamedTuple):
    """Blocks of a file: ``extents``, and ``indirect``, the pointer blocks in the order they were read."""

    extents: Extents
    indirect: list[int]

    @property
    def mapped(self) -> int:
        """Blocks of data."""
        return self.extents.blocks


def read_block_map(
    device: BlockDevice, i_block: Sequence[int], *, block_size: int, first: int, end: int, wanted: int, where: str
) -> BlockMap:
    """Read the map of an inode's first ``wanted`` blocks; blocks must lie in [first, end), the filesystem.

    Raise CorruptError (``where``, the pointer, ...) for a pointer out of range, a pointer block reached twice, or more blocks
    than the filesystem has.
    """
    bounds = PointerBounds(first, end, where)
    if wanted <= DIRECT_BLOCKS:
        return BlockMap(Extents(Leaf.direct(i_block).runs(bounds, 0, wanted)), [])
    reader = MapReader(lambda block: device.read(block * block_size, block_size), block_size // POINTER_SIZE, bounds)
    extents = Extents()
    for leaf in reader.leaves(i_block, 0, wanted):
        for run in leaf.runs(bounds, 0, wanted):
            extents.add(*run)
        if extents.blocks > end:
            raise CorruptError(where, "block map", f"{extents.blocks} blocks or more", f"<= {end}")
    return BlockMap(extents, list(reader.loaded))


def read_inode_map(
    device: BlockDevice, superblock: Superblock, inode: Inode, wanted: int, *, where: str | None = None
) -> BlockMap:
    """Read the block map of an inode that has one. ``where``: the name of the inode in errors, if it has a special one."""
    where = where or f"inode {inode.stat.ino}"
    check_map_flags(inode.stat.flags, where)
    return read_block_map(
        device,
        inode.i_block,
        block_size=superblock.block_size,
        first=superblock.first_data_block,
        end=superblock.blocks_count,
        wanted=wanted,
        where=where,
    )
