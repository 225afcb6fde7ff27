"""Recursive removal of a file or directory, name by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import CorruptError, PathExistsError, PathNotFoundError
from . import namei
from .inode_cache import InodeCache

if TYPE_CHECKING:
    from .filesystem import WritableFilesystem

__all__ = ["remove_tree"]


def remove_tree(filesystem: WritableFilesystem, nodes: InodeCache, parent: int, name: bytes) -> None:
    """Remove a name and everything below it. Raise PathNotFoundError; CorruptError if directories form a loop, or have
    more blocks in total than the filesystem."""
    if name in (b".", b".."):
        raise PathExistsError(name, "refusing to remove '.' or '..'")
    ino = namei.find(nodes, parent, name)
    if ino is None:
        nodes.directory(nodes.load(parent)).distrust_index()
        ino = namei.find(nodes, parent, name)
    if ino is None:
        raise PathNotFoundError(name, "No such file or directory")
    if not nodes.load(ino).record.is_dir:
        filesystem.unlink_at(parent, name)
        return
    seen = {ino}
    left = [nodes.session.superblock.blocks_count]
    pending = [(parent, name, ino, _below(nodes, ino, left))]
    while pending:
        above, name, ino, entries = pending[-1]
        if not entries:
            _remove(nodes, filesystem.rmdir_at, above, name)
            pending.pop()
            continue
        entry, child = entries.pop()
        if not nodes.load(child).record.is_dir:
            _remove(nodes, filesystem.unlink_at, ino, entry)
            continue
        if child in seen:
            raise CorruptError(f"directory inode {child}", "entries that lead to it", "two or more", 1)
        seen.add(child)
        pending.append((ino, entry, child, _below(nodes, child, left)))


def _remove(nodes: InodeCache, remove: Callable[[int, bytes], None], parent: int, name: bytes) -> None:
    """Remove a name that a scan of its directory found, also if the index of the directory leads elsewhere."""
    try:
        remove(parent, name)
    except PathNotFoundError:
        nodes.directory(nodes.load(parent)).distrust_index()
        remove(parent, name)


def _below(nodes: InodeCache, ino: int, left: list[int]) -> list[tuple[bytes, int]]:
    """Return (name, inode) of a directory's entries in reverse order. ``left``: blocks that directories may still have."""
    directory = nodes.directory(nodes.load(ino))
    left[0] -= directory.size // nodes.block_size
    if left[0] < 0:
        raise CorruptError(f"directory inode {ino}", "blocks of directories", "more than there are", "each used once")
    found = [(entry.name, entry.ino) for entry in directory.entries() if entry.name not in namei.DOTS]
    return found[::-1]
