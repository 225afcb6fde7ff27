"""Journal"""

from __future__ import annotations

from .context import Context


def check_journal(context: Context) -> None:
    """TODO."""


def make_journal(context: Context) -> None:
    """TODO."""
