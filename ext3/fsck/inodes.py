"""Pass 1"""

from __future__ import annotations

from .context import Context


def check_inodes(context: Context) -> None:
    """TODO."""
