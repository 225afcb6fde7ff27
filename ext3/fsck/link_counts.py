"""Pass 4"""

from __future__ import annotations

from .context import Context


def check_link_counts(context: Context) -> None:
    """TODO."""
