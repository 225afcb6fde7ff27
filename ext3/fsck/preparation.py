"""Preparation of a check: what comes before the passes, and what that says of the need for them.

The journal comes first, as everything else is read through it. Source: e2fsprogs ``e2fsck/unix.c`` (main).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..device.base import BlockDevice
from ..errors import NoSpaceError
from ..newfs.stamp import Stamp
from .context import CheckOptions, Context, GaveUp, Reopen
from .finding import Report
from .journal_check import check_journal
from .opening import accept_superblock, open_context
from .orphans import release_orphans
from .policy import CheckOnly
from .superblock_check import check_superblock, reason_to_check

__all__ = ["QuickLook", "prepare", "quick_look"]


def prepare(context: Context) -> None:
    """Check and repair what the passes rely on. Raises Reopen."""
    accept_superblock(context)
    check_journal(context)
    if not context.options.journal_only:
        release_orphans(context)
        check_superblock(context)


@dataclass(frozen=True, slots=True)
class QuickLook:
    """State of a filesystem, as far as it is known without the passes.

    ``reason``: why a check would go through them; empty: the filesystem says it is clean. ``transactions``: of the journal, to
    be replayed; ``orphans``: removed files that still take space.
    """

    reason: str
    transactions: int
    orphans: int


def quick_look(device: BlockDevice, stamp: Stamp | None = None) -> QuickLook:
    """Return what a check would begin with, as far as superblock, journal and orphan list say. Raises as ``check``."""
    report = Report()
    context = open_context(device, CheckOnly(), report, stamp or Stamp.now(), CheckOptions())
    try:
        prepare(context)
        reason = reason_to_check(context)
    except (GaveUp, NoSpaceError, Reopen) as error:
        reason = str(error)
    return QuickLook(reason, report.replayed, report.orphans)
