"""Block maps to be written: which indirect blocks a file needs, and what they hold.

A file's blocks are given as extents (logical block, position, count), positions as space.py counts them; blocks in no
extent are holes. Its indirect blocks lie at consecutive positions, in the order: indirect, double indirect with its
leaves, triple indirect with its middle blocks, then their leaves. Blocks that would map only holes are not made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..constants import DIND_SLOT, DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, TIND_SLOT
from .free_space import Space

__all__ = ["BlockMap", "Extent", "indirect_counts"]

Array64 = npt.NDArray[np.int64]
Extent = tuple[int, int, int]

LEAVES_AT_ONCE = 1024


def indirect_counts(blocks: Array64, pointers: int) -> Array64:
    """Indirect blocks of files of ``blocks`` blocks without holes, with ``pointers`` pointers a block; same shape."""
    one = (blocks > DIRECT_BLOCKS).astype(np.int64)
    rest = np.maximum(blocks - DIRECT_BLOCKS - pointers, 0)
    double = np.where(rest > 0, 1 + np.minimum(-(-rest // pointers), pointers), 0)
    rest = np.maximum(rest - pointers * pointers, 0)
    triple = np.where(rest > 0, 1 + -(-rest // (pointers * pointers)) + -(-rest // pointers), 0)
    result: Array64 = one + double + triple
    return result


def _distinct(ascending: Array64) -> Array64:
    """Each value once. (np.unique would load numpy.ma, for nothing.)"""
    return ascending[np.append(True, np.diff(ascending) != 0)] if len(ascending) else ascending


class BlockMap:
    """The map of one file. ``indirect`` is the number of indirect blocks it needs."""

    def __init__(self, extents: Sequence[Extent], pointers: int) -> None:
        self.pointers = pointers
        self.extents = extents
        leaves: list[Array64] = []
        for logical, _, count in extents:
            end = logical + count - DIRECT_BLOCKS
            if end > 0:
                leaves.append(np.arange(max(logical - DIRECT_BLOCKS, 0) // pointers, (end - 1) // pointers + 1))
        # A leaf maps `pointers` blocks: leaf 0 is the indirect block, 1..pointers lie below the double indirect block.
        self._leaves = _distinct(np.concatenate(leaves)) if leaves else np.zeros(0, np.int64)
        self._below_double = self._leaves[(self._leaves >= 1) & (self._leaves <= pointers)]
        self._below_triple = self._leaves[self._leaves > pointers]
        self._middles = _distinct((self._below_triple - 1 - pointers) // pointers)
        self._single = int(len(self._leaves) > 0 and self._leaves[0] == 0)
        self._double_at = self._single
        self._triple_at = self._single + bool(len(self._below_double)) + len(self._below_double)
        self.indirect = self._triple_at + bool(len(self._middles)) + len(self._middles) + len(self._below_triple)

    def i_block(self, space: Space, position: int) -> npt.NDArray[np.uint32]:
        """The 15 pointers of the inode, when the indirect blocks lie at ``position`` and behind."""
        pointers = np.zeros(N_BLOCKS, np.uint32)
        self._fill(pointers[:DIRECT_BLOCKS], 0, space)
        if self._single:
            pointers[IND_SLOT] = space.block(position)
        if len(self._below_double):
            pointers[DIND_SLOT] = space.block(position + self._double_at)
        if len(self._below_triple):
            pointers[TIND_SLOT] = space.block(position + self._triple_at)
        return pointers

    def blocks(self, space: Space, position: int) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
        """(position, pointers of shape (count, pointers)): the indirect blocks, a bounded number at a time, in order."""
        size = self.pointers
        if self._single:
            yield position, self._leaf_rows(self._leaves[:1], space)
        if len(self._below_double):
            row = np.zeros((1, size), np.uint32)
            first_leaf = position + self._double_at + 1
            row[0, self._below_double - 1] = space.blocks(first_leaf + np.arange(len(self._below_double)))
            yield position + self._double_at, row
            yield from self._leaf_blocks(self._below_double, first_leaf, space)
        if len(self._below_triple):
            row = np.zeros((1, size), np.uint32)
            first_middle = position + self._triple_at + 1
            row[0, self._middles] = space.blocks(first_middle + np.arange(len(self._middles)))
            yield position + self._triple_at, row
            first_leaf = first_middle + len(self._middles)
            numbers = self._below_triple - 1 - size
            rows = np.zeros((len(self._middles), size), np.uint32)
            rows[np.searchsorted(self._middles, numbers // size), numbers % size] = space.blocks(
                first_leaf + np.arange(len(numbers))
            )
            yield first_middle, rows
            yield from self._leaf_blocks(self._below_triple, first_leaf, space)

    def _leaf_blocks(self, leaves: Array64, position: int, space: Space) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
        for low in range(0, len(leaves), LEAVES_AT_ONCE):
            yield position + low, self._leaf_rows(leaves[low : low + LEAVES_AT_ONCE], space)

    def _leaf_rows(self, leaves: Array64, space: Space) -> npt.NDArray[np.uint32]:
        rows = np.zeros((len(leaves), self.pointers), np.uint32)
        # Runs of neighbouring leaves map one logical range each.
        breaks = np.flatnonzero(np.diff(leaves) != 1) + 1
        bounds = [0, *breaks.tolist(), len(leaves)]
        for low, high in pairwise(bounds):
            self._fill(rows[low:high].reshape(-1), DIRECT_BLOCKS + int(leaves[low]) * self.pointers, space)
        return rows

    def _fill(self, out: npt.NDArray[np.uint32], first: int, space: Space) -> None:
        """Block numbers of logical blocks ``first`` .. ``first + len(out)``; holes stay 0."""
        end = first + len(out)
        for logical, position, count in self._overlapping(first, end):
            low, high = max(first, logical), min(end, logical + count)
            if low < high:
                out[low - first : high - first] = space.blocks(position + np.arange(low - logical, high - logical))

    def _overlapping(self, first: int, end: int) -> Sequence[Extent]:
        extents = self.extents
        if len(extents) < 16:
            return extents
        # Extents are sorted by logical block: find the part that matters by bisection.
        low, high = 0, len(extents)
        while low < high:
            middle = (low + high) // 2
            if extents[middle][0] + extents[middle][2] <= first:
                low = middle + 1
            else:
                high = middle
        stop = low
        while stop < len(extents) and extents[stop][0] < end:
            stop += 1
        return extents[low:stop]
