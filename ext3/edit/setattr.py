"""Inode attributes: mode, owner, size and times, extended attributes and ACLs.

``set_attributes`` runs its own operations; the others are called inside one.

Source: Linux ``fs/attr.c`` (notify_change), ``fs/ext4/inode.c`` (ext4_setattr), ``fs/open.c`` (chown_common),
``fs/xattr.c`` (xattr_permission), ``fs/posix_acl.c``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from ..constants import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from ..errors import CorruptError, JournalFullError, XattrError, show
from ..format.inode_fields import check_owner
from . import truncate
from .inode_cache import InodeCache, Node, check_changeable
from .namei import ACCESS, DEFAULT
from .permissions import acl_after_chmod, is_no_acl, mode_of_acl
from .privileges import drop_capability

__all__ = ["remove_attribute", "set_attribute", "set_attributes"]

S_ISUID, S_ISGID, S_IXGRP = 0o4000, 0o2000, 0o010


def _node(nodes: InodeCache, ino: int) -> Node:
    node = nodes.edit(ino)
    check_changeable(node, f"inode {ino}")
    return node


def set_attributes(
    nodes: InodeCache,
    ino: int,
    *,
    mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    size: int | None = None,
    atime: int | None = None,
    mtime: int | None = None,
) -> None:
    """Set those that are not None, as one operation.

    The order is owner, mode, size, times, so that what is given wins over what follows from the rest: a new owner clears
    set-id bits and capabilities, which were granted under the old one; the mode updates the access ACL; a new size sets
    the modification time. Times (nanoseconds since 1970) are rounded to the nearest that the inode can store. A size so
    much smaller that one transaction cannot free the blocks is set with all the rest; then the blocks are freed in steps.
    """
    check_owner(uid or 0, gid or 0)
    if size is not None and size < 0:
        raise ValueError(f"a file cannot have {size} bytes")

    def change(resize: Callable[[InodeCache, Node, int], None]) -> None:
        node = _node(nodes, ino)
        record = node.record
        if uid is not None or gid is not None:
            _set_owner(nodes, node, uid, gid)
        if mode is not None:
            _set_mode(nodes, node, mode)
        if size is not None:
            resize(nodes, node, size)
        if atime is not None:
            record.atime = atime
        if mtime is not None:
            record.mtime = mtime
        if (mode, uid, gid, size, atime, mtime) != (None,) * 6:
            record.ctime = nodes.session.nanoseconds
            nodes.store(node)

    try:
        nodes.run(partial(change, truncate.set_size))
    except JournalFullError:
        if size is None or nodes.session.in_operation or size >= nodes.load(ino).record.size:
            raise
        nodes.run(partial(change, truncate.begin_cut))
        truncate.finish_cut(nodes, ino, size)


def _set_owner(nodes: InodeCache, node: Node, uid: int | None, gid: int | None) -> None:
    record = node.record
    if record.mode & S_IFMT != S_IFDIR:
        drop_capability(nodes, node)
        record.mode &= ~S_ISUID
        if record.mode & S_IXGRP:
            record.mode &= ~S_ISGID
    record.uid = record.uid if uid is None else uid
    record.gid = record.gid if gid is None else gid


def _set_mode(nodes: InodeCache, node: Node, mode: int) -> None:
    """Set the 12 permission bits and update the access ACL."""
    record = node.record
    if nodes.has_attributes(node) and record.mode & S_IFMT != S_IFLNK:
        editor = nodes.attributes(node)
        acl = editor.get(ACCESS)
        if acl is not None:
            try:
                editor.set(ACCESS, acl_after_chmod(acl, mode))
            except ValueError as error:
                raise CorruptError(f"inode {node.ino}", "access ACL", error, "a valid one") from error
            nodes.update_attributes(node, editor)
    record.mode = record.mode & S_IFMT | mode & 0o7777


def set_attribute(nodes: InodeCache, ino: int, name: bytes, value: bytes, *, create: bool, replace: bool) -> None:
    """Set an attribute; an ACL without entries removes it.

    Raise XattrError: EEXIST with ``create``, ENODATA with ``replace``, or if ext3 cannot store it.
    """
    node = _node(nodes, ino)
    if name in (ACCESS, DEFAULT) and is_no_acl(value) and node.record.mode & S_IFMT != S_IFLNK:
        remove_attribute(nodes, ino, name)
        return
    _check_allowed(node, name)
    editor = nodes.attributes(node)
    if create or replace:
        there = editor.get(name) is not None
        if create and there:
            raise _error(node, name, errno.EEXIST, "is there already")
        if replace and not there:
            raise _error(node, name, errno.ENODATA, "is not there")
    record = node.record
    mode, kept = record.mode, True
    if name == ACCESS:
        try:
            mode, kept = mode_of_acl(value, record.mode)
        except ValueError as error:
            raise _error(node, name, errno.EINVAL, f"cannot be that: {error}") from error
    if kept:
        if not editor.set(name, value) and mode == record.mode:
            return
    elif editor.get(name) is not None:
        editor.remove(name)
    nodes.update_attributes(node, editor)
    record.mode = mode
    record.ctime = nodes.session.nanoseconds
    nodes.store(node)


def remove_attribute(nodes: InodeCache, ino: int, name: bytes) -> None:
    """Remove an attribute. Raise XattrError (ENODATA) if it does not exist, except for ACLs, as the kernel does."""
    node = _node(nodes, ino)
    editor = nodes.attributes(node)
    if name in (ACCESS, DEFAULT) and editor.get(name) is None:
        return
    editor.remove(name)
    nodes.update_attributes(node, editor)
    node.record.ctime = nodes.session.nanoseconds
    nodes.store(node)


def _check_allowed(node: Node, name: bytes) -> None:
    kind = node.record.mode & S_IFMT
    if name.startswith(b"user.") and kind not in (S_IFREG, S_IFDIR):
        raise _error(node, name, errno.EPERM, "is for files and directories only")
    if name in (ACCESS, DEFAULT) and kind == S_IFLNK:
        raise _error(node, name, errno.EOPNOTSUPP, "is not for symbolic links")
    if name == DEFAULT and kind != S_IFDIR:
        raise _error(node, name, errno.EACCES, "is for directories only")


def _error(node: Node, name: bytes, number: int, message: str) -> XattrError:
    return XattrError(f"inode {node.ino}", f"the attribute {show(name)} {message}", error=OSError(number, message))
