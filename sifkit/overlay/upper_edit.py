"""Changes through the container's view: paths below upper/, and whiteouts for what lower layers may have.

What lower layers hold is not known here, so a name that goes leaves a whiteout (a character device 0, 0) unless a directory
on the way is opaque, which hides all that is below. A directory that takes a whiteout's place becomes opaque, or what was
removed would show again in it. Source: Linux ``Documentation/filesystems/overlayfs.rst``, "whiteouts and opaque directories".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

from ext3.constants import S_IFCHR
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import Ext3Error, PathError, PathIsDirectoryError

from ..errors import show
from .resolve import ResolvedPath, Resolver, find_upper
from .whiteouts import OPAQUE_XATTRS, OVERLAY_XATTR_PREFIXES, has_whiteout_prefix, is_opaque_directory

__all__ = ["Editor"]


class Editor(Resolver):
    """Changes names as a container would. Without ``upper`` they are what they are: nothing is left behind."""

    filesystem: WritableFilesystem

    def __init__(self, filesystem: WritableFilesystem, *, upper: bool = False) -> None:
        super().__init__(filesystem, upper=upper)
        self.upper_ino = find_upper(filesystem)
        self.whiteouts = 0
        """How many were left."""

    def outside(self, spot: ResolvedPath) -> bool:
        """Whether no container will see this place: the image has an upper/, and it lies elsewhere."""
        if self.upper or self.upper_ino is None:
            return False
        return self.upper_ino != spot.ino and self.upper_ino not in spot.ancestors

    def leaves_whiteout(self, spot: ResolvedPath) -> bool:
        """Whether a name that goes from here must be hidden: no directory on the way is opaque."""
        return self.upper and not any(is_opaque_directory(self.filesystem, ino) for ino in spot.ancestors)

    @contextmanager
    def taking(self, spot: ResolvedPath) -> Iterator[None]:
        """A file is made at ``spot``, or moved there, in the block; whiteouts of its name go, unless the block fails.

        PathError where a container would not see the file, or another file is hidden there.
        """
        self.check_free(spot)
        device = spot.name in spot.whiteouts
        if device:
            self.filesystem.unlink_at(*spot.location)
        try:
            yield
        except BaseException:
            if device:
                with suppress(Ext3Error):  # what failed first is what matters
                    self.filesystem.mknod_at(*spot.location, S_IFCHR)
            raise
        for mark in spot.whiteouts:
            if mark != spot.name:
                self.filesystem.remove_tree_at(spot.parent, mark)

    def check_free(self, spot: ResolvedPath) -> None:
        """Raise PathError where a file with this name would not be seen, or would take the place of one that is hidden."""
        if self.hide_whiteouts and has_whiteout_prefix(spot.name):
            error = PathError(spot.path, "a name that begins with .wh. hides a file from the container")
            error.hint = "without --upper it is a name like any other"
            raise error
        if spot.hidden_ino is not None:
            names = " and ".join(show(name) for name in (spot.name, *spot.whiteouts))
            why = f"{names} are both in upper/: the kernel shows the file, fuse-overlayfs hides it"
            error = PathError(spot.path, why)
            error.hint = "remove the one you do not want, without --upper"
            raise error

    def check_attribute(self, path: bytes, name: bytes) -> None:
        """Raise PathError where the container would not see the attribute ``name``."""
        if self.hide_whiteouts and name.startswith(OVERLAY_XATTR_PREFIXES):
            error = PathError(path, "overlay filesystems keep it for themselves, and show it to no container")
            error.hint = "without --upper it is an attribute like any other"
            raise error

    def make_directory(self, spot: ResolvedPath, mode: int, *, uid: int, gid: int, umask: int = 0) -> int:
        """A new directory; opaque where it takes a whiteout's place. ``umask``: see ``WritableFilesystem.mkdir_at``."""
        with self.taking(spot):
            ino = self.filesystem.mkdir_at(*spot.location, mode, uid=uid, gid=gid, umask=umask)
        if spot.whiteouts:
            self.make_opaque(ino)
        return ino

    def make_opaque(self, ino: int) -> None:
        for name in OPAQUE_XATTRS:
            self.filesystem.set_xattr(ino, name, b"y")

    def _replacing(self, spot: ResolvedPath, remove: Callable[[], None]) -> None:
        """``remove`` what is at a place, and leave a whiteout where one is needed; it is made first, while there is room."""
        if not self.leaves_whiteout(spot):
            remove()
            return
        name = next(name for name in map(b".whiteout-%d".__mod__, count()) if self.find_name(spot.parent, name) is None)
        self.filesystem.mknod_at(spot.parent, name, S_IFCHR)
        try:
            remove()
        except BaseException:
            self.filesystem.unlink_at(spot.parent, name)
            raise
        self.filesystem.rename_at(spot.parent, name, *spot.location)
        self.whiteouts += 1

    def hide(self, spot: ResolvedPath) -> bool:
        """Leave a whiteout where upper/ has nothing, and a lower layer may; False where none is needed."""
        if spot.whiteouts or not self.leaves_whiteout(spot):
            return False
        self.check_free(spot)
        self._replacing(spot, lambda: None)
        return True

    def unlink(self, spot: ResolvedPath) -> None:
        """Remove a name that is no directory's."""
        if not self.leaves_whiteout(spot):
            self.filesystem.unlink_at(*spot.location)
            return
        assert spot.ino is not None
        if self.stat(spot.ino).is_dir:
            raise PathIsDirectoryError(spot.path, "Is a directory")
        self._replacing(spot, lambda: None)  # the whiteout takes the name over

    def remove_directory(self, spot: ResolvedPath) -> None:
        """Remove a directory that holds nothing, or nothing but whiteouts."""
        assert spot.ino is not None
        self._sweep(spot.ino)
        self._replacing(spot, lambda: self.filesystem.rmdir_at(*spot.location))

    def remove_tree(self, spot: ResolvedPath) -> None:
        """Remove a directory and all below it; one whiteout hides the whole."""
        self._replacing(spot, lambda: self.filesystem.remove_tree_at(*spot.location))

    def move(self, old: ResolvedPath, new: ResolvedPath) -> None:
        """Move a name; what is at the new place is replaced. A directory shows what it holds here, and nothing of lower layers.

        Raises PathExistsError and its kin as ``WritableFilesystem.rename`` does.
        """
        assert old.ino is not None
        if new.ino is not None and old.ino == new.ino:
            return
        wanted = self.leaves_whiteout(old)
        is_dir = self.stat(old.ino).is_dir
        if is_dir and new.ino is not None and self.stat(new.ino).is_dir:
            self._sweep(new.ino)
        with self.taking(new):
            self.filesystem.rename_at(*old.location, *new.location, whiteout=wanted)
        self.whiteouts += wanted
        if is_dir and self.upper and not is_opaque_directory(self.filesystem, old.ino):
            self.make_opaque(old.ino)

    def _sweep(self, directory: int) -> None:
        """Remove the whiteouts and marks that are all a directory holds; if it holds more, nothing."""
        if not self.hide_whiteouts or self.entries(directory):
            return
        for entry in list(self.filesystem.scandir(directory)):
            self.filesystem.remove_tree_at(directory, entry.name)
