"""Block maps in numpy columns: pointers and blocks of many at once. For one map see ``block_map``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .block_map import Extent, PointerBounds

__all__ = ["Pointers", "group_runs", "inside"]

Pointers = npt.NDArray[np.uint32]
Array64 = npt.NDArray[np.int64]


def group_runs(logical: Array64, physical: Array64) -> list[Extent]:
    """Return the runs of blocks that follow each other on both sides; both columns ascend in the order given."""
    if not len(logical):
        return []
    starts = np.append(0, np.flatnonzero((np.diff(logical) != 1) | (np.diff(physical) != 1)) + 1)
    counts = np.diff(np.append(starts, len(logical)))
    return list(zip(logical[starts].tolist(), physical[starts].tolist(), counts.tolist(), strict=True))


def inside(bounds: PointerBounds, blocks: Pointers | Array64) -> npt.NDArray[np.bool_]:
    """Return which blocks are in range."""
    return np.asarray((blocks >= bounds.first) & (blocks < bounds.end))
