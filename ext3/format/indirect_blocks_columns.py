"""Indirect blocks of new files in numpy columns: their number and their content.

Indirect blocks that map only holes are not allocated. They are counted and packed in this order: indirect, double
indirect with its leaves, triple indirect with its middle blocks, then their leaves. A leaf maps as many blocks as it holds
pointers: leaf 0 is the indirect block, the next ones lie below the double indirect block, all others below the triple
indirect one. For the number of one file's see ``indirect_blocks``. Source: Linux ``fs/ext4/indirect.c``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..constants import DIND_SLOT, DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, TIND_SLOT
from .block_map import Extent
from .block_map_columns import Pointers

__all__ = ["IndirectBlocks", "dense_counts", "dense_roots"]

Array64 = npt.NDArray[np.int64]

LEAVES_AT_ONCE = 1024


# -- files without holes ---------------------------------------------------------------------------------------------


def dense_counts(blocks: Array64, pointers: int) -> Array64:
    """Count the indirect blocks of files of ``blocks`` blocks without holes, with ``pointers`` pointers each; same shape."""
    one = (blocks > DIRECT_BLOCKS).astype(np.int64)
    rest = np.maximum(blocks - DIRECT_BLOCKS - pointers, 0)
    double = np.where(rest > 0, 1 + np.minimum(-(-rest // pointers), pointers), 0)
    rest = np.maximum(rest - pointers * pointers, 0)
    triple = np.where(rest > 0, 1 + -(-rest // (pointers * pointers)) + -(-rest // pointers), 0)
    result: Array64 = one + double + triple
    return result


def dense_roots(blocks: Array64, pointers: int) -> list[tuple[int, npt.NDArray[np.bool_], Array64]]:
    """Return (word of the inode, which files need it, the number among the file's indirect blocks of the one it names)."""
    leaves = np.clip(-(-(blocks - DIRECT_BLOCKS - pointers) // pointers), 0, pointers)
    return [
        (IND_SLOT, blocks > DIRECT_BLOCKS, np.zeros_like(blocks)),
        (DIND_SLOT, blocks > DIRECT_BLOCKS + pointers, np.ones_like(blocks)),
        (TIND_SLOT, blocks > DIRECT_BLOCKS + pointers + pointers * pointers, 2 + leaves),
    ]


# -- files with holes ------------------------------------------------------------------------------------------------


def _distinct(ascending: Array64) -> Array64:
    """Return each value once. (np.unique would load numpy.ma, for nothing.)"""
    return ascending[np.append(True, np.diff(ascending) != 0)] if len(ascending) else ascending


class IndirectBlocks:
    """Indirect blocks of one file with these extents, ascending: ``count`` of them, with ``pointers`` pointers each.

    ``numbers``: the blocks that the indirect blocks are written to, in order.
    """

    def __init__(self, extents: Sequence[Extent], pointers: int) -> None:
        self.pointers = pointers
        self.extents = extents
        leaves: list[Array64] = []
        for logical, _, count in extents:
            end = logical + count - DIRECT_BLOCKS
            if end > 0:
                leaves.append(np.arange(max(logical - DIRECT_BLOCKS, 0) // pointers, (end - 1) // pointers + 1))
        self._leaves = _distinct(np.concatenate(leaves)) if leaves else np.zeros(0, np.int64)
        self._below_double = self._leaves[(self._leaves >= 1) & (self._leaves <= pointers)]
        self._below_triple = self._leaves[self._leaves > pointers]
        self._middles = _distinct((self._below_triple - 1 - pointers) // pointers)
        self._single = int(len(self._leaves) > 0 and self._leaves[0] == 0)
        self._double_at = self._single
        self._triple_at = self._single + bool(len(self._below_double)) + len(self._below_double)
        self.count = self._triple_at + bool(len(self._middles)) + len(self._middles) + len(self._below_triple)

    def pack_inode(self, numbers: Array64) -> Pointers:
        """Return the 15 words of the inode."""
        i_block = np.zeros(N_BLOCKS, np.uint32)
        self._fill(i_block[:DIRECT_BLOCKS], 0)
        if self._single:
            i_block[IND_SLOT] = numbers[0]
        if len(self._below_double):
            i_block[DIND_SLOT] = numbers[self._double_at]
        if len(self._below_triple):
            i_block[TIND_SLOT] = numbers[self._triple_at]
        return i_block

    def pack(self, numbers: Array64) -> Iterator[Pointers]:
        """Yield the indirect blocks in order, a bounded number at a time; each piece has shape (count, pointers)."""
        size = self.pointers
        if self._single:
            yield self._leaf_rows(self._leaves[:1])
        if len(self._below_double):
            first_leaf = self._double_at + 1
            row = np.zeros((1, size), np.uint32)
            row[0, self._below_double - 1] = numbers[first_leaf : first_leaf + len(self._below_double)]
            yield row
            yield from self._leaf_blocks(self._below_double)
        if len(self._below_triple):
            first_middle = self._triple_at + 1
            first_leaf = first_middle + len(self._middles)
            row = np.zeros((1, size), np.uint32)
            row[0, self._middles] = numbers[first_middle:first_leaf]
            yield row
            leaves = self._below_triple - 1 - size
            rows = np.zeros((len(self._middles), size), np.uint32)
            rows[np.searchsorted(self._middles, leaves // size), leaves % size] = numbers[first_leaf:]
            yield rows
            yield from self._leaf_blocks(self._below_triple)

    def _leaf_blocks(self, leaves: Array64) -> Iterator[Pointers]:
        for low in range(0, len(leaves), LEAVES_AT_ONCE):
            yield self._leaf_rows(leaves[low : low + LEAVES_AT_ONCE])

    def _leaf_rows(self, leaves: Array64) -> Pointers:
        rows = np.zeros((len(leaves), self.pointers), np.uint32)
        # A run of consecutive leaves maps one logical range.
        breaks = np.flatnonzero(np.diff(leaves) != 1) + 1
        bounds = [0, *breaks.tolist(), len(leaves)]
        for low, high in pairwise(bounds):
            self._fill(rows[low:high].reshape(-1), DIRECT_BLOCKS + int(leaves[low]) * self.pointers)
        return rows

    def _fill(self, out: Pointers, first: int) -> None:
        """Set the block numbers of logical blocks ``first`` .. ``first + len(out)``; holes stay 0."""
        end = first + len(out)
        for logical, physical, count in self._overlapping(first, end):
            low, high = max(first, logical), min(end, logical + count)
            if low < high:
                out[low - first : high - first] = physical + np.arange(low - logical, high - logical)

    def _overlapping(self, first: int, end: int) -> Sequence[Extent]:
        extents = self.extents
        if len(extents) < 16:
            return extents
        # Bisection, as extents are sorted by logical block.
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
