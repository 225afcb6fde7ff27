"""Resize inode"""

from __future__ import annotations

from .context import Context


def check_resize_inode(context: Context) -> None:
    """TODO."""


def rebuild_resize_inode(context: Context) -> None:
    """TODO."""
