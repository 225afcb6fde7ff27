"""Bitmap columns: many cells of a group's bitmap changed together, in any order. A run of cells: see ``bitmap``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import CorruptError
from .bitmap import STATES, GroupBitmap

__all__ = ["change_cells"]


def change_cells(bitmap: GroupBitmap, index: npt.NDArray[np.int64], before: int, after: int) -> None:
    """Change the cells ``index`` from ``before`` to ``after``. Raises CorruptError, with nothing changed, if one differs."""
    if not len(index):
        return
    cells = np.frombuffer(bitmap.cells, np.uint8)
    wrong = cells[index] != before
    if wrong.any():
        bad = int(index[wrong.argmax()])
        raise CorruptError(bitmap.where, f"bit {bad}", STATES[cells[bad]], STATES[before])
    cells[index] = after
    bitmap.note_change(int(index.min()), int(index.max()) + 1)
