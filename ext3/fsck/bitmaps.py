"""Pass 5"""

from __future__ import annotations

from .context import Context


def check_bitmaps(context: Context) -> None:
    """TODO."""
