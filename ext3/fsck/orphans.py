"""Orphans"""

from __future__ import annotations

from .context import Context


def release_orphans(context: Context) -> None:
    """TODO."""
