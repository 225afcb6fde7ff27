"""Orphan list: inodes that a crash would leave without a name, or longer than their size.

The superblock's s_last_orphan is the head, i_dtime of each inode is the next one, 0 ends the list. Recovery deletes inodes
without links and truncates those with links to their size. Source: Linux ``fs/ext4/orphan.c``
(ext4_orphan_add, ext4_orphan_del, ext4_orphan_cleanup), ``fs/ext4/indirect.c`` (ext4_ind_truncate).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import CorruptError, JournalFullError
from ..format.block_map import PointerBounds, map_limit, read_inode_map
from ..format.inode import Inode, check_map_flags, has_block_map, parse_inode, patch_inode
from ..format.inode_fields import MASK32
from .block_map_edit import BlockMapEditor
from .xattr_edit import release_block

if TYPE_CHECKING:
    from .session import Session

__all__ = [
    "OrphanLinks",
    "add_orphan",
    "cut_in_steps",
    "cut_inode",
    "delete_inode",
    "orphan_chain",
    "process_orphans",
    "remove_orphan",
    "work_off_orphans",
]


def orphan_chain(session: Session) -> Iterator[int]:
    """Yield the inodes of the list from its head. Raises CorruptError for one that is none, or that is met twice."""
    seen: set[int] = set()
    ino, where, field = session.last_orphan, "superblock", "s_last_orphan"
    superblock = session.superblock
    while ino:
        if not superblock.first_ino <= ino <= superblock.inodes_count:
            raise CorruptError(where, field, ino, f"an inode from {superblock.first_ino} to {superblock.inodes_count}")
        if ino in seen:
            raise CorruptError(where, field, ino, "an inode that is not in the orphan list already")
        seen.add(ino)
        yield ino
        where, field = f"orphan inode {ino}", "i_dtime"
        ino = parse_inode(session.read_inode(ino), ino).dtime


class OrphanLinks:
    """Links of the list as it is now: which inode comes before which. Saves a walk of the list for every change."""

    def __init__(self, session: Session) -> None:
        """Walk the list. Raises CorruptError as ``orphan_chain`` does."""
        self._before: dict[int, int] = {}
        previous = 0
        for ino in orphan_chain(session):
            self._before[ino] = previous
            previous = ino

    def __contains__(self, ino: int) -> bool:
        return ino in self._before

    def add_first(self, ino: int, following: int) -> None:
        self._before[ino] = 0
        if following:
            self._before[following] = ino

    def remove(self, ino: int, following: int) -> int:
        """Remove an inode. Return the one before it, 0 for the first. Raises CorruptError if the list does not hold it."""
        if ino not in self._before:
            raise CorruptError(f"inode {ino}", "orphan list", "without it", "an entry")
        previous = self._before.pop(ino)
        if following:
            self._before[following] = previous
        return previous


def add_orphan(session: Session, ino: int) -> None:
    """Put an inode at the head of the list, if the list does not hold it."""
    if ino not in OrphanLinks(session):
        _set_next(session, ino, session.last_orphan)
        session.last_orphan = ino


def remove_orphan(session: Session, ino: int) -> None:
    """Take an inode out of the list; its i_dtime becomes 0. Raises CorruptError if the list does not hold it."""
    following = parse_inode(session.read_inode(ino), ino).dtime
    previous = OrphanLinks(session).remove(ino, following)
    _set_next(session, ino, 0)
    if previous:
        _set_next(session, previous, following)
    else:
        session.last_orphan = following


def _set_next(session: Session, ino: int, following: int) -> None:
    session.write_inode(ino, patch_inode(session.read_inode(ino), i_dtime=following))


def process_orphans(session: Session) -> tuple[int, int]:
    """Delete or cut every inode of the list, each as one operation. Return (deleted, cut).

    Raises CorruptError if the list is damaged; then nothing was done.
    """
    for _ in orphan_chain(session):
        pass
    done = [inode.stat.links > 0 for inode in work_off_orphans(session)]
    return done.count(False), done.count(True)


def work_off_orphans(session: Session) -> Iterator[Inode]:
    """Delete or cut the inodes of the list, each as one operation, and yield each as it was.

    Raises CorruptError where the list, or an inode, is damaged; the list then begins there.
    """
    while session.last_orphan:
        ino = next(orphan_chain(session))
        inode = parse_inode(session.read_inode(ino), ino)
        if not session.inode_in_use(ino):
            raise CorruptError(f"orphan inode {ino}", "inode bitmap", "free", "in use")
        try:
            _finish(session, ino, inode)
        except JournalFullError:
            size = session.block_size
            cut_in_steps(session, ino, -(-inode.stat.size // size) if inode.stat.links else 0)
            _finish(session, ino, inode)
        yield inode


def _finish(session: Session, ino: int, inode: Inode) -> None:
    """Take the first inode out of the list, and do what it waits for."""
    with session.operation():
        session.last_orphan = inode.dtime
        _set_next(session, ino, 0)
        if inode.stat.links:
            cut_inode(session, ino)
        else:
            delete_inode(session, ino)


def cut_in_steps(session: Session, ino: int, keep: int) -> None:
    """Free what an inode has beyond its first ``keep`` blocks, in as many operations as the journal needs.

    The inode must be in the orphan list, and no operation may be running: after each step the rest is the list's work.
    Raises JournalFullError if not even one block fits.
    """
    end = _map_end(session, parse_inode(session.read_inode(ino), ino))
    while end > keep:
        target = keep
        while True:
            try:
                with session.operation():
                    cut_inode(session, ino, keep=target)
                break
            except JournalFullError:
                if target + 1 >= end:
                    raise
                session.sync()
                target = (target + end) // 2
        end = target


def delete_inode(session: Session, ino: int) -> None:
    """Free an inode with its blocks, its attribute block and its number. Its i_dtime becomes the present time."""
    inode = parse_inode(session.read_inode(ino), ino)
    if _has_map(session, inode):
        _map_editor(session, inode).truncate(0)
    if inode.stat.file_acl:
        release_block(session, inode.stat.file_acl, PointerBounds.of(session.fixed, f"inode {ino}"))
    gone = dict.fromkeys(("i_links_count", "i_size", "i_size_high", "i_blocks", "i_file_acl", "i_block"), 0)
    dtime = min(max(1, session.seconds), MASK32)
    session.write_inode(ino, patch_inode(session.read_inode(ino), **gone, i_dtime=dtime))
    session.free_inode(ino, is_dir=inode.stat.is_dir)


def cut_inode(session: Session, ino: int, *, keep: int | None = None) -> None:
    """Free the blocks a file has beyond its size, pointer blocks included, and zero the rest of its last block.

    With ``keep``: those beyond that many blocks, also of a directory or a symlink target; the last block stays as it is.
    """
    inode = parse_inode(session.read_inode(ino), ino)
    if (inode.stat.is_dir and keep is None) or not _has_map(session, inode):
        return
    size = session.block_size
    zero_rest = keep is None and inode.stat.size % size != 0
    keep = min(-(-inode.stat.size // size) if keep is None else keep, map_limit(size))
    mapping = _map_editor(session, inode)
    mapping.truncate(keep)
    session.write_inode(ino, patch_inode(session.read_inode(ino), i_block=mapping.i_block, i_blocks=mapping.sectors))
    block = mapping.block(keep - 1) if zero_rest else None
    if block is not None:
        # Through the journal: written in place, the data would be lost even if the cut is rolled back.
        session.write(block, session.read(block)[: inode.stat.size % size].ljust(size, b"\0"))


def _has_map(session: Session, inode: Inode) -> bool:
    check_map_flags(inode.stat.flags, f"inode {inode.stat.ino}")
    return has_block_map(inode, session.block_size)


def _map_end(session: Session, inode: Inode) -> int:
    """Return the logical block behind the last one an inode has, 0 for one that has no map."""
    if not _has_map(session, inode):
        return 0
    superblock = session.fixed
    return read_inode_map(session.device, superblock, inode, map_limit(superblock.block_size)).extents.end


def _map_editor(session: Session, inode: Inode) -> BlockMapEditor:
    superblock = session.fixed
    return BlockMapEditor(
        session,
        inode.i_block,
        first=superblock.first_data_block,
        end=superblock.blocks_count,
        where=f"inode {inode.stat.ino}",
        sectors=inode.stat.blocks,
        metadata=not inode.stat.is_file,  # directory and symlink blocks may be in the log
    )
