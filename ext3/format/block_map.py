"""The block map of an inode: 12 direct pointers, then blocks of pointers, one, two and three levels deep.

Reading gives runs. A pointer 0 is a hole; a pointer block 0 is a hole as large as all it would map. Source: Linux
``fs/ext4/indirect.c``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..constants import DIRECT_BLOCKS, IND_SLOT, N_BLOCKS
from ..device.base import BlockDevice
from ..errors import CorruptError

__all__ = ["BlockMap", "map_limit", "read_block_map"]

Extents = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BlockMap:
    """Where a file's blocks are: ``extents`` has rows (logical block, physical block, count), ascending, without holes.

    ``indirect`` are the pointer blocks in the order they were read.
    """

    extents: Extents
    indirect: list[int]

    @property
    def mapped(self) -> int:
        """Blocks of data."""
        return int(self.extents[:, 2].sum())


def map_limit(block_size: int) -> int:
    """Blocks a map can hold: 12 + p + p^2 + p^3."""
    pointers = block_size // 4
    return DIRECT_BLOCKS + pointers + pointers**2 + pointers**3


@dataclass(slots=True)
class _Walk:
    device: BlockDevice
    block_size: int
    first: int
    end: int
    wanted: int
    where: str
    pieces: list[tuple[int, npt.NDArray[np.uint32]]] = field(default_factory=list)
    seen: dict[int, None] = field(default_factory=dict)
    mapped: int = 0

    def check(self, pointers: npt.NDArray[np.uint32], name: str) -> npt.NDArray[np.int64]:
        """Indices of the pointers that are no holes; all of them must lie in the filesystem."""
        used = np.flatnonzero(pointers)
        values = pointers[used]
        bad = (values < self.first) | (values >= self.end)
        if bad.any():
            at = int(bad.argmax())
            raise CorruptError(
                self.where, f"{name}[{used[at]}]", int(values[at]), f"a block from {self.first} to {self.end - 1}"
            )
        return used

    def leaf(self, start: int, pointers: npt.NDArray[np.uint32], name: str) -> None:
        """Take pointers to data, the first of which is for logical block ``start``."""
        pointers = pointers[: max(0, self.wanted - start)]
        self.mapped += len(self.check(pointers, name))
        if self.mapped > self.end:
            raise CorruptError(self.where, "block map", f"{self.mapped} blocks or more", f"<= {self.end}")
        self.pieces.append((start, pointers))

    def descend(self, block: int, level: int, start: int) -> None:
        """Take the pointer block ``block``, ``level`` (1 to 3) above the data. No block serves twice, so this ends."""
        if block in self.seen:
            raise CorruptError(self.where, "pointer block", block, "one that is used once")
        self.seen[block] = None
        pointers = np.frombuffer(self.device.read(block * self.block_size, self.block_size), "<u4")
        name = f"pointers in block {block}"
        if level == 1:
            self.leaf(start, pointers, name)
            return
        span = len(pointers) ** (level - 1)
        for index in self.check(pointers[: -(-(self.wanted - start) // span)], name).tolist():
            self.descend(int(pointers[index]), level - 1, start + index * span)


def read_block_map(
    device: BlockDevice, i_block: Sequence[int], *, block_size: int, first: int, end: int, wanted: int, where: str
) -> BlockMap:
    """The map of an inode's first ``wanted`` blocks; blocks must lie in [first, end), the filesystem.

    CorruptError (``where``, the pointer, ...) for a pointer outside, a pointer block met twice, more blocks than there are.
    """
    if wanted <= DIRECT_BLOCKS:
        return BlockMap(_direct_runs(i_block[:wanted], first, end, where), [])
    pointers = block_size // 4
    walk = _Walk(device, block_size, first, end, wanted, where)
    top = np.array(i_block, np.uint32)
    walk.leaf(0, top[:DIRECT_BLOCKS], "i_block")
    start = DIRECT_BLOCKS
    for slot in range(IND_SLOT, N_BLOCKS):
        if start >= wanted:
            break
        level = slot - IND_SLOT + 1
        if top[slot]:
            walk.check(top[: slot + 1], "i_block")
            walk.descend(int(top[slot]), level, start)
        start += pointers**level
    return BlockMap(_runs(walk.pieces), list(walk.seen))


def _direct_runs(pointers: Sequence[int], first: int, end: int, where: str) -> Extents:
    """The runs of a small file, which most are; the same as _runs, without the cost of setting up arrays."""
    rows: list[list[int]] = []
    for logical, physical in enumerate(pointers):
        if not physical:
            continue
        if not first <= physical < end:
            raise CorruptError(where, f"i_block[{logical}]", physical, f"a block from {first} to {end - 1}")
        if rows and rows[-1][0] + rows[-1][2] == logical and rows[-1][1] + rows[-1][2] == physical:
            rows[-1][2] += 1
        else:
            rows.append([logical, physical, 1])
    return np.array(rows, np.int64).reshape(-1, 3)


def _runs(pieces: list[tuple[int, npt.NDArray[np.uint32]]]) -> Extents:
    """Pieces of the map, ascending, as runs of blocks that follow each other on both sides."""
    used = [np.flatnonzero(pointers) for _, pointers in pieces]
    logical = np.concatenate([start + index for (start, _), index in zip(pieces, used, strict=True)])
    physical = np.concatenate([pointers[index] for (_, pointers), index in zip(pieces, used, strict=True)]).astype(np.int64)
    if not len(logical):
        return np.zeros((0, 3), np.int64)
    breaks = np.flatnonzero((np.diff(logical) != 1) | (np.diff(physical) != 1)) + 1
    starts = np.concatenate([[0], breaks])
    counts = np.diff(np.concatenate([starts, [len(logical)]]))
    return np.stack([logical[starts], physical[starts], counts], axis=1)
