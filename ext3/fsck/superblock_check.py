"""Superblock"""

from __future__ import annotations

from typing import Any

from .context import Context


def check_superblock(context: Context) -> None:
    """TODO."""


def finish_superblock(context: Context) -> None:
    """TODO."""


def reason_to_check(context: Context) -> str:
    """TODO."""
    return "always"


def open_context(device: Any, policy: Any, report: Any, stamp: Any, options: Any, before_write: Any) -> Context:
    """TODO."""
    from ..format.superblock import read_superblock
    from .storage import RepairStorage

    return Context(
        RepairStorage(device, read_superblock(device).block_size, before_write=before_write), policy, report, stamp, options
    )
