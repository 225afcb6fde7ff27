"""The check as a whole: the passes in order, their restarts, and what is written at the end.

Order: superblock values, journal, orphan list, superblock and descriptors, skip test, resize inode, passes 1 to 4, a dropped
journal made again, pass 5, superblock written. Journal and orphan list come before other repairs, which are kept in memory:
they are worked off on the image itself. Source: e2fsprogs ``e2fsck/unix.c`` (main), ``e2fsck/e2fsck.c`` (e2fsck_run).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..device.base import BlockDevice
from ..errors import NoSpaceError
from ..newfs.stamp import Stamp
from .bitmaps import check_bitmaps
from .connectivity import check_connectivity
from .context import CheckOptions, Context, GaveUp, Reopen, Restart
from .directories import check_directories
from .directory_rebuild import rebuild_directories
from .finding import Finding, Report
from .inodes import check_inodes
from .link_counts import check_link_counts
from .new_journal import make_journal
from .opening import open_context
from .policy import Policy, Stopped
from .preparation import prepare
from .resize_inode import check_resize_inode, rebuild_resize_inode
from .shared_blocks import separate_shared_blocks
from .superblock_check import finish_superblock, reason_to_check

__all__ = ["check"]

MAX_RESTARTS = 5
"""Restarts of the passes after which the check gives up."""

Pass = Callable[[Context], None]
_PASSES: tuple[tuple[str, Pass], ...] = (
    ("1", check_inodes),
    ("1B", separate_shared_blocks),
    ("resize inode", rebuild_resize_inode),
    ("2", check_directories),
    ("3", check_connectivity),
    ("3A", rebuild_directories),
    ("4", check_link_counts),
    ("journal", make_journal),
    ("5", check_bitmaps),
)

_WHOLE = ("3", "4")
"""Passes that do not say themselves how far they are."""


def check(
    device: BlockDevice,
    policy: Policy,
    *,
    options: CheckOptions | None = None,
    stamp: Stamp | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    begin: Callable[[str], None] | None = None,
    observe: Callable[[Finding], None] | None = None,
) -> Report:
    """Check the filesystem on ``device`` and repair what ``policy`` decides.

    ``stamp`` dates the repairs and names what they create (default: now). ``progress`` is called with (pass number, done,
    total), ``begin`` with the name of each pass ("1", "1B" ...) before it, ``observe`` with each finding after its decision.

    Raise NotExt3Error if there is no superblock and no copy of one, UnsupportedError for features that are not ext3's,
    CorruptError if the superblock is beyond repair, DeviceError.
    """
    report = Report(observe=observe)
    options, stamp = options or CheckOptions(), stamp or Stamp.now()
    try:
        context = open_context(device, policy, report, stamp, options)
        context.progress = progress
        try:
            _run_to_end(context, begin)
        except Reopen as again:
            context = open_context(again.device, policy, report, stamp, options)
            context.progress = progress
            context.storage.flushed = policy.writes
            context.must_check = True
            _run_to_end(context, begin)
    except Stopped as stop:  # before there was anything to write
        return _stopped(report, stop)
    except Reopen as again:
        raise again.error from None
    finish_superblock(context)
    if policy.writes:
        context.storage.flush(final=True)
    report.changed = context.storage.flushed or context.storage.pending
    _describe(context)
    return report


def _run_to_end(context: Context, begin: Callable[[str], None] | None) -> None:
    """Run the check, and note in the report why it ended early. Raises Reopen."""
    try:
        _run(context, begin)
    except Stopped as stop:
        _stopped(context.report, stop)
    except GaveUp as error:
        context.report.gave_up = str(error)
    except NoSpaceError as error:
        context.report.gave_up = error.message


def _stopped(report: Report, stop: Stopped) -> Report:
    report.stopped = stop.finding
    report.add(stop.finding)
    return report


def _describe(context: Context) -> None:
    """Fill in what the report says of the filesystem; of one that was not checked as its superblock has it."""
    report, superblock = context.report, context.superblock
    report.label, report.block_size = superblock.label, superblock.block_size
    report.inodes_count, report.blocks_count = superblock.inodes_count, superblock.blocks_count
    report.inodes_used = report.inodes_used or max(0, superblock.inodes_count - superblock.free_inodes)
    report.blocks_used = report.blocks_used or max(0, superblock.blocks_count - superblock.free_blocks)


def _run(context: Context, begin: Callable[[str], None] | None) -> None:
    report, options = context.report, context.options
    prepare(context)
    if options.journal_only:
        return
    report.reason = reason_to_check(context)
    if not (options.force or options.rebuild_directories or report.reason):
        report.skipped = True
        return
    check_resize_inode(context)
    while True:
        context.begin_passes()
        try:
            for name, run in _PASSES:
                if begin is not None:
                    begin(name)
                started = time.monotonic()
                if context.progress is not None and name in _WHOLE:
                    context.progress(int(name), 0, 1)
                run(context)
                if context.progress is not None and name in _WHOLE:
                    context.progress(int(name), 1, 1)
                report.seconds[name] = report.seconds.get(name, 0.0) + time.monotonic() - started
                context.flush_if_large()
            break
        except Restart:
            report.restarts += 1
            if report.restarts > MAX_RESTARTS:
                raise GaveUp(f"repairs began again {MAX_RESTARTS} times without an end") from None
