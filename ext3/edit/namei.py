"""Directory operations: create, link, unlink and rmdir, as the kernel does them. Called inside an operation.

Functions take the inode of the directory and a name in it, and check everything before the first change.
Source: Linux ``fs/ext4/namei.c``, ``fs/namei.c`` (may_delete), ``fs/ext4/ialloc.c``.
"""

from __future__ import annotations

import errno

from ..constants import (
    FAST_SYMLINK_MAX,
    LINK_MAX,
    N_BLOCKS,
    ROOT_INO,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    FileType,
    InodeFlag,
)
from ..errors import (
    CorruptError,
    NeedsCheckError,
    PathError,
    PathExistsError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotEmptyError,
    PathNotFoundError,
)
from ..format.dirent_block import new_directory_block
from ..format.inode import file_type_of
from ..format.inode_fields import check_owner, encode_device
from .directory import NameTooLongError
from .inode_cache import IMMUTABLE, InodeCache, Node, check_changeable
from .permissions import inherit

__all__ = [
    "ACCESS",
    "DEFAULT",
    "DOTS",
    "new_child",
    "check_directory_of",
    "check_name",
    "check_removable",
    "directory",
    "find",
    "give_name",
    "link",
    "drop_directory",
    "drop_link",
    "make_directory",
    "make_nameless",
    "make_node",
    "rmdir",
    "unlink",
    "find_removable",
]

S_ISGID = 0o2000
ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_NO_BLOCKS = (0,) * N_BLOCKS
_INHERITED = int(InodeFlag.NODUMP | InodeFlag.NOATIME | InodeFlag.SYNC)
_INHERITED_BY_DIRECTORIES = int(InodeFlag.NODUMP | InodeFlag.NOATIME | InodeFlag.SYNC | InodeFlag.DIRSYNC)
DOTS = (b".", b"..")


def directory(nodes: InodeCache, ino: int, name: bytes) -> Node:
    """Return a directory in which ``name`` is to be changed."""
    node = nodes.edit(ino)
    if not node.record.is_dir:
        raise PathNotDirectoryError(name, "Not a directory")
    if not node.record.links:
        raise PathNotFoundError(name, "the directory was removed")
    return node


def check_name(name: bytes) -> None:
    """Raise ValueError, NameTooLongError or PathExistsError if the name cannot be created."""
    if name in DOTS:
        raise PathExistsError(name, "File exists")
    if len(name) > 255:
        raise NameTooLongError(name, "File name too long")
    if not name or b"/" in name or b"\0" in name:
        raise PathError(name, "not a name", code=errno.EINVAL if name else errno.ENOENT)


def find(nodes: InodeCache, parent: int, name: bytes) -> int | None:
    """Return the inode of a name in a directory, None if there is none."""
    entry = nodes.directory(nodes.load(parent)).find(name)
    return entry.ino if entry else None


# -- create --------------------------------------------------------------------------------------------------------


def _new(nodes: InodeCache, parent: Node, name: bytes, mode: int, uid: int, gid: int, now: int, umask: int = 0) -> Node:
    """Allocate an inode for a name that does not exist yet."""
    check_name(name)
    check_changeable(parent, name, IMMUTABLE)
    if nodes.directory(parent).find(name):
        raise PathExistsError(name, "File exists")
    return new_child(nodes, parent, mode, uid, gid, now, umask)


def new_child(nodes: InodeCache, parent: Node, mode: int, uid: int, gid: int, now: int, umask: int = 0) -> Node:
    """Allocate an inode that inherits group, flags and ACLs of its directory. ``umask`` applies without a default ACL."""
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
        nodes.update_attributes(node, editor)
    return node


def _add_entry(nodes: InodeCache, parent: Node, name: bytes, node: Node, now: int) -> None:
    nodes.directory(parent).insert(name, node.ino, file_type_of(node.record.mode))
    nodes.store_directory(parent, now)


def _block_words(nodes: InodeCache, name: bytes, mode: int, device: tuple[int, int], target: bytes | None) -> tuple[int, ...]:
    """Return the i_block of a new file that is not a directory. Raise PathError if there can be no such file."""
    kind = file_type_of(mode)
    if kind in (FileType.UNKNOWN, FileType.DIRECTORY) or (kind is FileType.SYMLINK) != (target is not None):
        raise PathError(name, f"mode {mode:o} is of no type that can be made so")
    if kind in (FileType.CHARACTER, FileType.BLOCK):
        try:
            return (*encode_device(*device), *_NO_BLOCKS[2:])
        except ValueError as error:
            raise PathError(name, str(error)) from error
    if target is None:
        return _NO_BLOCKS
    if not target or b"\0" in target:
        raise PathError(name, "a symbolic link needs a target", code=errno.EINVAL if target else errno.ENOENT)
    if len(target) >= nodes.block_size:
        raise NameTooLongError(name, f"a target has at most {nodes.block_size - 1} bytes")
    if len(target) > FAST_SYMLINK_MAX:
        return _NO_BLOCKS
    text = target.ljust(4 * N_BLOCKS, b"\0")
    return tuple(int.from_bytes(text[at : at + 4], "little") for at in range(0, 4 * N_BLOCKS, 4))


def _fill(nodes: InodeCache, node: Node, words: tuple[int, ...], target: bytes | None) -> None:
    """Set what ``_block_words`` returned, and the target of a symbolic link."""
    node.record.i_block = words
    if target is None:
        return
    node.record.size = len(target)
    if len(target) > FAST_SYMLINK_MAX:
        nodes.map(node).append(0, [target.ljust(nodes.block_size, b"\0")], nodes.session.goal_of(node.ino))
        nodes.update_map(node)


def make_node(
    nodes: InodeCache,
    parent: int,
    name: bytes,
    mode: int,
    *,
    uid: int,
    gid: int,
    device: tuple[int, int] = (0, 0),
    target: bytes | None = None,
    umask: int = 0,
) -> Node:
    """Create a file of the type in ``mode``, which is no directory. ``target``: of a symbolic link, and only of one.

    Raise PathExistsError, PathError (ENOENT for an empty target, ENAMETOOLONG).
    """
    now = nodes.session.nanoseconds
    above = directory(nodes, parent, name)
    words = _block_words(nodes, name, mode, device, target)
    node = _new(nodes, above, name, mode & 0o177777, uid, gid, now, umask)
    _fill(nodes, node, words, target)
    node.record.links = 1
    nodes.store(node)
    _add_entry(nodes, above, name, node, now)
    return node


def make_nameless(
    nodes: InodeCache,
    parent: int,
    mode: int,
    *,
    uid: int,
    gid: int,
    device: tuple[int, int] = (0, 0),
    target: bytes | None = None,
    umask: int = 0,
) -> Node:
    """Create a file as ``make_node`` does, for directory ``parent``, as an orphan: ``give_name`` names it.

    Recovery after a crash before that deletes it.
    """
    now = nodes.session.nanoseconds
    above = directory(nodes, parent, b".")
    check_changeable(above, f"inode {parent}", IMMUTABLE)
    words = _block_words(nodes, b".", mode, device, target)
    node = new_child(nodes, above, mode & 0o177777, uid, gid, now, umask)
    _fill(nodes, node, words, target)
    nodes.make_orphan(node)
    return node


def give_name(nodes: InodeCache, ino: int, parent: int, name: bytes) -> None:
    """Add the first name of a nameless file. Raise PathExistsError, PathError (EINVAL) if it is not nameless."""
    now = nodes.session.nanoseconds
    above = directory(nodes, parent, name)
    check_name(name)
    check_changeable(above, name, IMMUTABLE)
    if nodes.directory(above).find(name):
        raise PathExistsError(name, "File exists")
    record = nodes.load(ino).record
    if record.links or record.is_dir:
        raise PathError(name, f"inode {ino} is no file without a name")
    node = nodes.unmake_orphan(ino)
    node.record.links = 1
    node.record.ctime = now
    nodes.store(node)
    _add_entry(nodes, above, name, node, now)


def make_directory(nodes: InodeCache, parent: int, name: bytes, mode: int, *, uid: int, gid: int, umask: int = 0) -> Node:
    """Create an empty directory. Raise PathExistsError, PathError (EMLINK)."""
    now = nodes.session.nanoseconds
    above = directory(nodes, parent, name)
    check_name(name)
    if nodes.directory(above).find(name):
        raise PathExistsError(name, "File exists")
    if above.record.links >= LINK_MAX:
        raise PathError(name, f"Too many links: a directory holds at most {LINK_MAX - 2} others", code=errno.EMLINK)
    node = _new(nodes, above, name, S_IFDIR | mode & 0o7777, uid, gid, now, umask)
    block = new_directory_block(node.ino, parent, block_size=nodes.block_size, filetype=nodes.rules.filetype)
    nodes.map(node).append(0, [block], nodes.session.goal_of(node.ino))
    nodes.update_map(node)
    node.record.size = nodes.block_size
    node.record.links = 2
    nodes.store(node)
    above.record.links += 1
    _add_entry(nodes, above, name, node, now)
    return node


def link(nodes: InodeCache, ino: int, parent: int, name: bytes) -> None:
    """Create a hard link. Raise PathExistsError, PathError (EPERM for a directory, EMLINK), PathNotFoundError."""
    now = nodes.session.nanoseconds
    above, node = directory(nodes, parent, name), nodes.edit(ino)
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
    _add_entry(nodes, above, name, node, now)


# -- remove --------------------------------------------------------------------------------------------------------


def find_removable(nodes: InodeCache, above: Node, name: bytes) -> Node:
    """Return the inode of a name to remove. Raise PathNotFoundError, PathError (EPERM), CorruptError.

    NeedsCheckError for a directory that belongs to another one: see ``check_directory_of``.
    """
    entry = nodes.directory(above).find_listed(name)
    if entry is None:
        raise PathNotFoundError(name, "No such file or directory")
    check_changeable(above, name)
    node = nodes.edit(entry.ino)
    check_changeable(node, name)
    if not node.record.links:
        raise CorruptError(f"inode {node.ino}", "i_links_count", 0, f"1 or more: it is in directory inode {above.ino}")
    if node.record.is_dir and node.ino != ROOT_INO:
        check_directory_of(nodes, node, above.ino)
    return node


def check_directory_of(nodes: InodeCache, node: Node, above: int) -> None:
    """Raise NeedsCheckError unless a directory found in directory ``above`` says that it is in it, by its ``..``.

    In a damaged image a directory may have a name in two others. Removed by the wrong one, it would be lost to the right one.
    """
    names = nodes.directory(node)
    if names.own() != node.ino:
        raise NeedsCheckError(f'is damaged: "." of directory inode {node.ino} is {names.own()}')
    if names.parent() != above:
        where = f"directory inode {node.ino} has a name in directory inode {above}"
        raise NeedsCheckError(f'is damaged: {where}, and its ".." is {names.parent()}')


def unlink(nodes: InodeCache, parent: int, name: bytes) -> None:
    """Remove a name of a file that is not a directory. Raise PathNotFoundError, PathIsDirectoryError."""
    now = nodes.session.nanoseconds
    above = directory(nodes, parent, name)
    if name in DOTS:
        raise PathIsDirectoryError(name, "Is a directory")
    node = find_removable(nodes, above, name)
    if node.record.is_dir:
        raise PathIsDirectoryError(name, "Is a directory")
    if node.record.mode & S_IFMT == S_IFLNK:
        nodes.parents.clear()
    nodes.directory(above).remove(name)
    nodes.store_directory(above, now)
    drop_link(nodes, node, now)


def rmdir(nodes: InodeCache, parent: int, name: bytes) -> None:
    """Remove an empty directory. Raise PathNotFoundError, PathNotDirectoryError, PathNotEmptyError."""
    now = nodes.session.nanoseconds
    above = directory(nodes, parent, name)
    if name == b".":
        if parent == ROOT_INO:
            raise PathError(name, "Device or resource busy: the root directory", code=errno.EBUSY)
        raise PathError(name, "Invalid argument")
    if name == b"..":
        raise PathNotEmptyError(name, "Directory not empty")
    node = find_removable(nodes, above, name)
    check_removable(nodes, node, name)
    nodes.directory(above).remove(name)
    above.record.links = max(2, above.record.links - 1)
    nodes.store_directory(above, now)
    drop_directory(nodes, node, now)


def check_removable(nodes: InodeCache, node: Node, name: bytes) -> None:
    """Raise PathNotDirectoryError, PathNotEmptyError or PathError (EBUSY) unless it is a directory that can be removed."""
    if not node.record.is_dir:
        raise PathNotDirectoryError(name, "Not a directory")
    if node.ino == ROOT_INO:
        raise PathError(name, "Device or resource busy: the root directory", code=errno.EBUSY)
    if not nodes.directory(node).is_empty():
        raise PathNotEmptyError(name, "Directory not empty")


def drop_link(nodes: InodeCache, node: Node, now: int) -> None:
    """Drop one link of a file whose name was removed; the last one deletes it."""
    node.record.links -= 1
    node.record.ctime = now
    if node.record.links:
        nodes.store(node)
    else:
        nodes.drop_unlinked(node)


def drop_directory(nodes: InodeCache, node: Node, now: int) -> None:
    """Delete an empty directory whose name was removed."""
    node.record.links = 0
    node.record.ctime = now
    nodes.parents.clear()
    nodes.drop_unlinked(node)
