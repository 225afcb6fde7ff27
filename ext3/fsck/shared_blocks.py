"""Passes 1B-1D"""

from __future__ import annotations

from .context import Context


def separate_shared_blocks(context: Context) -> None:
    """TODO."""
