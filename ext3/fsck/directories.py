"""Pass 2"""

from __future__ import annotations

from .context import Context


def check_directories(context: Context) -> None:
    """TODO."""
