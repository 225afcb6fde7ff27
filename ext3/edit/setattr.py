"""Inode attributes: mode, owner, times, extended attributes and ACLs. Called inside an operation.

Source: Linux ``fs/attr.c``, ``fs/inode.c`` (file_remove_privs), ``fs/open.c`` (chown_common), ``fs/xattr.c``
(xattr_permission), ``fs/posix_acl.c``.
"""

from __future__ import annotations

import errno

from ..constants import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from ..errors import CorruptError, XattrError, show
from ..format.inode_fields import check_owner
from .inode_cache import InodeCache, Node, check_changeable
from .namei import ACCESS, DEFAULT
from .permissions import acl_after_chmod, is_no_acl, mode_of_acl

__all__ = ["chmod", "chown", "content_changed", "remove_attribute", "set_attribute", "set_times"]

S_ISUID, S_ISGID, S_IXGRP = 0o4000, 0o2000, 0o010
CAPABILITY = b"security.capability"


def _node(nodes: InodeCache, ino: int) -> Node:
    node = nodes.edit(ino)
    check_changeable(node, f"inode {ino}")
    return node


def chmod(nodes: InodeCache, ino: int, mode: int) -> None:
    """Set the 12 permission bits and update the access ACL."""
    node = _node(nodes, ino)
    record = node.record
    record_mode = record.mode & S_IFMT | mode & 0o7777
    if nodes.has_attributes(node) and record.mode & S_IFMT != S_IFLNK:
        editor = nodes.attributes(node)
        acl = editor.get(ACCESS)
        if acl is not None:
            try:
                editor.set(ACCESS, acl_after_chmod(acl, mode))
            except ValueError as error:
                raise CorruptError(f"inode {ino}", "access ACL", error, "a valid one") from error
            nodes.update_attributes(node, editor)
    record.mode = record_mode
    record.ctime = nodes.session.nanoseconds
    nodes.store(node)


def chown(nodes: InodeCache, ino: int, uid: int | None, gid: int | None) -> None:
    """Set owner and group, if not None. Clear set-id bits and capabilities, which were granted under the old owner."""
    check_owner(uid or 0, gid or 0)
    node = _node(nodes, ino)
    record = node.record
    if record.mode & S_IFMT != S_IFDIR:
        drop_capability(nodes, node)
        record.mode &= ~S_ISUID
        if record.mode & S_IXGRP:
            record.mode &= ~S_ISGID
    record.uid = record.uid if uid is None else uid
    record.gid = record.gid if gid is None else gid
    record.ctime = nodes.session.nanoseconds
    nodes.store(node)


def drop_capability(nodes: InodeCache, node: Node) -> None:
    """Remove the capabilities of a file whose content or owner changed. The caller stores the inode."""
    if nodes.has_attributes(node):
        editor = nodes.attributes(node)
        if editor.get(CAPABILITY) is not None:
            editor.remove(CAPABILITY)
            nodes.update_attributes(node, editor)


def content_changed(nodes: InodeCache, node: Node) -> None:
    """Store an inode whose content changed. Capabilities are removed; set-id bits stay, as for root."""
    drop_capability(nodes, node)
    node.record.mtime = node.record.ctime = nodes.session.nanoseconds
    nodes.store(node)


def set_times(nodes: InodeCache, ino: int, atime: int | None, mtime: int | None) -> None:
    """Set the times (nanoseconds since 1970) that are not None, rounded to the nearest that the inode can store."""
    node = _node(nodes, ino)
    if atime is None and mtime is None:
        return
    record = node.record
    record.atime = record.atime if atime is None else atime
    record.mtime = record.mtime if mtime is None else mtime
    record.ctime = nodes.session.nanoseconds
    nodes.store(node)


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
