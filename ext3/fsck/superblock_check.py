"""Superblock and descriptors: values beyond their limits, places outside of their groups, the reason to check, the final state.

Source: e2fsprogs ``e2fsck/super.c`` (check_super_block), ``e2fsck/unix.c`` (check_if_skip, main).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..constants import (
    EXTRA_ISIZE as EXTRA_BYTES,
)
from ..constants import (
    FLAGS_SIGNED_HASH,
    FLAGS_UNSIGNED_HASH,
    GOOD_INODE_SIZE,
    STATE_ERROR,
    STATE_VALID,
    Compat,
    Incompat,
)
from ..format.group_desc import LOCATIONS
from ..format.group_desc_columns import outside_group
from ..format.schema import SUPERBLOCK
from .backup_superblocks import backups_differ, write_backups
from .context import Context, GaveUp
from .problem import Place
from .problems.volume import (
    COUNTERS_TOO_LARGE,
    EXTRA_ISIZE,
    HURD_FILETYPE,
    LOCATION_OUTSIDE,
    NO_HASH_SIGN,
    NO_UUID,
    NOT_VALID,
    QUOTA_INODE,
    TIME_AHEAD,
    TIME_IN_FUTURE,
    TOTALS_TOO_LARGE,
    UNINIT,
)

__all__ = ["check_locations", "check_superblock", "finish_superblock", "reason_to_check"]

OS_HURD = 1
"""s_creator_os."""
USER_QUOTA_INO, GROUP_QUOTA_INO = 3, 4
UNINIT_FLAGS = 3
"""bg_flags: the inode table, the block bitmap are not initialised."""
DAY = 86400
MOST_LOST = 100_000
"""Places of bitmaps and inode tables that are made anew. No filesystem of which so many are wrong has anything to save."""


def check_superblock(context: Context) -> None:
    """Check the superblock and the descriptors, apart from what only a scan of the inodes can tell."""
    _check_extra_isize(context)
    _check_quota_inodes(context)
    _check_creator(context)
    check_locations(context)
    _check_uninit(context)
    _check_counters(context)
    if context.groups_changed:
        context.write_groups()
    _check_times(context)
    if backups_differ(context):
        context.write_backups = True
        context.must_check = True
    _check_identity(context)


def _check_extra_isize(context: Context) -> None:
    most = context.superblock.inode_size - GOOD_INODE_SIZE
    if not most:
        return
    for field in ("s_min_extra_isize", "s_want_extra_isize"):
        size = context.field(field)
        if size and (size > most or size % 4) and context.fix(EXTRA_ISIZE, got=f"{field} is {size}", want=most):
            context.set_superblock(**{field: EXTRA_BYTES})
            context.write_backups = True


def _check_quota_inodes(context: Context) -> None:
    """Clear the numbers of quota inodes, unless they are those that are reserved for the purpose."""
    for field, reserved in (("s_usr_quota_inum", USER_QUOTA_INO), ("s_grp_quota_inum", GROUP_QUOTA_INO)):
        ino = context.field(field)
        if ino not in (0, reserved) and context.fix(QUOTA_INODE, got=f"{field} is {ino}"):
            context.set_superblock(**{field: 0})
            context.write_backups = True


def _check_creator(context: Context) -> None:
    """Clear a feature that the Hurd does not have."""
    superblock = context.superblock
    if superblock.creator_os == OS_HURD and superblock.has_filetype and context.fix(HURD_FILETYPE):
        context.set_superblock(s_feature_incompat=superblock.incompat & ~Incompat.FILETYPE)
        context.write_backups = True


def check_locations(context: Context) -> None:
    """Clear the places of bitmaps and inode tables that lie outside of their group: pass 1 gives them new ones."""
    superblock, groups = context.superblock, context.groups
    geometry = superblock.geometry
    if sum(int(outside_group(superblock, groups, field).sum()) for field in LOCATIONS) > MOST_LOST:
        raise GaveUp("the group descriptors are lost, and there is no backup of them")
    for field in LOCATIONS:
        count = geometry.inode_table_blocks if field == "bg_inode_table" else 1
        for group in np.flatnonzero(outside_group(superblock, groups, field)).tolist():
            context.must_check = True
            if (group, field) in context.unplaced and not groups[field][group]:
                continue
            block, first = int(groups[field][group]), geometry.first_block(group)
            want = f"from {first} to {first + geometry.block_count(group) - count}"
            if context.fix(LOCATION_OUTSIDE, Place(group=group), got=f"{field} is {block}", want=want):
                groups[field][group] = 0
                context.unplaced.add((group, field))
                context.groups_changed = context.write_backups = True
            elif field == "bg_inode_table":
                raise GaveUp(f"the inodes of group {group} cannot be read")


def _check_uninit(context: Context) -> None:
    groups = context.groups
    marked = (groups["bg_flags"] & UNINIT_FLAGS != 0) | (groups["bg_itable_unused"] != 0)
    for group in np.flatnonzero(marked).tolist():
        flags, unused = int(groups["bg_flags"][group]), int(groups["bg_itable_unused"][group])
        what = f"bg_flags is {flags}" if flags & UNINIT_FLAGS else f"bg_itable_unused is {unused}"
        context.must_check = True
        if context.fix(UNINIT, Place(group=group), got=what):
            groups["bg_flags"][group] = flags & ~UNINIT_FLAGS
            groups["bg_itable_unused"][group] = 0
            context.groups_changed = context.write_backups = True


def _check_counters(context: Context) -> None:
    """Report counters that are impossible; they are counted anew in pass 5."""
    superblock, groups = context.superblock, context.groups
    limits: dict[str, Any] = {
        "bg_free_blocks_count": superblock.geometry.columns.group_blocks,
        "bg_free_inodes_count": superblock.inodes_per_group,
        "bg_used_dirs_count": superblock.inodes_per_group,
    }
    for field, limit in limits.items():
        most = np.broadcast_to(np.asarray(limit), groups[field].shape)
        for group in np.flatnonzero(groups[field] > most).tolist():
            context.must_check = True
            got = f"{field} is {int(groups[field][group])}"
            context.fix(COUNTERS_TOO_LARGE, Place(group=group), got=got, want=int(most[group]))
    for field, count in (
        ("s_free_blocks_count", superblock.blocks_count),
        ("s_free_inodes_count", superblock.inodes_count),
    ):
        if context.field(field) > count:
            context.must_check = True
            context.fix(TOTALS_TOO_LARGE, got=f"{field} is {context.field(field)}", want=count)


def _check_identity(context: Context) -> None:
    superblock = context.superblock
    if not superblock.uuid.int:
        context.fix(NO_UUID)
        context.set_superblock(s_uuid=np.void(context.stamp.uuid))
        context.write_backups = True
    if superblock.compat & Compat.DIR_INDEX and not superblock.flags & (FLAGS_SIGNED_HASH | FLAGS_UNSIGNED_HASH):
        context.fix(NO_HASH_SIGN)
        context.set_superblock(s_flags=superblock.flags | FLAGS_SIGNED_HASH)


def _check_times(context: Context) -> None:
    if not (context.options.force or context.superblock.check_interval):
        return
    for field in ("s_mtime", "s_wtime"):
        time = context.field(field)
        if time <= context.now:
            continue
        what = f"{field} is {time}"
        if time <= context.now + DAY:
            context.fix(TIME_AHEAD, got=what, want=context.now)
            continue
        context.fix(TIME_IN_FUTURE, got=what, want=context.now)
        context.set_superblock(**{field: context.now})


def reason_to_check(context: Context) -> str:
    """Return why a full check is needed; empty if the filesystem is clean."""
    superblock, report = context.superblock, context.report
    if superblock.state & STATE_ERROR:
        return "the filesystem is marked as having errors"
    if not superblock.state & STATE_VALID:
        return "the filesystem was not cleanly unmounted"
    if context.must_check or context.rebuild_resize_inode or context.make_journal or report.corrected or report.left:
        return "the superblock, the descriptors or the journal have faults"
    if 0 < superblock.max_mount_count <= superblock.mount_count:
        return f"the filesystem was mounted {superblock.mount_count} times without a check"
    interval, since = superblock.check_interval, context.now - superblock.check_time
    if interval and since < 0:
        return "the last check is in the future"
    if interval and since >= interval:
        return f"the filesystem was not checked for {since // DAY} days"
    return ""


def finish_superblock(context: Context) -> None:
    """Set what the end of a check sets in the superblock, and write the backups if they need it.

    The state is VALID only if nothing is left. A check that stopped sets the error bit.
    """
    report = context.report
    if context.unusable or not context.policy.writes:
        return
    if report.stopped or report.gave_up:
        state = context.superblock.state & ~STATE_VALID
        context.set_superblock(s_state=state | STATE_ERROR if report.stopped else state)
    elif report.skipped:
        _refresh_totals(context)
    elif not context.options.journal_only:
        _finish_full_check(context)
    elif context.must_check:
        context.set_superblock(s_state=context.superblock.state & ~STATE_VALID)
    if context.write_backups and not report.stopped:
        write_backups(context)
    if context.storage.pending:
        context.set_superblock(s_wtime=context.now)


def _refresh_totals(context: Context) -> None:
    """Set the free counts of the superblock, which the kernel updates only when it unmounts."""
    blocks = int(context.groups["bg_free_blocks_count"].sum(dtype=np.int64))
    inodes = int(context.groups["bg_free_inodes_count"].sum(dtype=np.int64))
    if (context.field("s_free_blocks_count"), context.field("s_free_inodes_count")) != (blocks, inodes):
        context.set_superblock(s_free_blocks_count=blocks, s_free_inodes_count=inodes)


def _finish_full_check(context: Context) -> None:
    superblock = context.superblock
    state = superblock.state & ~STATE_VALID
    if not context.report.left:
        marked = superblock.state & STATE_VALID or context.valid_cleared
        if marked or context.fix(NOT_VALID, got=superblock.state, want=STATE_VALID):
            state = STATE_VALID
    changes: dict[str, object] = {"s_state": state, "s_lastcheck": context.now, "s_mnt_count": 0}
    errors = SUPERBLOCK.view(context.raw)[0]["s_error_log"]
    if any(bytes(errors)):
        changes["s_error_log"] = np.void(len(bytes(errors)))
    if superblock.overhead_blocks:
        changes["s_overhead_clusters"] = _overhead(context)
    context.set_superblock(**changes)


def _overhead(context: Context) -> int:
    """Return the blocks that are no file's: metadata of the groups, and the journal."""
    geometry = context.superblock.geometry
    journal = 0
    if context.superblock.has_journal and context.superblock.journal_ino:
        size = context.superblock.journal_backup[16] if len(context.superblock.journal_backup) > 16 else 0
        journal = size // geometry.block_size
    return int(geometry.columns.group_overhead.sum()) + geometry.first_data_block + journal
