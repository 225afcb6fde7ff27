"""Names in directories: made, linked, taken away and moved, as the kernel does it. Called inside an operation.

A function takes the number of the directory and the name in it, and looks before it changes anything.
Source: Linux ``fs/ext4/namei.c``, ``fs/namei.c`` (vfs_rename, may_delete), ``fs/ext4/ialloc.c``.
"""

from __future__ import annotations

import errno

from ..constants import (
    FAST_SYMLINK_MAX,
    LINK_MAX,
    N_BLOCKS,
    ROOT_INO,
    S_IFCHR,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    FileType,
    InodeFlag,
)
from ..errors import (
    CHECK_HINT,
    CorruptError,
    PathError,
    PathExistsError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotEmptyError,
    PathNotFoundError,
)
from ..inode import file_type_of
from .directory import NameTooLongError, new_directory_block
from .nodes import IMMUTABLE, Node, Nodes, check_changeable
from .permissions import inherit
from .record import check_owner, device_words

__all__ = [
    "exchange",
    "find",
    "give_name",
    "link",
    "make_directory",
    "make_nameless",
    "make_node",
    "make_symlink",
    "rename",
    "rmdir",
    "unlink",
]

S_ISGID = 0o2000
ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_INHERITED = int(InodeFlag.NODUMP | InodeFlag.NOATIME | InodeFlag.SYNC)
_INHERITED_BY_DIRECTORIES = int(InodeFlag.NODUMP | InodeFlag.NOATIME | InodeFlag.SYNC | InodeFlag.DIRSYNC)
DOTS = (b".", b"..")


def _directory(nodes: Nodes, ino: int, name: bytes) -> Node:
    """A directory in which ``name`` is to be changed."""
    node = nodes.edit(ino)
    if not node.record.is_dir:
        raise PathNotDirectoryError(name, "a part of the path is not a directory")
    if not node.record.links:
        raise PathNotFoundError(name, "the directory was removed")
    return node


def check_name(name: bytes) -> None:
    """ValueError, NameTooLongError or PathExistsError for what cannot become a new name."""
    if name in DOTS:
        raise PathExistsError(name, "File exists")
    if len(name) > 255:
        raise NameTooLongError(name, "File name too long")
    if not name or b"/" in name or b"\0" in name:
        raise PathError(name, "not a name", code=errno.EINVAL if name else errno.ENOENT)


def find(nodes: Nodes, parent: int, name: bytes) -> int | None:
    """The inode of a name in a directory, None if it is not there."""
    entry = nodes.directory(nodes.load(parent)).find(name)
    return entry.ino if entry else None


# -- make ----------------------------------------------------------------------------------------------------------


def _new(nodes: Nodes, parent: Node, name: bytes, mode: int, uid: int, gid: int, now: int, umask: int = 0) -> Node:
    """A new inode for a name that is free."""
    check_name(name)
    check_changeable(parent, name, IMMUTABLE)
    if nodes.directory(parent).find(name):
        raise PathExistsError(name, "File exists")
    return _born(nodes, parent, mode, uid, gid, now, umask)


def _born(nodes: Nodes, parent: Node, mode: int, uid: int, gid: int, now: int, umask: int = 0) -> Node:
    """A new inode with what it has from its directory: group, flags, ACLs; the umask counts where there is no default ACL."""
    check_owner(uid, gid)
    is_dir = mode & S_IFMT == S_IFDIR
    above = parent.record
    if above.mode & S_ISGID:
        gid = above.gid
        mode |= S_ISGID if is_dir else 0
    node = nodes.new(parent, mode=mode, uid=uid, gid=gid, is_dir=is_dir, now=now)
    record = node.record
    record.flags = above.flags & (_INHERITED_BY_DIRECTORIES if is_dir else _INHERITED)
    default = nodes.attributes(parent).get(DEFAULT) if nodes.has_attributes(parent) else None
    if mode & S_IFMT == S_IFLNK or (default is None and not umask):
        return node
    try:
        record.mode, access, default = inherit(default, mode, directory=is_dir, umask=umask)
    except ValueError as error:
        raise CorruptError(f"inode {parent.ino}", "default ACL", error, "a valid one") from error
    if default is not None or access is not None:
        editor = nodes.attributes(node)
        for which, value in ((ACCESS, access), (DEFAULT, default)):
            if value is not None:
                editor.set(which, value)
        nodes.take_attributes(node, editor)
    return node


def _enter(nodes: Nodes, parent: Node, name: bytes, node: Node, now: int) -> None:
    nodes.directory(parent).insert(name, node.ino, file_type_of(node.record.mode))
    nodes.store_directory(parent, now)


def make_node(
    nodes: Nodes,
    parent: int,
    name: bytes,
    mode: int,
    *,
    uid: int,
    gid: int,
    device: tuple[int, int] = (0, 0),
    umask: int = 0,
) -> Node:
    """A file of the type in ``mode`` (not a directory or symlink) without content. PathExistsError."""
    now = nodes.session.nanoseconds
    above = _directory(nodes, parent, name)
    kind = file_type_of(mode)
    if kind in (FileType.UNKNOWN, FileType.DIRECTORY, FileType.SYMLINK):
        raise PathError(name, f"mode {mode:o} is of no type that can be made so")
    node = _new(nodes, above, name, mode & 0o177777, uid, gid, now, umask)
    node.record.links = 1
    if kind in (FileType.CHARACTER, FileType.BLOCK):
        try:
            node.record.i_block = (*device_words(*device), *(0,) * (N_BLOCKS - 2))
        except ValueError as error:
            raise PathError(name, str(error)) from error
    nodes.store(node)
    _enter(nodes, above, name, node, now)
    return node


def make_nameless(nodes: Nodes, parent: int, mode: int, *, uid: int, gid: int, umask: int = 0) -> Node:
    """A file without content that ``give_name`` is to put into directory ``parent``; a crash before that deletes it."""
    now = nodes.session.nanoseconds
    node = _born(nodes, _directory(nodes, parent, b"."), S_IFREG | mode & 0o7777, uid, gid, now, umask)
    nodes.nameless(node)
    return node


def give_name(nodes: Nodes, ino: int, parent: int, name: bytes) -> None:
    """The first name of a file that was made without one. PathExistsError."""
    now = nodes.session.nanoseconds
    above = _directory(nodes, parent, name)
    check_name(name)
    check_changeable(above, name, IMMUTABLE)
    if nodes.directory(above).find(name):
        raise PathExistsError(name, "File exists")
    node = nodes.named(ino)
    node.record.links = 1
    node.record.ctime = now
    nodes.store(node)
    _enter(nodes, above, name, node, now)


def make_directory(nodes: Nodes, parent: int, name: bytes, mode: int, *, uid: int, gid: int, umask: int = 0) -> Node:
    """An empty directory. PathExistsError, PathError (EMLINK)."""
    now = nodes.session.nanoseconds
    above = _directory(nodes, parent, name)
    check_name(name)
    if nodes.directory(above).find(name):
        raise PathExistsError(name, "File exists")
    if above.record.links >= LINK_MAX:
        raise PathError(name, f"Too many links: a directory holds at most {LINK_MAX - 2} others", code=errno.EMLINK)
    node = _new(nodes, above, name, S_IFDIR | mode & 0o7777, uid, gid, now, umask)
    block = new_directory_block(node.ino, parent, block_size=nodes.block_size, filetype=nodes.rules.filetype)
    nodes.map(node).append(0, [block], nodes.session.goal_of(node.ino))
    nodes.mapped(node)
    node.record.size = nodes.block_size
    node.record.links = 2
    nodes.store(node)
    above.record.links += 1
    _enter(nodes, above, name, node, now)
    return node


def make_symlink(nodes: Nodes, target: bytes, parent: int, name: bytes, *, uid: int, gid: int) -> Node:
    """A symbolic link. PathExistsError, PathError (ENOENT for an empty target, ENAMETOOLONG)."""
    now = nodes.session.nanoseconds
    above = _directory(nodes, parent, name)
    if not target or b"\0" in target:
        raise PathError(name, "a symbolic link needs a target", code=errno.EINVAL if target else errno.ENOENT)
    if len(target) >= nodes.block_size:
        raise NameTooLongError(name, f"a target has at most {nodes.block_size - 1} bytes")
    node = _new(nodes, above, name, S_IFLNK | 0o777, uid, gid, now)
    record = node.record
    record.size = len(target)
    record.links = 1
    if len(target) <= FAST_SYMLINK_MAX:
        text = target.ljust(4 * N_BLOCKS, b"\0")
        record.i_block = tuple(int.from_bytes(text[at : at + 4], "little") for at in range(0, 4 * N_BLOCKS, 4))
    else:
        nodes.map(node).append(0, [target.ljust(nodes.block_size, b"\0")], nodes.session.goal_of(node.ino))
        nodes.mapped(node)
    nodes.store(node)
    _enter(nodes, above, name, node, now)
    return node


def link(nodes: Nodes, ino: int, parent: int, name: bytes) -> None:
    """One more name for a file. PathExistsError, PathError (EPERM for a directory, EMLINK), PathNotFoundError."""
    now = nodes.session.nanoseconds
    above, node = _directory(nodes, parent, name), nodes.edit(ino)
    check_name(name)
    check_changeable(above, name, IMMUTABLE)
    check_changeable(node, name)
    if node.record.is_dir:
        raise PathError(name, "hard link not allowed for directory", code=errno.EPERM)
    if nodes.directory(above).find(name):
        raise PathExistsError(name, "File exists")
    if not node.record.links:
        raise PathNotFoundError(name, "the file was removed")
    if node.record.links >= LINK_MAX:
        raise PathError(name, f"Too many links: a file has at most {LINK_MAX} names", code=errno.EMLINK)
    node.record.links += 1
    node.record.ctime = now
    nodes.store(node)
    _enter(nodes, above, name, node, now)


# -- take away -----------------------------------------------------------------------------------------------------


def _victim(nodes: Nodes, above: Node, name: bytes) -> Node:
    """The inode behind a name that is to go."""
    entry = nodes.directory(above).find(name)
    if entry is None:
        raise PathNotFoundError(name, "No such file or directory")
    check_changeable(above, name)
    node = nodes.edit(entry.ino)
    check_changeable(node, name)
    if not node.record.links:
        error = CorruptError(f"inode {node.ino}", "i_links_count", 0, f"1 or more: it is in directory inode {above.ino}")
        error.hint = CHECK_HINT
        raise error
    return node


def unlink(nodes: Nodes, parent: int, name: bytes) -> None:
    """Remove a name that is no directory's. PathNotFoundError, PathIsDirectoryError."""
    now = nodes.session.nanoseconds
    above = _directory(nodes, parent, name)
    if name in DOTS:
        raise PathIsDirectoryError(name, "Is a directory")
    node = _victim(nodes, above, name)
    if node.record.is_dir:
        raise PathIsDirectoryError(name, "Is a directory")
    if node.record.mode & S_IFMT == S_IFLNK:
        nodes.parents.clear()
    nodes.directory(above).remove(name)
    nodes.store_directory(above, now)
    _lose_link(nodes, node, now)


def rmdir(nodes: Nodes, parent: int, name: bytes) -> None:
    """Remove an empty directory. PathNotFoundError, PathNotDirectoryError, PathNotEmptyError."""
    now = nodes.session.nanoseconds
    above = _directory(nodes, parent, name)
    if name == b".":
        if parent == ROOT_INO:
            raise PathError(name, "Device or resource busy: the root directory", code=errno.EBUSY)
        raise PathError(name, "Invalid argument")
    if name == b"..":
        raise PathNotEmptyError(name, "Directory not empty")
    node = _victim(nodes, above, name)
    _check_removable(nodes, node, name)
    nodes.directory(above).remove(name)
    above.record.links = max(2, above.record.links - 1)
    nodes.store_directory(above, now)
    _lose_directory(nodes, node, now)


def _check_removable(nodes: Nodes, node: Node, name: bytes) -> None:
    if not node.record.is_dir:
        raise PathNotDirectoryError(name, "Not a directory")
    if node.ino == ROOT_INO:
        raise PathError(name, "Device or resource busy: the root directory", code=errno.EBUSY)
    if not nodes.directory(node).is_empty():
        raise PathNotEmptyError(name, "Directory not empty")


def _lose_link(nodes: Nodes, node: Node, now: int) -> None:
    node.record.links -= 1
    node.record.ctime = now
    if node.record.links:
        nodes.store(node)
    else:
        nodes.unlinked(node)


def _lose_directory(nodes: Nodes, node: Node, now: int) -> None:
    node.record.links = 0
    node.record.ctime = now
    nodes.parents.clear()
    nodes.unlinked(node)


# -- move ----------------------------------------------------------------------------------------------------------


def _is_below(nodes: Nodes, ino: int, top: int) -> bool:
    """Whether directory ``ino`` is ``top`` or lies below it. CorruptError where the way up has no end."""
    seen: set[int] = set()
    while ino != top:
        if ino == ROOT_INO:
            return False
        if ino in seen:
            raise CorruptError(f"directory inode {ino}", "..", "a loop", "a way to the root")
        seen.add(ino)
        ino = _above(nodes, ino)
    return True


def _above(nodes: Nodes, ino: int) -> int:
    """The directory above a directory. CorruptError where ".." says one that has no name for it."""
    parent = nodes.directory(nodes.load(ino)).parent()
    above = nodes.load(parent)
    if not above.record.is_dir or not nodes.directory(above).has(ino):
        raise CorruptError(f"directory inode {ino}", "..", parent, "a directory that has a name for it")
    return parent


def _check_move(nodes: Nodes, moved: Node, source: Node, into: Node, name: bytes) -> None:
    """A directory does not go below itself, and comes from where its ".." says, for that one loses the link."""
    if not moved.record.is_dir:
        return
    if moved.ino == ROOT_INO or _is_below(nodes, into.ino, moved.ino):
        raise PathError(name, "cannot move a directory to a subdirectory of itself")
    parent = nodes.directory(moved).parent()
    if parent != source.ino:
        raise CorruptError(f"directory inode {moved.ino}", "..", parent, source.ino)


def _check_names(*names: bytes) -> None:
    for name in names:
        if name in DOTS:
            raise PathError(name, "Device or resource busy", code=errno.EBUSY)
        check_name(name)


def _room_below(above: Node, name: bytes) -> None:
    if above.record.links >= LINK_MAX:
        raise PathError(name, f"Too many links: a directory holds at most {LINK_MAX - 2} others", code=errno.EMLINK)


def rename(
    nodes: Nodes, old: tuple[int, bytes], new: tuple[int, bytes], *, replace: bool = True, whiteout: bool = False
) -> None:
    """Move a name. What the new name led to is gone then, or it is an error unless ``replace``.

    ``whiteout`` leaves a character device 0, 0 in the old place, as overlayfs wants it.
    """
    now = nodes.session.nanoseconds
    (old_parent, old_name), (new_parent, new_name) = old, new
    source, goal = _directory(nodes, old_parent, old_name), _directory(nodes, new_parent, new_name)
    if new_name in DOTS and not replace:
        raise PathExistsError(new_name, "File exists")
    _check_names(old_name, new_name)
    node = _victim(nodes, source, old_name)
    entry = nodes.directory(goal).find(new_name)
    if entry is not None and not replace:
        raise PathExistsError(new_name, "File exists")
    if entry is not None and entry.ino == node.ino:
        return
    if source is not goal or node.ino == goal.ino:
        _check_move(nodes, node, source, goal, new_name)
    target = _victim(nodes, goal, new_name) if entry is not None else None
    if target is not None:
        _check_replaced(nodes, node, target, old_parent, new_name)
    elif node.record.is_dir and source is not goal:
        _room_below(goal, new_name)
    check_changeable(goal, new_name, IMMUTABLE)
    kind = file_type_of(node.record.mode)
    if target is None:
        nodes.directory(goal).insert(new_name, node.ino, kind)
    else:
        nodes.directory(goal).replace(new_name, node.ino, kind)
    if whiteout:
        mark = _born(nodes, source, S_IFCHR, 0, 0, now)
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
            _lose_directory(nodes, target, now)
        else:
            _lose_link(nodes, target, now)


def _check_replaced(nodes: Nodes, node: Node, target: Node, source: int, name: bytes) -> None:
    """What is moved out of directory ``source`` may take the place of ``target``."""
    if node.record.is_dir:
        if not target.record.is_dir:
            raise PathNotDirectoryError(name, "Not a directory")
        _check_removable(nodes, target, name)
    elif target.record.is_dir:
        if _is_below(nodes, source, target.ino):
            raise PathNotEmptyError(name, "Directory not empty")
        raise PathIsDirectoryError(name, "Is a directory")


def _set_parent(nodes: Nodes, node: Node, parent: int) -> None:
    """Let ".." of a moved directory lead to its new place; its own times stay."""
    nodes.directory(node).set_parent(parent)
    nodes.mapped(node)


def exchange(nodes: Nodes, old: tuple[int, bytes], new: tuple[int, bytes]) -> None:
    """Let two names change places. Both are there."""
    now = nodes.session.nanoseconds
    (old_parent, old_name), (new_parent, new_name) = old, new
    source, goal = _directory(nodes, old_parent, old_name), _directory(nodes, new_parent, new_name)
    _check_names(old_name, new_name)
    one, two = _victim(nodes, source, old_name), _victim(nodes, goal, new_name)
    if one.ino == two.ino:
        return
    if source is not goal or goal.ino in (one.ino, two.ino):
        _check_move(nodes, one, source, goal, new_name)
        _check_move(nodes, two, goal, source, old_name)
    if source is not goal and one.record.is_dir != two.record.is_dir:
        gaining, losing = (goal, source) if one.record.is_dir else (source, goal)
        _room_below(gaining, new_name)
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
