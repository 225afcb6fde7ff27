"""Copying up: files of lower layers into upper/, before they are changed there, as the kernel's overlayfs does.

A file gets its name when it is complete, with content, holes, owner, mode, times and xattrs. The directories above it are
copied first, without what is in them. What a container sees is the same after each step, so the copying may end anywhere. The
times of a directory do not change because something in it is copied up. A hard link of a lower file becomes a file of its own.
Source: Linux ``fs/overlayfs/copy_up.c``; tried with Linux 6.18.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from errno import EIO, ENOENT, ENOSPC
from functools import partial
from typing import TypeVar

from ext3 import hostio
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import SourceError
from ext3.format.xattr import split_name

from ...vfs.errors import TreePathError, path_error, reason_of
from ...vfs.file_tree import Stat, is_directory, stat_of
from ...vfs.resolve import is_dir
from ...vfs.walk import walk
from ...vfs.whiteouts import METACOPY_XATTRS, OPAQUE_XATTRS, REDIRECT_XATTRS, is_metacopy, is_redirected, is_whiteout
from ..xattr_filter import ACLS
from .edited_view import EditedView

__all__ = ["CopyUp", "store_attributes"]

T = TypeVar("T")
SECTOR = 512


class CopyUp:
    """Copies files of the lower layers of ``view`` to its upper layer, which is in ``filesystem``."""

    def __init__(self, filesystem: WritableFilesystem, view: EditedView) -> None:
        self._filesystem = filesystem
        self._view = view

    def copy(self, node: int) -> int:
        """Copy a file up, unless it is in the image already, and the directories above it. Return its inode.

        Raises TreePathError if it cannot be read, XattrError if ext3 cannot store an xattr, and NoSpaceError.
        """
        missing: list[int] = []
        while (inode := self._view.upper_inode(node)) is None:
            missing.append(node)
            node = self._view.place_of(node)[0]
        for one in reversed(missing):
            inode = self._copy_one(inode, one)
        return inode

    def copy_tree(self, top: int) -> int:
        """Copy up a directory and everything below it, also the content of metacopies. Return its inode.

        Hard links in it stay. Raises TreePathError (ENOSPC), before any change, if there is no room for the data.
        """
        self._check_space(top)
        inode = self.copy(top)
        linked: dict[tuple[int, int], int] = {}
        for found in walk(self._view, top):
            facts, node = stat_of(found.row), found.row.node
            identity = facts.dev, facts.ino
            if identity in linked and self._view.upper_inode(node) is None:
                self._link(linked[identity], node)
                continue
            is_lower = self._view.upper_inode(node) is None
            below = self.copy(node)
            if is_directory(found.row):
                self._unmerge(below)
            elif stat.S_ISREG(facts.mode):
                self.copy_content(below)
            if is_lower and facts.links > 1 and not is_directory(found.row):
                linked[identity] = below
        self._unmerge(inode)
        return inode

    def _link(self, inode: int, node: int) -> None:
        """Make a lower file another name of ``inode``, which was copied from the same file."""
        directory, name = self._view.place_of(node)
        self._in_directory(self.copy(directory), lambda parent: self._filesystem.link_at(inode, parent, name))
        self._view.set_copy(node, inode, is_directory=False)

    def copy_content(self, inode: int) -> None:
        """Copy the content of a metacopy, if a file of the image is one, into it, and remove the marks."""
        if not is_metacopy(self._filesystem.xattrs(inode)):
            return
        found = self._filesystem.stat(inode)
        if self._view.is_merged(inode):  # an empty one has no lower file here, but the kernel looks for it by its name
            self._write(inode, inode)
        self._filesystem.atomically(partial(self._remove_marks, inode, found))

    def _remove_marks(self, inode: int, found: Stat) -> None:
        for name in self._filesystem.xattrs(inode).keys() & {*METACOPY_XATTRS, *REDIRECT_XATTRS}:
            self._filesystem.remove_xattr(inode, name)
        self._filesystem.set_attributes(inode, atime=found.atime, mtime=found.mtime)
        self._view.set_unmerged(inode)

    def _unmerge(self, directory: int) -> None:
        """Make a directory opaque that a redirect merges with another one of lower layers: all of it is here."""
        xattrs = self._filesystem.xattrs(directory)
        if not is_redirected(xattrs):
            return

        def mark() -> None:
            for name in OPAQUE_XATTRS:
                self._filesystem.set_xattr(directory, name, b"y")
            for name in xattrs.keys() & set(REDIRECT_XATTRS):
                self._filesystem.remove_xattr(directory, name)

        self._filesystem.atomically(mark)
        self._view.set_unmerged(directory)

    def _copy_one(self, parent: int, node: int) -> int:
        """Copy one file up to the directory ``parent`` of the image."""
        name = self._view.place_of(node)[1]
        there = self._filesystem.find_name(parent, name)
        if there is not None:
            found = self._filesystem.stat(there)
            if is_whiteout(found):
                raise path_error(name, ENOENT)
            self._view.set_copy(node, there, is_directory=found.is_dir)
            return there
        try:
            facts: Stat = self._view.stat(node)
            xattrs = self.xattrs_of(node)
            target = self._view.readlink(node) if stat.S_ISLNK(facts.mode) else None
        except OSError as error:
            raise _unreadable(name, error) from error
        if is_dir(facts):
            make = partial(self._make_directory, name=name, facts=facts, xattrs=xattrs)
            inode = self._in_directory(parent, make)
            self._view.set_copy(node, inode, is_directory=True)
            return inode
        device = facts.major, facts.minor
        inode = self._filesystem.create_nameless(parent, stat.S_IFMT(facts.mode) | 0o600, target=target, rdev=device)
        try:
            if stat.S_ISREG(facts.mode):
                self._write(inode, node)
            self._filesystem.atomically(partial(self._name, inode, parent, name, facts, xattrs))
        finally:
            self._filesystem.release(inode)
        self._view.set_copy(node, inode, is_directory=False)
        return inode

    def xattrs_of(self, node: int) -> dict[bytes, bytes]:
        """Return the xattrs of a file that ext3 can store. Raises OSError."""
        try:
            found = self._view.xattrs(node)
        except OSError as error:
            if error.errno in hostio.NO_XATTRS:
                return {}
            raise
        return {name: value for name, value in found.items() if split_name(name)}

    def _write(self, inode: int, node: int) -> None:
        """Write the content of a file of the view into a file of the image."""
        name = self._view.place_of(node)[1] if node < 0 else None
        try:
            opened = self._view.open_file(node)
        except OSError as error:
            raise _unreadable(name, error) from error
        with opened:
            try:
                self._filesystem.write_from(inode, opened)
            except SourceError as error:
                cause = error.__cause__  # of the layer, which says where it is damaged
                raise _unreadable(name, cause if isinstance(cause, OSError) else error) from error

    def _make_directory(self, parent: int, *, name: bytes, facts: Stat, xattrs: Mapping[bytes, bytes]) -> int:
        inode = self._filesystem.mkdir_at(parent, name, 0o700)
        store_attributes(self._filesystem, inode, facts, xattrs)
        self._filesystem.set_attributes(inode, atime=facts.atime, mtime=facts.mtime)
        return inode

    def _name(self, inode: int, parent: int, name: bytes, facts: Stat, xattrs: Mapping[bytes, bytes]) -> None:
        store_attributes(self._filesystem, inode, facts, xattrs)
        self.give_name(inode, parent, name)
        self._filesystem.set_attributes(inode, atime=facts.atime, mtime=facts.mtime)

    def give_name(self, inode: int, parent: int, name: bytes) -> None:
        """Give a file its first name, in a directory that keeps its times."""
        self._in_directory(parent, lambda parent: self._filesystem.name_at(inode, parent, name))

    def _in_directory(self, parent: int, make: Callable[[int], T]) -> T:
        """Call ``make``, which creates a name in the directory ``parent``, in one operation that leaves its times."""

        def work() -> T:
            before = self._filesystem.stat(parent)
            made = make(parent)
            self._filesystem.set_attributes(parent, atime=before.atime, mtime=before.mtime)
            return made

        return self._filesystem.atomically(work)

    def _check_space(self, top: int) -> None:
        superblock = self._filesystem.superblock
        blocks = inodes = 0
        for found in walk(self._view, top):
            facts = stat_of(found.row)
            if self._view.is_merged(found.row.node) and not is_directory(found.row):
                size = min(facts.size, facts.blocks * SECTOR) if stat.S_ISREG(facts.mode) else 0
                blocks += -(-size // superblock.block_size)
            elif is_directory(found.row):
                blocks += self._view.upper_inode(found.row.node) is None
            inodes += self._view.upper_inode(found.row.node) is None
        if blocks > superblock.free_blocks or inodes > superblock.free_inodes:
            raise path_error(b"", ENOSPC)


def store_attributes(filesystem: WritableFilesystem, inode: int, facts: Stat, xattrs: Mapping[bytes, bytes]) -> None:
    """Set owner, mode and xattrs of a file that was just created, instead of those that it inherited from its directory."""
    mode = None if stat.S_ISLNK(facts.mode) else stat.S_IMODE(facts.mode)
    filesystem.set_attributes(inode, uid=facts.uid, gid=facts.gid, mode=mode)
    for name in ACLS & filesystem.xattrs(inode).keys() - xattrs.keys():
        filesystem.remove_xattr(inode, name)
    for name in sorted(xattrs, key=lambda name: name not in ACLS):
        filesystem.set_xattr(inode, name, xattrs[name])


def _unreadable(name: bytes | None, error: OSError) -> TreePathError:
    """Return the error of a file that cannot be read in its layer."""
    made = TreePathError(name, error.errno or EIO, f"its lower layer cannot be read: {reason_of(error)}")
    made.kind, made.hint = getattr(error, "kind", made.kind), getattr(error, "hint", "")
    return made
