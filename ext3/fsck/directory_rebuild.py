"""Pass 3A"""

from __future__ import annotations

from .context import Context


def rebuild_directories(context: Context) -> None:
    """TODO."""
