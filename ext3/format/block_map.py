"""Block map of an inode: 12 direct pointers, then trees of pointer blocks one, two and three levels high.

A pointer 0 is a hole; a pointer block 0 is a hole as large as all it would map. For the pointer blocks of a new
file see ``indirect_blocks``. Source: Linux ``fs/ext4/indirect.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ..constants import DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, POINTER_SIZE
from ..device.base import BlockDevice
from ..errors import CorruptError
from .inode import Inode, check_map_flags
from .violation import Violation

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
    "extent_list",
    "group_few",
    "group_runs",
    "indirect_trees",
    "join_runs",
    "map_limit",
    "map_path",
    "read_block_map",
    "read_inode_map",
    "table_name",
]

Pointers = npt.NDArray[np.uint32]
Array64 = npt.NDArray[np.int64]
Extents = npt.NDArray[np.int64]
"""Rows (logical block, physical block, count), ascending, without holes."""
Extent = tuple[int, int, int]
"""One row of Extents."""
GROUPED_BLOCKS = 1 << 16
"""Blocks of a map that are read before they are grouped into runs, which take less memory."""


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


# -- runs ------------------------------------------------------------------------------------------------------------


def group_runs(logical: Array64, physical: Array64) -> Extents:
    """Return the runs of blocks that follow each other on both sides; both columns ascend in the order given."""
    if not len(logical):
        return np.zeros((0, 3), np.int64)
    breaks = np.flatnonzero((np.diff(logical) != 1) | (np.diff(physical) != 1)) + 1
    starts = np.concatenate([np.zeros(1, np.int64), breaks])
    extents = np.empty((len(starts), 3), np.int64)
    extents[:, 0], extents[:, 1] = logical[starts], physical[starts]
    extents[:, 2] = np.diff(np.append(starts, len(logical)))
    return extents


def join_runs(extents: Extents) -> Extents:
    """Return the runs of a list in which neighbours may continue each other."""
    ends = extents[:-1, :2] + extents[:-1, 2:]
    first = np.flatnonzero(np.concatenate([[True], (ends != extents[1:, :2]).any(axis=1)]))
    joined = extents[first]
    joined[:, 2] = np.add.reduceat(extents[:, 2], first)
    return joined


def group_few(blocks: Iterable[tuple[int, int]]) -> list[Extent]:
    """Return the runs among (logical, physical) blocks, as ``group_runs`` does; faster for a few blocks."""
    runs: list[Extent] = []
    at = to = 0
    for logical, physical in blocks:
        if runs and (logical, physical) == (at, to):
            first, start, count = runs[-1]
            runs[-1] = (first, start, count + 1)
        else:
            runs.append((logical, physical, 1))
        at, to = logical + 1, physical + 1
    return runs


def extent_list(extents: Extents) -> list[Extent]:
    """Return the rows as tuples."""
    return [(row[0], row[1], row[2]) for row in extents.tolist()]


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

    def inside(self, blocks: Pointers | Array64) -> npt.NDArray[np.bool_]:
        """Return which blocks are in range."""
        return np.asarray((blocks >= self.first) & (blocks < self.end))

    def violation(self, block: int, name: str) -> Violation:
        """Return the violation of a pointer, called ``name``, that is out of range."""
        return Violation(self.where, name, block, f"a block from {self.first} to {self.end - 1}")

    def violations(self, pointers: Pointers, name: str, base: int = 0) -> Iterator[Violation]:
        """Yield those of all pointers out of range that are not holes; arguments as those of ``used``."""
        for at in np.flatnonzero((pointers != 0) & ~self.inside(pointers)).tolist():
            yield self.violation(int(pointers[at]), f"{name}[{base + at}]")

    def check(self, block: int, name: str) -> None:
        """Raise CorruptError if the pointer is out of range."""
        if not self.holds(block):
            raise self.violation(block, name).error

    def used(self, pointers: Pointers, name: str, base: int = 0) -> Array64:
        """Return the indices of the pointers that are not holes. Raise CorruptError if one is out of range.

        ``base``: the index in its table, called ``name``, of the first.
        """
        used = np.flatnonzero(pointers)
        if not self.inside(pointers[used]).all():
            raise next(self.violations(pointers, name, base)).error
        return used


class Leaf(NamedTuple):
    """Pointers to data, from logical block ``start`` on: those in the inode itself (``block`` 0) or in a pointer block."""

    start: int
    block: int
    pointers: Pointers

    @property
    def name(self) -> str:
        return table_name(self.block)


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
        return np.frombuffer(self._read(block), "<u4")

    def trees(self, i_block: Sequence[int], low: int, high: int) -> Iterator[IndirectTree]:
        """Yield the existing trees of logical blocks [low, high)."""
        for tree in indirect_trees(self.pointers):
            if i_block[tree.slot] and tree.start < high and tree.start + tree.span > low:
                self.bounds.check(i_block[tree.slot], f"i_block[{tree.slot}]")
                yield tree

    def children(self, block: int, pointers: Pointers, level: int, start: int, low: int, high: int) -> list[tuple[int, int]]:
        """Return (index, first logical block) of each pointer block in a table of them for [low, high)."""
        span = self.pointers ** (level - 1)
        first = max(0, (low - start) // span)
        used = self.bounds.used(pointers[first : -(-(high - start) // span)], table_name(block), first) + first
        return [(index, start + index * span) for index in used.tolist()]

    def leaves(self, i_block: Sequence[int], low: int, high: int) -> Iterator[Leaf]:
        """Yield the existing tables of data pointers for logical blocks [low, high), ascending."""
        if low < DIRECT_BLOCKS:
            yield Leaf(0, 0, np.array(i_block[:DIRECT_BLOCKS], np.uint32))
        for tree in self.trees(i_block, low, high):
            yield from self._below(i_block[tree.slot], tree.level, tree.start, low, high)

    def _below(self, block: int, level: int, start: int, low: int, high: int) -> Iterator[Leaf]:
        pointers = self.load(block)
        if level == 1:
            yield Leaf(start, block, pointers)
            return
        for index, first in self.children(block, pointers, level, start, low, high):
            yield from self._below(int(pointers[index]), level - 1, first, low, high)


class BlockMap(NamedTuple):
    """Blocks of a file: ``extents``, and ``indirect``, the pointer blocks in the order they were read."""

    extents: Extents
    indirect: list[int]

    @property
    def mapped(self) -> int:
        """Blocks of data."""
        return int(self.extents[:, 2].sum())


def read_block_map(
    device: BlockDevice, i_block: Sequence[int], *, block_size: int, first: int, end: int, wanted: int, where: str
) -> BlockMap:
    """Read the map of an inode's first ``wanted`` blocks; blocks must lie in [first, end), the filesystem.

    Raise CorruptError (``where``, the pointer, ...) for a pointer out of range, a pointer block reached twice, or more blocks
    than the filesystem has.
    """
    bounds = PointerBounds(first, end, where)
    if wanted <= DIRECT_BLOCKS:
        return BlockMap(_direct_runs(i_block[:wanted], bounds), [])
    reader = MapReader(lambda block: device.read(block * block_size, block_size), block_size // POINTER_SIZE, bounds)
    runs: list[Extents] = []
    logical: list[Array64] = []
    physical: list[Pointers] = []
    mapped = grouped = 0
    for leaf in reader.leaves(i_block, 0, wanted):
        pointers = leaf.pointers[: wanted - leaf.start]
        used = bounds.used(pointers, leaf.name)
        mapped += len(used)
        if mapped > end:
            raise CorruptError(where, "block map", f"{mapped} blocks or more", f"<= {end}")
        logical.append(leaf.start + used)
        physical.append(pointers[used])
        if mapped - grouped > GROUPED_BLOCKS:
            runs.append(group_runs(np.concatenate(logical), np.concatenate(physical).astype(np.int64)))
            logical, physical, grouped = [], [], mapped
    if logical:
        runs.append(group_runs(np.concatenate(logical), np.concatenate(physical).astype(np.int64)))
    return BlockMap(runs[0] if len(runs) == 1 else join_runs(np.concatenate(runs)), list(reader.loaded))


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


def _direct_runs(pointers: Sequence[int], bounds: PointerBounds) -> Extents:
    """Return the extents of a file with direct blocks only."""
    for slot, block in enumerate(pointers):
        if block and not bounds.first <= block < bounds.end:
            bounds.check(block, f"i_block[{slot}]")
    return np.array(group_few((slot, block) for slot, block in enumerate(pointers) if block), np.int64).reshape(-1, 3)
