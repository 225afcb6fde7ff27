"""Pass 3"""

from __future__ import annotations

from .context import Context


def check_connectivity(context: Context) -> None:
    """TODO."""
