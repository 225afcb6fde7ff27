"""Rename and exchange of directory entries, with the checks that prevent loops. Called inside an operation.

Source: Linux ``fs/ext4/namei.c`` (ext4_rename, ext4_cross_rename), ``fs/namei.c`` (vfs_rename).
"""

from __future__ import annotations

import errno

from ..constants import LINK_MAX, ROOT_INO, S_IFCHR, FileType
from ..errors import (
    NeedsCheckError,
    PathError,
    PathExistsError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotEmptyError,
)
from ..format.inode import file_type_of
from .inode_cache import IMMUTABLE, InodeCache, Node, check_changeable
from .namei import DOTS, check_name, check_removable, directory, drop_directory, drop_link, find_removable, new_child

__all__ = ["exchange", "rename"]


def _is_below(nodes: InodeCache, ino: int, top: int) -> bool:
    """Return True if directory ``ino`` is ``top`` or below it. Raise NeedsCheckError if its parents form a loop."""
    seen: set[int] = set()
    while ino != top:
        if ino == ROOT_INO:
            return False
        if ino in seen:
            raise NeedsCheckError(f'is damaged: ".." of directory inode {ino} leads to a loop')
        seen.add(ino)
        ino = _parent_of(nodes, ino)
    return True


def _parent_of(nodes: InodeCache, ino: int) -> int:
    """Return the parent of a directory. Raise NeedsCheckError if the directory ".." has no entry for it."""
    parent = nodes.directory(nodes.load(ino)).parent()
    above = nodes.load(parent)
    if not above.record.is_dir or not nodes.directory(above).has(ino):
        raise NeedsCheckError(f'is damaged: ".." of directory inode {ino} is {parent}, which has no name for it')
    return parent


def _check_move(nodes: InodeCache, moved: Node, into: Node, name: bytes) -> None:
    """Raise PathError if a directory would move below itself, NeedsCheckError if ".." does not show whether it would."""
    if moved.record.is_dir and (moved.ino == ROOT_INO or _is_below(nodes, into.ino, moved.ino)):
        raise PathError(name, "cannot move a directory to a subdirectory of itself")


def _check_names(*names: bytes) -> None:
    for name in names:
        if name in DOTS:
            raise PathError(name, "Device or resource busy", code=errno.EBUSY)
        check_name(name)


def _check_link_count(above: Node, name: bytes) -> None:
    if above.record.links >= LINK_MAX:
        raise PathError(name, f"Too many links: a directory holds at most {LINK_MAX - 2} others", code=errno.EMLINK)


def rename(
    nodes: InodeCache, old: tuple[int, bytes], new: tuple[int, bytes], *, replace: bool = True, whiteout: bool = False
) -> None:
    """Rename an entry, replacing an existing one. ``replace`` False: raise PathExistsError instead.

    ``whiteout`` leaves a character device 0, 0 at the old name, as overlayfs needs it.
    """
    now = nodes.session.nanoseconds
    (old_parent, old_name), (new_parent, new_name) = old, new
    source, goal = directory(nodes, old_parent, old_name), directory(nodes, new_parent, new_name)
    if new_name in DOTS and not replace:
        raise PathExistsError(new_name, "File exists")
    _check_names(old_name, new_name)
    node = find_removable(nodes, source, old_name)
    entry = nodes.directory(goal).find(new_name)
    if entry is not None and not replace:
        raise PathExistsError(new_name, "File exists")
    if entry is not None and entry.ino == node.ino:
        return
    if source is not goal or node.ino == goal.ino:
        _check_move(nodes, node, goal, new_name)
    target = find_removable(nodes, goal, new_name) if entry is not None else None
    if target is not None:
        _check_replaced(nodes, node, target, old_parent, new_name)
    elif node.record.is_dir and source is not goal:
        _check_link_count(goal, new_name)
    check_changeable(goal, new_name, IMMUTABLE)
    kind = file_type_of(node.record.mode)
    if target is None:
        nodes.directory(goal).insert(new_name, node.ino, kind)
    else:
        nodes.directory(goal).replace(new_name, node.ino, kind)
    if whiteout:
        mark = new_child(nodes, source, S_IFCHR, 0, 0, now)
        mark.record.links = 1
        nodes.store(mark)
        nodes.directory(source).replace(old_name, mark.ino, FileType.CHARACTER)
    else:
        nodes.directory(source).remove(old_name)
    if node.record.is_dir:
        source.record.links = max(2, source.record.links - 1)
        goal.record.links += 1
        if target is not None:
            goal.record.links = max(2, goal.record.links - 1)
        if source is not goal:
            _set_parent(nodes, node, new_parent)
    node.record.ctime = now
    nodes.store(node)
    nodes.store_directory(source, now)
    if goal is not source:
        nodes.store_directory(goal, now)
    nodes.parents.clear()
    if target is not None:
        if target.record.is_dir:
            drop_directory(nodes, target, now)
        else:
            drop_link(nodes, target, now)


def _check_replaced(nodes: InodeCache, node: Node, target: Node, source: int, name: bytes) -> None:
    """Raise PathError unless ``node``, moved from directory ``source``, may replace ``target``."""
    if node.record.is_dir:
        if not target.record.is_dir:
            raise PathNotDirectoryError(name, "Not a directory")
        check_removable(nodes, target, name)
    elif target.record.is_dir:
        if _is_below(nodes, source, target.ino):
            raise PathNotEmptyError(name, "Directory not empty")
        raise PathIsDirectoryError(name, "Is a directory")


def _set_parent(nodes: InodeCache, node: Node, parent: int) -> None:
    """Set ".." of a moved directory; its own times stay."""
    nodes.directory(node).set_parent(parent)
    nodes.update_map(node)


def exchange(nodes: InodeCache, old: tuple[int, bytes], new: tuple[int, bytes]) -> None:
    """Swap two existing entries."""
    now = nodes.session.nanoseconds
    (old_parent, old_name), (new_parent, new_name) = old, new
    source, goal = directory(nodes, old_parent, old_name), directory(nodes, new_parent, new_name)
    _check_names(old_name, new_name)
    one, two = find_removable(nodes, source, old_name), find_removable(nodes, goal, new_name)
    if one.ino == two.ino:
        return
    if source is not goal or goal.ino in (one.ino, two.ino):
        _check_move(nodes, one, goal, new_name)
        _check_move(nodes, two, source, old_name)
    if source is not goal and one.record.is_dir != two.record.is_dir:
        gaining, losing = (goal, source) if one.record.is_dir else (source, goal)
        _check_link_count(gaining, new_name)
        gaining.record.links += 1
        losing.record.links = max(2, losing.record.links - 1)
    nodes.directory(goal).replace(new_name, one.ino, file_type_of(one.record.mode))
    nodes.directory(source).replace(old_name, two.ino, file_type_of(two.record.mode))
    if source is not goal:
        for node, parent in ((one, new_parent), (two, old_parent)):
            if node.record.is_dir:
                _set_parent(nodes, node, parent)
    for node in (one, two):
        node.record.ctime = now
        nodes.store(node)
    nodes.store_directory(source, now)
    if goal is not source:
        nodes.store_directory(goal, now)
    nodes.parents.clear()
