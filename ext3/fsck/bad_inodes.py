"""Inodes that pass 1 marked as bad, judged when a name of theirs is known, or when it is known that they have none.

What is no file (an unknown mode, an invalid device, FIFO, socket or symlink) is released; of other inodes the fields that have
to be zero are cleared. Source: e2fsprogs ``e2fsck/pass2.c`` (e2fsck_process_bad_inode), ``e2fsck/pass1.c``
(e2fsck_pass1_check_device_inode, e2fsck_pass1_check_symlink).
"""

from __future__ import annotations

import numpy as np

from ..constants import (
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    Compat,
    InodeFlag,
)
from ..format.schema import INODE_CORE
from .context import Context
from .inode_forms import symlink_sound
from .problem import Place, Problem
from .problems import directories as problems
from .record import Record
from .release import release_inode

__all__ = ["judge_bad_inode"]

OS_LINUX = 0
OS_HURD = 1
DEVICE_WORDS = 4
"""Words of i_block that a special file may use."""
SPECIAL = {
    S_IFCHR: problems.BAD_DEVICE,
    S_IFBLK: problems.BAD_DEVICE,
    S_IFIFO: problems.BAD_FIFO,
    S_IFSOCK: problems.BAD_SOCKET,
}


def judge_bad_inode(context: Context, ino: int, *, directory: int = 0, name: bytes = b"") -> bool:
    """Judge an inode if pass 1 marked it as bad. Return whether it was released, so that its entry has to go.

    ``directory``, ``name``: an entry that leads to it, if there is one.
    """
    if ino not in context.bad_inodes:
        return False
    raw = bytearray(context.read_inode(ino))
    place = Place(ino=ino, name=name or None, parent=directory or None)
    row = INODE_CORE.view(raw)[0]
    problem = _no_file(row, symlink_sound(context, Record(ino, bytes(raw))))
    left = 0
    if problem is not None:
        if context.fix(problem, place, got=f"{int(row['i_mode']):o}"):
            release_inode(context, ino)
            context.bad_inodes.discard(ino)
            return True
        left += 1
    changed = False
    for problem, fields in _odd_fields(context, row):
        if context.fix(problem, place, got=next(int(row[field]) for field in fields if row[field])):
            for field in fields:
                row[field] = 0
            changed = True
        else:
            left += 1
    if changed:
        context.write_inode(ino, bytes(raw))
    if not left:
        context.bad_inodes.discard(ino)
    return False


def _no_file(row: np.void, target_sound: bool) -> Problem | None:
    """Return why an inode is no file, None if it is one."""
    form = int(row["i_mode"]) & S_IFMT
    if form in (S_IFREG, S_IFDIR):
        return None
    if form == S_IFLNK:
        return None if target_sound else problems.BAD_SYMLINK
    if form not in SPECIAL:
        return problems.BAD_MODE
    return None if _special_sound(row) else SPECIAL[form]


def _special_sound(row: np.void) -> bool:
    flags = int(row["i_flags"])
    if flags & (InodeFlag.INDEX | InodeFlag.EXTENTS):
        return False
    return not (flags & (InodeFlag.IMMUTABLE | InodeFlag.APPEND) and row["i_block"][DEVICE_WORDS:].any())


def _odd_fields(context: Context, row: np.void) -> list[tuple[Problem, tuple[str, ...]]]:
    """Return the fields of an inode that have to be zero and are not, with the problem of each."""
    superblock = context.superblock
    linux = superblock.creator_os != OS_HURD
    acl = int(row["i_file_acl"])
    found: list[tuple[Problem, tuple[str, ...]]] = []
    if acl and not superblock.compat & Compat.EXT_ATTR:
        found.append((problems.BAD_ACL_FEATURE, ("i_file_acl",)))
    elif acl and not superblock.first_data_block <= acl < superblock.blocks_count:
        found.append((problems.BAD_ACL_BLOCK, ("i_file_acl",)))
    if row["i_faddr"]:
        found.append((problems.BAD_FRAGMENT_ADDRESS, ("i_faddr",)))
    if not linux and row["i_blocks_high"]:
        found.append((problems.BAD_FRAGMENT, ("i_blocks_high",)))
    if superblock.creator_os == OS_LINUX and row["i_blocks_high"]:
        found.append((problems.BAD_BLOCKS_HIGH, ("i_blocks_high",)))
    if linux and row["i_file_acl_high"]:
        found.append((problems.BAD_ACL_HIGH, ("i_file_acl_high",)))
    if row["i_size_high"] and row["i_blocks"] and int(row["i_mode"]) & S_IFMT == S_IFDIR:
        found.append((problems.BAD_SIZE_HIGH, ("i_size_high",)))
    return found
