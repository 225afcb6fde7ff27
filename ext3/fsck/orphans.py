"""Orphan list: the inodes that a crash left without a name are deleted, those longer than their size are cut.

Contract: comes before repairs that stay in memory, since an image with a journal is changed through it: each inode is one
transaction, and a kill between two leaves a shorter list. Where the list is damaged, or something that hangs on it, the rest
is dropped, and pass 1 finds those inodes. Source: e2fsprogs ``e2fsck/super.c`` (release_orphan_inodes).
"""

from __future__ import annotations

from ..constants import STATE_ERROR
from ..edit.opening import Opened
from ..edit.orphan_list import work_off_orphans
from ..edit.session import Session
from ..errors import DeviceError, Ext3Error
from ..format.group_desc import Groups
from ..journal.log import read_journal
from .context import Context
from .problem import Place
from .problems.volume import ORPHAN_CUT, ORPHAN_DELETED, ORPHAN_LIST

__all__ = ["release_orphans"]


def release_orphans(context: Context) -> None:
    """Work the orphan list off. With the error bit set the list is only dropped: it cannot be trusted then."""
    superblock = context.superblock
    if not superblock.last_orphan:
        return
    if superblock.state & STATE_ERROR:
        context.set_superblock(s_last_orphan=0)
        return
    trouble = _process(context)
    if trouble is None:
        return
    context.must_check = True
    if context.fix(ORPHAN_LIST, got=str(trouble)):
        context.set_superblock(s_last_orphan=0)


def _process(context: Context) -> Ext3Error | None:
    """Process the list as far as it is sound, and read the filesystem anew. Return what is wrong with the rest."""
    superblock = context.superblock
    state = superblock.state
    groups = Groups(context.groups.tobytes(), len(context.groups))
    through_journal = context.policy.writes and superblock.has_journal
    trouble: Ext3Error | None = None
    try:
        if through_journal:
            context.write_out()
            device = context.storage.base
            journal = read_journal(device, superblock, context.groups)
            opened = Opened(superblock, groups, journal, journal.sequence, 0)
            context.storage.flushed = True
        else:
            device = context.storage
            opened = Opened(superblock, groups, None, 0, 0)
        session = Session(device, clock=lambda: context.stamp.seconds * 1_000_000_000, opened=opened)
    except DeviceError:
        raise
    except Ext3Error as error:
        return error
    try:
        for inode in work_off_orphans(session):
            context.fix(ORPHAN_CUT if inode.stat.links else ORPHAN_DELETED, Place(ino=inode.stat.ino), got=inode.stat.size)
            context.report.orphans += 1
    except DeviceError:
        raise
    except Ext3Error as error:
        trouble = error
    session.close()
    context.reload()
    if not through_journal and context.superblock.state != state:
        context.set_superblock(s_state=state)
    return trouble
