"""Changes through the container's view: paths below upper/, and whiteouts for what lower layers may have.

What lower layers hold is not known here, so a name that goes leaves a whiteout (a character device 0, 0) unless a directory
on the way is opaque, which hides all that is below. A directory that takes a whiteout's place becomes opaque, or what was
removed would show again in it. Source: Linux ``Documentation/filesystems/overlayfs.rst``, "whiteouts and opaque directories".
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from ext3.constants import ROOT_INO, S_IFCHR
from ext3.errors import PathError, PathIsDirectoryError, PathNotDirectoryError, PathNotFoundError
from ext3.filesystem import Filesystem, Stat
from ext3.writing import WritableFilesystem

from .view import MAX_COMPONENTS, MAX_SYMLINKS, OPAQUE_NAMES, is_opaque, is_whiteout

__all__ = ["Editor", "Spot", "Tracer", "upper_of"]

DOTS = (b".", b"..")


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a path leads: the directory ``parent``, the ``name`` in it, and the inode there (None: nothing).

    ``way``: the directories from the top down to ``parent``. The top itself has the name b"". ``whiteout``: the name is taken
    by one, which a container does not see.
    """

    path: bytes
    parent: int
    name: bytes
    ino: int | None
    way: tuple[int, ...]
    whiteout: bool = False

    @property
    def place(self) -> tuple[int, bytes]:
        return self.parent, self.name

    @property
    def shown(self) -> bytes:
        """The name to give a copy: that of the path as it was written."""
        return self.path.rstrip(b"/").rpartition(b"/")[2]


def upper_of(filesystem: Filesystem) -> int | None:
    """The inode of upper/, None where the image has none."""
    try:
        ino = filesystem.lookup(b"/upper", follow=False)
    except PathError:
        return None
    return ino if filesystem.stat(ino).is_dir else None


class Tracer:
    """Finds places in a filesystem whose paths start at a directory; with ``upper`` at upper/, and whiteouts are not there."""

    def __init__(self, filesystem: Filesystem, *, upper: bool = False) -> None:
        """Raises PathNotFoundError for ``upper`` without upper/."""
        self.reads = filesystem
        self.upper = upper
        found = upper_of(filesystem) if upper else ROOT_INO
        if found is None:
            raise PathNotFoundError(b"/upper", "the image has no upper/")
        self.root = found

    def find(self, directory: int, name: bytes) -> int | None:
        """The inode of a name."""
        return self.reads.find_name(directory, name)

    def stat(self, ino: int) -> Stat:
        return self.reads.stat(ino)

    def spot(self, path: bytes, *, follow: bool) -> Spot:
        """Where ``path`` leads; its last name may be missing. ``follow``: through a link at the end, too.

        Raises PathNotFoundError and PathNotDirectoryError for the directories on the way, PathError (ELOOP, ENAMETOOLONG).
        """
        pending = [name for name in path.split(b"/") if name][::-1]
        must_be_directory = path.endswith((b"/", b"/.", b"/.."))
        follow = follow or must_be_directory
        way: list[tuple[int, bytes]] = [(self.root, b"")]
        links = steps = 0
        while pending:
            name = pending.pop()
            steps += 1
            if steps + len(pending) > MAX_COMPONENTS or len(name) > 255:
                raise _error(path, "File name too long", errno.ENAMETOOLONG)
            above = way[-1][0]
            if not self.stat(above).is_dir:
                raise PathNotDirectoryError(path, "Not a directory")
            if name == b"..":
                del way[max(1, len(way) - 1) :]
            if name in DOTS:
                continue
            ino = self.find(above, name)
            hidden = ino is not None and self.upper and is_whiteout(self.stat(ino))
            if ino is None or hidden:
                if [part for part in pending if part != b"."]:
                    raise PathNotFoundError(path, "No such file or directory")
                return Spot(path, above, name, None, tuple(step[0] for step in way), hidden)
            if self.stat(ino).is_symlink and (pending or follow):
                links += 1
                if links > MAX_SYMLINKS:
                    raise _error(path, "Too many levels of symbolic links", errno.ELOOP)
                target = self.reads.readlink(ino)
                if target.startswith(b"/"):
                    del way[1:]
                pending += [part for part in target.split(b"/") if part][::-1]
                continue
            way.append((ino, name))
        ino, name = way[-1]
        if must_be_directory and not self.stat(ino).is_dir:
            raise PathNotDirectoryError(path, "Not a directory")
        trail = tuple(step[0] for step in way[:-1])
        return Spot(path, trail[-1] if trail else ino, name, ino, trail or (ino,))

    def below(self, spot: Spot, name: bytes) -> Spot:
        """The place of a name in the directory that is at ``spot``."""
        assert spot.ino is not None
        ino = self.find(spot.ino, name)
        hidden = ino is not None and self.upper and is_whiteout(self.stat(ino))
        way = spot.way if spot.name == b"" else (*spot.way, spot.ino)
        path = spot.path.rstrip(b"/") + b"/" + name
        return Spot(path, spot.ino, name, None if hidden else ino, way, hidden)


class Editor(Tracer):
    """Changes names as a container would. Without ``upper`` they are what they are: nothing is left behind."""

    def __init__(self, filesystem: WritableFilesystem, *, upper: bool = False) -> None:
        self.filesystem = filesystem
        super().__init__(filesystem, upper=upper)
        self.upper_ino = upper_of(filesystem)
        self.whiteouts = 0
        """How many were left."""

    def outside(self, spot: Spot) -> bool:
        """Whether no container will see this place: the image has an upper/, and it lies elsewhere."""
        if self.upper or self.upper_ino is None:
            return False
        return self.upper_ino != spot.ino and self.upper_ino not in spot.way

    def hides_lower(self, way: tuple[int, ...]) -> bool:
        """Whether nothing of lower layers shows in a directory: one on the way is opaque."""
        return any(is_opaque(self.filesystem.xattrs(ino)) for ino in way)

    def leaves_whiteout(self, spot: Spot) -> bool:
        """Whether a name that goes from here must be hidden."""
        return self.upper and not self.hides_lower(spot.way)

    def clear(self, spot: Spot) -> Spot:
        """The same place without its whiteout."""
        if spot.whiteout:
            self.filesystem.unlink_at(*spot.place)
        return spot

    def make_directory(self, spot: Spot, mode: int, *, uid: int, gid: int) -> int:
        """A new directory; opaque where it takes a whiteout's place."""
        self.clear(spot)
        ino = self.filesystem.mkdir_at(*spot.place, mode, uid=uid, gid=gid)
        if spot.whiteout:
            self.make_opaque(ino)
        return ino

    def make_opaque(self, ino: int) -> None:
        for name in OPAQUE_NAMES:
            self.filesystem.set_xattr(ino, name, b"y")

    def _replacing(self, spot: Spot, remove: Callable[[], None]) -> None:
        """``remove`` what is at a place, and leave a whiteout where one is needed; it is made first, while there is room."""
        if not self.leaves_whiteout(spot):
            remove()
            return
        name = next(name for name in map(b".whiteout-%d".__mod__, count()) if self.find(spot.parent, name) is None)
        self.filesystem.mknod_at(spot.parent, name, S_IFCHR)
        try:
            remove()
        except BaseException:
            self.filesystem.unlink_at(spot.parent, name)
            raise
        self.filesystem.rename_at(spot.parent, name, *spot.place)
        self.whiteouts += 1

    def hide(self, spot: Spot) -> bool:
        """Leave a whiteout where upper/ has nothing, and a lower layer may; False where none is needed."""
        if spot.whiteout or not self.leaves_whiteout(spot):
            return False
        self._replacing(spot, lambda: None)
        return True

    def unlink(self, spot: Spot) -> None:
        """Remove a name that is no directory's."""
        if not self.leaves_whiteout(spot):
            self.filesystem.unlink_at(*spot.place)
            return
        assert spot.ino is not None
        if self.stat(spot.ino).is_dir:
            raise PathIsDirectoryError(spot.path, "Is a directory")
        self._replacing(spot, lambda: None)  # the whiteout takes the name over

    def remove_directory(self, spot: Spot) -> None:
        """Remove a directory that holds nothing, or nothing but whiteouts."""
        assert spot.ino is not None
        if self.upper and not self._visible(spot.ino):
            self._sweep(spot.ino)
        self._replacing(spot, lambda: self.filesystem.rmdir_at(*spot.place))

    def remove_tree(self, spot: Spot) -> None:
        """Remove a directory and all below it; one whiteout hides the whole."""
        self._replacing(spot, lambda: self.filesystem.remove_tree(spot.place))

    def move(self, old: Spot, new: Spot) -> None:
        """Move a name; what is at the new place is replaced. A directory shows what it holds here, and nothing of lower layers.

        Raises PathExistsError and its kin as ``WritableFilesystem.rename`` does.
        """
        assert old.ino is not None
        if new.ino is not None and old.ino == new.ino:
            return
        wanted = self.leaves_whiteout(old)
        is_dir = self.stat(old.ino).is_dir
        if is_dir and new.ino is not None and self.upper and self.stat(new.ino).is_dir and not self._visible(new.ino):
            self._sweep(new.ino)
        if is_dir and new.whiteout:
            self.filesystem.unlink_at(*new.place)
        try:
            self.filesystem.rename_at(*old.place, *new.place, whiteout=wanted)
        except BaseException:
            if is_dir and new.whiteout:
                self.filesystem.mknod_at(*new.place, S_IFCHR)
            raise
        self.whiteouts += wanted
        if is_dir and self.upper and not is_opaque(self.filesystem.xattrs(old.ino)):
            self.make_opaque(old.ino)

    def _sweep(self, directory: int) -> None:
        """Remove the whiteouts that are all a directory holds."""
        for entry in list(self.filesystem.scandir(directory)):
            self.filesystem.unlink_at(directory, entry.name)

    def _visible(self, directory: int) -> list[bytes]:
        found = self.filesystem.scandir(directory)
        return [entry.name for entry in found if not is_whiteout(self.stat(entry.ino))]


def _error(path: bytes, message: str, code: int) -> PathError:
    error = PathError(path, message)
    error.errno = code
    return error
