"""Edits of upper/ as a container makes them: paths below upper/, and whiteouts for files that lower layers have.

With the lower layers at hand, paths are those of the whole container: a lower file is copied up before it is changed, moved or
linked, and removing a name leaves a whiteout (a character device 0, 0) if a lower layer has it. Without them it leaves one in
any case, unless a directory on the way is opaque and hides the lower layers; content in a lower layer is found there by its
path, so such files are neither moved nor linked. A directory that replaces a whiteout becomes opaque; otherwise the removed
directory of the lower layer would show through. Below an opaque directory there are no whiteouts: the kernel would list them as
names that nobody can remove.
Source: Linux ``Documentation/filesystems/overlayfs.rst``, "whiteouts and opaque directories", "Metadata only copy up",
"redirect_dir"; ``fs/overlayfs/readdir.c`` (ovl_iterate), ``namei.c`` (ovl_lookup); tried with Linux 6.18.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TypeVar

from ext3.constants import S_IFCHR
from ext3.errors import JournalFullError, NoSpaceError, PathError, PathIsDirectoryError, PathNotEmptyError

from ...errors import shell_quote, show
from ...vfs.errors import LowerContentError, TreePathError
from ...vfs.resolve import ResolvedPath
from ...vfs.upper_view import is_opaque_directory
from ...vfs.whiteouts import (
    METACOPY_XATTRS,
    OPAQUE_XATTRS,
    OVERLAY_XATTR_PREFIXES,
    REDIRECT_XATTRS,
    has_whiteout_prefix,
    is_whiteout,
    whiteout_name,
)
from .overlay_files import OverlayFiles
from .upper_whiteouts import has_lower_content, whiteouts_below

__all__ = ["PATH_ERRORS", "OverlayEditor", "outside_upper_warning"]

T = TypeVar("T")
PATH_ERRORS = (PathError, TreePathError)
"""Errors that concern one path: of an operation on the filesystem, and of the resolver."""


class OverlayEditor(OverlayFiles):
    """Editor of the names in an overlay, with whiteouts below upper/. Without ``upper`` names are changed as they are."""

    whiteouts = 0
    """Number of whiteouts created."""

    def whiteouts_of(self, path: ResolvedPath[int]) -> tuple[bytes, ...]:
        """Return the names in the directory of ``path`` that hide its name: itself, if it is a device 0, 0, or a .wh. file."""
        parent = self.upper_inode(path.parent)
        if not self.upper or parent is None or has_whiteout_prefix(path.name):
            return ()
        found = []
        ino = self.filesystem.find_name(parent, path.name)
        if ino is not None and is_whiteout(self.filesystem.stat(ino)):
            found.append(path.name)
        name = whiteout_name(path.name)
        if name is not None and self.filesystem.find_name(parent, name) is not None:
            found.append(name)
        return tuple(found)

    def needs_whiteout(self, path: ResolvedPath[int]) -> bool:
        """Return True if removing this name must leave a whiteout: a lower layer has it, or may have it.

        If they are not known, one may have it if no directory on the way is opaque. That upper/ itself is opaque means nothing
        to the kernel.
        """
        if self.view is not None:
            return self.view.has_lower(*path.location)
        return self.upper and not any(is_opaque_directory(self.filesystem, ino) for ino in path.ancestors[1:])

    def replace(self, path: ResolvedPath[int], make: Callable[[], T]) -> T:
        """Run ``make``, which creates ``path`` by a few operations on names, in the place of a file or a whiteout.

        What it replaces is removed in the same operation, so that one of both is there at any time. Return what ``make`` does.
        Raises TreePathError if a container would not see the file, or if it would take the place of a hidden one.
        """
        if path.node is None or (inode := self.upper_inode(path.node)) is None:
            return self._replace_whiteouts(path, make)
        self.check_visible(path)
        try:
            return self._unlink_and(path, make)
        except JournalFullError:
            self.filesystem.hold(inode)  # its blocks are freed afterwards, in as many operations as that needs
            try:
                return self._unlink_and(path, make)
            finally:
                self.filesystem.release(inode)
        except NoSpaceError:  # blocks can be used again once their removal is committed
            self.filesystem.unlink_at(*self.location(path))
            return make()

    def _unlink_and(self, path: ResolvedPath[int], make: Callable[[], T]) -> T:
        location = self.location(path)

        def both() -> T:
            self.filesystem.unlink_at(*location)
            return make()

        return self.filesystem.atomically(both)

    def _replace_whiteouts(self, path: ResolvedPath[int], make: Callable[[], T]) -> T:
        """Run ``make``, which creates or moves a file to ``path``, and remove the whiteouts of this name."""
        whiteouts = self.whiteouts_of(path)
        self.check_visible(path)
        made = self._unlink_and(path, make) if path.name in whiteouts else make()
        for name in whiteouts:
            if name != path.name:
                self.filesystem.remove_tree_at(self.copy_up(path.parent), name)
        return made

    def check_visible(self, path: ResolvedPath[int]) -> None:
        """Raise TreePathError if a file of this name would not be visible, or would take the place of a hidden one."""
        if not self.upper:
            return
        if has_whiteout_prefix(path.name):
            why = "a name that begins with .wh. is a whiteout, which hides a file from containers"
            error = TreePathError(path.path, errno.EINVAL, why)
            error.hint = "without --upper it is an ordinary name"
            raise error
        whiteouts = self.whiteouts_of(path)
        if whiteouts and path.name not in whiteouts and self.filesystem.find_name(*self.location(path)) is not None:
            names = " and ".join(show(name) for name in (path.name, *whiteouts))
            why = f"{names} are both in upper/: the kernel shows the file, fuse-overlayfs hides it"
            error = TreePathError(path.path, errno.EINVAL, why)
            error.hint = "remove the one you do not want, without --upper"
            raise error

    def check_xattr(self, path: bytes, name: bytes) -> None:
        """Raise TreePathError if a container would not see the xattr ``name``."""
        if self.upper and name.startswith(OVERLAY_XATTR_PREFIXES):
            error = TreePathError(path, errno.EINVAL, "overlay filesystems reserve this attribute and hide it from containers")
            error.hint = "without --upper it is an ordinary attribute"
            raise error

    def make_directory(
        self,
        path: ResolvedPath[int],
        mode: int,
        *,
        uid: int,
        gid: int,
        umask: int = 0,
        finish: Callable[[int], object] | None = None,
    ) -> int:
        """Create a directory, opaque if it replaces a whiteout. ``umask``: see ``WritableFilesystem.mkdir_at``.

        ``finish``: called with its inode, to set attributes in the same operation.
        """
        replaces_whiteout = bool(self.whiteouts_of(path))
        location = self.location(path)

        def make() -> int:
            ino = self.filesystem.mkdir_at(*location, mode, uid=uid, gid=gid, umask=umask)
            if replaces_whiteout:
                self.make_opaque(ino)
            if self.view is not None:
                self.view.set_unmerged(ino)
            if finish is not None:
                finish(ino)
            return ino

        return self._replace_whiteouts(path, lambda: self.filesystem.atomically(make))

    def make_opaque(self, ino: int) -> None:
        for name in OPAQUE_XATTRS:
            self.filesystem.set_xattr(ino, name, b"y")
        if self.view is not None:
            self.view.set_unmerged(ino)

    def _remove(
        self,
        path: ResolvedPath[int],
        remove: Callable[[], None] | None = None,
        *,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Replace a name by a whiteout if one is needed, which is created first, while there is space for it.

        ``prepare`` is called then, and ``remove`` in one operation with the renaming of the whiteout. Without ``remove`` there
        is a file of this name that can be replaced, or none.
        """
        parent, name = self.location(path)
        if not self.needs_whiteout(path):
            for work in (prepare, remove):
                if work is not None:
                    work()
            return
        numbered = map(b".whiteout-%d".__mod__, count())
        whiteout = next(one for one in numbered if self.filesystem.find_name(parent, one) is None)
        self.filesystem.mknod_at(parent, whiteout, S_IFCHR)

        def replace() -> None:
            if remove is not None:
                remove()
            self.filesystem.rename_at(parent, whiteout, parent, name)

        try:
            if prepare is not None:
                prepare()
            if remove is None:
                replace()
            else:
                self.filesystem.atomically(replace)
        except BaseException:
            self.filesystem.unlink_at(parent, whiteout)
            raise
        self.whiteouts += 1

    def add_whiteout(self, path: ResolvedPath[int]) -> bool:
        """Create a whiteout for a name that only a lower layer may have; return False if none is needed."""
        if self.whiteouts_of(path) or not self.needs_whiteout(path):
            return False
        self.check_visible(path)
        self._remove(path)
        return True

    def unlink(self, path: ResolvedPath[int]) -> None:
        """Remove a name that is not a directory."""
        if not self.needs_whiteout(path):
            self.filesystem.unlink_at(*self.location(path))
            return
        assert path.node is not None
        if self.stat(path.node).is_dir:
            raise PathIsDirectoryError(path.path, "Is a directory")
        self._remove(path)  # the whiteout is renamed over the file

    def remove_directory(self, path: ResolvedPath[int]) -> None:
        """Remove a directory that is empty or holds only whiteouts."""
        assert path.node is not None
        self._check_empty(path)
        if self.upper_inode(path.node) is None:
            self._remove(path)
            return
        location = self.location(path)
        inside = self._only_whiteouts(path.node)
        before = self.whiteouts

        def empty_and_remove() -> None:
            self.whiteouts = before  # it may run twice
            self._remove_names(inside)
            self._remove(path, lambda: self.filesystem.rmdir_at(*location))

        try:
            self.filesystem.atomically(empty_and_remove)
        except JournalFullError:
            self._remove(path, lambda: self.filesystem.rmdir_at(*location), prepare=lambda: self._remove_names(inside))

    def remove_tree(self, path: ResolvedPath[int]) -> None:
        """Remove a directory and everything below it; one whiteout hides it all."""
        assert path.node is not None
        inode, location = self.upper_inode(path.node), self.location(path)
        if inode is None:
            self._remove(path)
            return
        if not self.needs_whiteout(path):
            self.filesystem.remove_tree_at(*location)
            return
        if self.view is not None and self.view.is_merged(path.node):
            with suppress(NoSpaceError):  # what is in lower layers does not come back while the rest is removed
                self.filesystem.atomically(partial(self.make_opaque, inode))
        inside = [(inode, entry.name) for entry in self.filesystem.scandir(inode)]
        self._remove(path, lambda: self.filesystem.rmdir_at(*location), prepare=lambda: self._remove_names(inside))

    def rename(self, old: ResolvedPath[int], new: ResolvedPath[int]) -> None:
        """Rename a file or directory, replacing ``new``. A directory that is moved becomes opaque, without whiteouts in it.

        Lower files are copied up first, a directory with all that is in it. Raises PathExistsError and related errors as
        ``WritableFilesystem.rename`` does, and LowerContentError where lower layers are not known.
        """
        assert old.node is not None
        if new.node is not None and old.node == new.node:
            return
        moves_directory = self.stat(old.node).is_dir
        replaces_directory = moves_directory and new.node is not None and self.stat(new.node).is_dir
        if replaces_directory:
            self._check_empty(new)
        node = self._own(old)
        below = whiteouts_below(self.filesystem, old.path, node) if moves_directory and self.upper else []
        inside = self._only_whiteouts(new.node) if replaces_directory and new.node is not None else []
        whiteout = self.needs_whiteout(old)
        locations = self.location(old) + self.location(new)

        def move() -> None:
            self._remove_names(inside)
            if moves_directory and self.upper:
                self.make_opaque(node)
            self.filesystem.rename_at(*locations, whiteout=whiteout)

        try:
            self._replace_whiteouts(new, lambda: self.filesystem.atomically(move))
        except JournalFullError:
            if not inside:
                raise
            self._remove_names(inside)
            inside.clear()
            self._replace_whiteouts(new, lambda: self.filesystem.atomically(move))
        self.whiteouts += whiteout
        for location in below:
            self.filesystem.unlink_at(*location)

    def link(self, old: ResolvedPath[int], new: ResolvedPath[int]) -> None:
        """Create a hard link ``new`` to a file, replacing an existing file. A lower file is copied up first.

        Raises LowerContentError where lower layers are not known.
        """
        ino, location = self._own(old), self.location(new)
        self.replace(new, partial(self.filesystem.link_at, ino, *location))

    def _own(self, path: ResolvedPath[int]) -> int:
        """Return the inode of a file that can be moved or linked, as all its content is in upper/."""
        assert path.node is not None
        if self.copier is None:
            self.check_content(path)
            return path.node
        if self.stat(path.node).is_dir:
            return self.copier.copy_tree(path.node)
        ino = self.copier.copy(path.node)
        self.copier.copy_content(ino)
        return ino

    def check_content(self, path: ResolvedPath[int]) -> None:
        """Raise LowerContentError for a file or directory that is found in a lower layer by its path, so that it must stay."""
        if self.upper and path.node is not None and has_lower_content(self.filesystem, self.stat(path.node), path.node):
            raise LowerContentError(path.path)

    def take_content(self, ino: int) -> None:
        """Remove the marks of a file whose content was in a lower layer: all of it was written to this one."""
        if self.upper:
            for name in self.filesystem.xattrs(ino).keys() & {*METACOPY_XATTRS, *REDIRECT_XATTRS}:
                self.filesystem.remove_xattr(ino, name)

    def _check_empty(self, path: ResolvedPath[int]) -> None:
        """Raise PathNotEmptyError if lower layers have something in a directory; what is in upper/ is found when it goes."""
        assert path.node is not None
        if self.view is None:
            return
        (listing,) = self.tree.scan_many([path.node], stats=False)
        if listing.problem is not None:
            raise listing.problem
        if listing.rows:
            raise PathNotEmptyError(path.path, "Directory not empty")

    def _only_whiteouts(self, directory: int) -> list[tuple[int, bytes]]:
        """Return (directory, name) of the whiteouts in a directory that holds nothing else; without ``upper`` none."""
        inode = self.upper_inode(directory)
        if not self.upper or inode is None or any(listing.rows for listing in self.tree.scan_many([directory], stats=False)):
            return []
        return [(inode, entry.name) for entry in self.filesystem.scandir(inode)]

    def _remove_names(self, locations: Iterable[tuple[int, bytes]]) -> None:
        for location in locations:
            self.filesystem.remove_tree_at(*location)


def outside_upper_warning(editor: OverlayEditor, image: str, path: ResolvedPath[int]) -> str:
    """Return a warning of a new file that no container will see, "" if one will."""
    if not editor.is_outside_upper(path):
        return ""
    suggested = f"{shell_quote(image)}:{show(b'/upper/' + path.path.lstrip(b'/'))}"
    where = f"{show(image)}:{show(path.path)}"
    return f"{where} lies outside upper/: no container will see it (did you mean {suggested}?)"
