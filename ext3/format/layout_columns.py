"""Layout columns: a declared structure as a numpy dtype, for tables of many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .field_kinds import NamedField
    from .layout import Layout

__all__ = ["Table", "dtype_of"]

Table = npt.NDArray[np.void]
"""Structures of one layout, a row each; a field of all of them is a column."""

_NUMPY = {"B": "u1", "H": "u2", "I": "u4", "Q": "u8", "h": "i2"}
"""Integer types of numpy, by their ``struct`` letters."""


def dtype_of(layout: Layout) -> np.dtype[np.void]:
    """Return the dtype of a layout. Raises TypeError if its size is not the layout's."""
    found = np.dtype([_column(field, layout.order) for field in layout.fields])
    if found.itemsize != layout.size:
        raise TypeError(f"{layout.name}: size {found.itemsize} should be {layout.size}")
    return found


def _column(field: NamedField, order: str) -> tuple[Any, ...]:
    """Return a field as numpy's dtype has it."""
    kind = field.kind
    if kind.code == "s":
        return field.name, f"V{kind.count}"
    column = (field.name, order + _NUMPY[kind.code])
    return column if kind.count is None else (*column, (kind.count,))
