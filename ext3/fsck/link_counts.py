"""Pass 4: every inode in use has a name, and its link count is the number of its names.

In: ``census.names`` and ``links``. Reserved inodes but the root are passed over. Source: e2fsprogs ``e2fsck/pass4.c``.
"""

from __future__ import annotations

from ..constants import GOOD_INODE_SIZE, S_IFDIR, S_IFMT, S_IFREG, XATTR_MAGIC
from ..format.schema import INODE_CORE, INODE_EXTRA
from .bad_inodes import judge_bad_inode
from .context import Context
from .lost_and_found import LostAndFound, set_links
from .problem import Place
from .problems.structure import EMPTY_UNATTACHED, INODE_UNATTACHED, LINK_COUNT, LINKS_TOO_MANY
from .release import release_inode

__all__ = ["check_link_counts"]

LINKS_LIMIT = 65_000
"""Most links of an inode (EXT4_LINK_MAX)."""


def check_link_counts(context: Context) -> None:
    """Run pass 4."""
    census = context.census
    lost = LostAndFound(context)
    for ino in census.wrong_links(context.superblock.first_ino).tolist():
        if not census.names[ino] and not _attach(context, lost, ino):
            continue
        links, names = int(census.links[ino]), int(census.names[ino])
        if names > LINKS_LIMIT:
            context.leave(LINKS_TOO_MANY, Place(ino=ino), got=names, want=LINKS_LIMIT)
        elif names != links and context.fix(LINK_COUNT, Place(ino=ino), got=links, want=names):
            set_links(context, ino, names)


def _attach(context: Context, lost: LostAndFound, ino: int) -> bool:
    """Clear an inode without a name, or link it in lost+found. Return whether it has a name."""
    if judge_bad_inode(context, ino):
        return False
    if _is_empty(context, ino) and context.fix(EMPTY_UNATTACHED, Place(ino=ino)):
        release_inode(context, ino)
        return False
    return context.fix(INODE_UNATTACHED, Place(ino=ino)) and lost.link(ino)


def _is_empty(context: Context, ino: int) -> bool:
    """Return whether an inode is a file or directory without blocks and without attributes."""
    if int(context.census.mode[ino]) & S_IFMT not in (S_IFREG, S_IFDIR):
        return False
    raw = context.read_inode(ino)
    if INODE_CORE.view(raw)[0]["i_blocks"]:
        return False
    if len(raw) == GOOD_INODE_SIZE:
        return True
    at = GOOD_INODE_SIZE + int(INODE_EXTRA.view(raw, offset=GOOD_INODE_SIZE)[0]["i_extra_isize"])
    return int.from_bytes(raw[at : at + 4], "little") != XATTR_MAGIC
