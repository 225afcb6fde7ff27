"""Recursive removal of a file or directory, name by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NeedsCheckError, PathExistsError, PathNotFoundError
from ..read.listing import BlockOwners
from . import namei
from .inode_cache import InodeCache

if TYPE_CHECKING:
    from .inode_filesystem import InodeFilesystem

__all__ = ["remove_tree"]

BITMAP_BITS = 1 << 15
"""Inode numbers in one bitmap of those that have a name."""


def remove_tree(filesystem: InodeFilesystem, nodes: InodeCache, parent: int, name: bytes) -> None:
    """Remove a name and everything below it. Raise PathNotFoundError.

    NeedsCheckError, with nothing changed, for directories that belong elsewhere or form a loop, and for files with fewer links
    than names; CorruptError for damaged directories and inodes.
    """
    if name in (b".", b".."):
        raise PathExistsError(name, "refusing to remove '.' or '..'")
    ino = namei.find(nodes, parent, name)
    if ino is None:
        raise PathNotFoundError(name, "No such file or directory")
    if not nodes.load(ino).record.is_dir:
        filesystem.unlink_at(parent, name)
        return
    _check_tree(filesystem, nodes, parent, ino)
    pending = [(parent, name, ino, _below(nodes, ino))]
    while pending:
        above, name, ino, entries = pending[-1]
        if not entries:
            filesystem.rmdir_at(above, name)
            pending.pop()
            continue
        entry, child = entries.pop()
        if nodes.load(child).record.is_dir:
            pending.append((ino, entry, child, _below(nodes, child)))
        else:
            filesystem.unlink_at(ino, entry)


def _check_tree(filesystem: InodeFilesystem, nodes: InodeCache, parent: int, top: int) -> None:
    """Check everything below directory ``top`` of ``parent`` before the first of it is removed."""
    from ..read.tree_scan import scan_many

    owners = BlockOwners()
    above = {top: parent}
    names = _NameCounts()
    level = [top]
    while level:
        below: list[int] = []
        for ino in level:
            namei.check_directory_of(nodes, nodes.load(ino), above[ino])
        for listing in scan_many(filesystem, level, owners, stats=True):
            if listing.problem is not None:
                raise listing.problem
            for row in listing.rows:
                if isinstance(row.stat, OSError):
                    raise row.stat
                assert row.stat is not None
                nodes.check_in_use(row.node)
                if not row.stat.is_dir:
                    if names.add(row.node) > row.stat.links:
                        raise NeedsCheckError(f"is damaged: inode {row.node} has more names than links ({row.stat.links})")
                    continue
                if row.node in above:
                    raise NeedsCheckError(f"is damaged: directory inode {row.node} has two names")
                above[row.node] = listing.node
                below.append(row.node)
        level = below


class _NameCounts:
    """Number of names of each inode: a bit for the first one, as most have no other."""

    def __init__(self) -> None:
        self._seen: dict[int, bytearray] = {}
        self._several: dict[int, int] = {}

    def add(self, ino: int) -> int:
        """Count one more name of the inode; return how many it has."""
        part, index = divmod(ino, BITMAP_BITS)
        bits = self._seen.get(part)
        if bits is None:
            bits = self._seen[part] = bytearray(BITMAP_BITS // 8)
        at, bit = index >> 3, 1 << (index & 7)
        if not bits[at] & bit:
            bits[at] |= bit
            return 1
        count = self._several[ino] = self._several.get(ino, 1) + 1
        return count


def _below(nodes: InodeCache, ino: int) -> list[tuple[bytes, int]]:
    """Return (name, inode) of a directory's entries in reverse order."""
    found = [(entry.name, entry.ino) for entry in nodes.directory(nodes.load(ino)).entries() if entry.name not in namei.DOTS]
    return found[::-1]
