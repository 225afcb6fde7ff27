"""Free space of a new filesystem, numbered: position p is the p-th block that is not static metadata.

A plan lays everything out by position. Positions become block numbers only here, so that a plan never sees the group
metadata between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..format.geometry import Geometry

__all__ = ["FreeSpace"]

Array64 = npt.NDArray[np.int64]


class FreeSpace:
    """Free blocks of a new filesystem, in ascending order."""

    def __init__(self, geometry: Geometry) -> None:
        used = geometry.columns.free_counts > 0
        self._first = geometry.columns.free_first[used]
        counts = geometry.columns.free_counts[used]
        self._end = np.cumsum(counts)
        self._begin = self._end - counts
        self._shift = self._first - self._begin
        self.total = int(self._end[-1]) if len(self._end) else 0

    def blocks(self, positions: Array64) -> Array64:
        """Return the block numbers of positions (any shape), which must be below ``total``."""
        shift = self._shift[np.searchsorted(self._end, positions, side="right")]
        result: Array64 = positions + shift
        return result

    def block(self, position: int) -> int:
        """Return the block number of one position."""
        return position + int(self._shift[int(np.searchsorted(self._end, position, side="right"))])

    def runs(self, position: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield (position, block number, count) of each contiguous run in ``count`` positions from ``position`` on."""
        while count > 0:
            number = int(np.searchsorted(self._end, position, side="right"))
            piece = min(count, int(self._end[number]) - position)
            yield position, position + int(self._shift[number]), piece
            position += piece
            count -= piece

    def used_per_run(self, positions: int, groups: npt.NDArray[Any]) -> Array64:
        """Return how many of the first ``positions`` lie in each group; ``groups`` is geometry.columns.free_counts."""
        ends = np.cumsum(np.maximum(groups, 0))
        begins = ends - np.maximum(groups, 0)
        used: Array64 = np.clip(positions - begins, 0, np.maximum(groups, 0))
        return used
