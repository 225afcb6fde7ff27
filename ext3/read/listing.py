"""Listings of directories and their files one by one, in plain Python: what a look into a few small directories needs.

Many at once: see ``tree_scan``, which takes half of the time for each name, but loads numpy first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

from ..constants import XATTR_MAGIC, FileType
from ..errors import CorruptError
from ..format.dirent import Entry
from ..format.inode import Inode, Stat

if TYPE_CHECKING:
    from .filesystem import Filesystem

__all__ = ["BlockOwners", "Listing", "Loaded", "Row", "are_small", "list_directory", "load_one"]

SMALL_BYTES = 48 << 10
"""Bytes of directories up to which numpy takes longer to load than their names to list: some 1,500."""

_MAGIC = XATTR_MAGIC.to_bytes(4, "little")


class Row(NamedTuple):
    """Directory entry. ``stat``: of its inode, the error of reading that, or None if it was not asked for."""

    name: bytes
    node: int
    file_type: FileType
    stat: Stat | OSError | None
    may_have_xattrs: bool


class Listing(NamedTuple):
    """Rows of the directory inode ``node`` in byte order. ``problem``: the error that cut them short."""

    node: int
    rows: list[Row]
    problem: OSError | None
    directory_bytes: int


class Loaded(NamedTuple):
    """File number ``position`` of those asked for, inode ``node``.

    ``content``: of a small contiguous regular file, valid until the next one is loaded; None for others.
    """

    position: int
    node: int
    stat: Stat | OSError
    xattrs: Mapping[bytes, bytes] | OSError
    content: memoryview | OSError | None


class BlockOwners:
    """Owners of directory blocks seen so far. A block of two directories is damage, and could list a million names again and
    again."""

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}

    def claim(self, ino: int, blocks: Sequence[int]) -> None:
        """Record the blocks of a directory. Raise CorruptError if one has another owner, or is in the list twice."""
        if len(set(blocks)) != len(blocks):
            twice = next(one for one, following in pairwise(sorted(blocks)) if one == following)
            raise CorruptError(f"directory inode {ino}", "block", twice, "one that it has once")
        owners = self._owners
        for block in blocks:
            if owners.setdefault(block, ino) != ino:
                raise CorruptError(f"directory inode {ino}", "block", block, "one that no directory has already")


def are_small(filesystem: Filesystem, inos: Sequence[int]) -> bool:
    """Return whether directories have so few names that numpy would take longer to load than these to list."""
    left = SMALL_BYTES
    for ino in inos:
        with suppress(OSError):  # of a damaged one there is only the error to tell
            left -= filesystem.inode(ino).stat.size
        if left < 0:
            return False
    return True


def list_directory(filesystem: Filesystem, ino: int, owners: BlockOwners | None, *, stats: bool) -> Listing:
    """Return the listing of a directory, with the Stats of its entries unless not wanted.

    ``owners``: of directory blocks, None while they may change.
    """
    entries: list[Entry] = []
    problem = None
    blocks = 0
    try:
        found = filesystem.scandir(ino)
        runs = filesystem.data_extents(ino)
        if owners is not None:
            owners.claim(ino, [*chain.from_iterable(range(start, start + count) for _, start, count in runs)])
        entries.extend(found)
        blocks = sum(count for _, _, count in runs)
    except OSError as error:
        problem = error
    entries.sort()
    facts: dict[int, tuple[Stat | OSError | None, bool]] = {}
    for child in sorted({entry.ino for entry in entries}):
        facts[child] = _facts(filesystem, child) if stats else (None, True)
    rows = [Row(*entry, *facts[entry.ino]) for entry in entries]
    return Listing(ino, rows, problem, blocks * filesystem.superblock.block_size)


def load_one(filesystem: Filesystem, ino: int) -> Loaded:
    """Return a file with its attributes. Its content is to be opened."""
    stat, attributed = _facts(filesystem, ino)
    xattrs: Mapping[bytes, bytes] | OSError = {}
    if attributed:
        try:
            xattrs = filesystem.xattrs(ino)
        except OSError as error:
            xattrs = error
    return Loaded(0, ino, stat, xattrs, None)


def _facts(filesystem: Filesystem, ino: int) -> tuple[Stat | OSError, bool]:
    """Return the Stat of an inode, or the error; and whether it may have extended attributes."""
    try:
        inode = filesystem.inode(ino)
    except OSError as error:
        return error, False
    return inode.stat, _has_attributes(inode)


def _has_attributes(inode: Inode) -> bool:
    return bool(inode.stat.file_acl) or inode.area.startswith(_MAGIC)
