"""Where changes are made: paths, and names in directories, as the calls of an open image take them.

A path that ends in a slash is a directory's: nothing else is made, taken away or moved there. Source: Linux
``fs/namei.c`` (filename_create, open_last_lookups, do_unlinkat, do_renameat2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import PathError, PathIsDirectoryError, PathNotDirectoryError, PathNotFoundError, show
from ..read.path_walk import PathEnd, Tree, resolve
from . import namei as names
from .inode_cache import Nodes

__all__ = ["Place", "Places", "Target", "speaking_of"]

Place = bytes | str | tuple[int, bytes]
"""Where a name is, or shall be: a path, or the inode of a directory and the name in it."""
Target = Place | int
"""What is to be changed: a path, a place, or an inode."""


class Places:
    """The places of one filesystem, ``tree``, whose inodes are edited in ``nodes``."""

    def __init__(self, tree: Tree, nodes: Nodes) -> None:
        self._tree = tree
        self._nodes = nodes

    def of(self, place: Place) -> tuple[int, bytes]:
        """(directory, name) of a place; the name may be "." or "..", and is b"." for the root."""
        if isinstance(place, tuple):
            return place
        whole = place.encode("utf-8", "surrogateescape") if isinstance(place, str) else place
        above, _, name = whole.rstrip(b"/").rpartition(b"/")
        if not whole:
            raise PathNotFoundError(whole, "No such file or directory")
        found = self._nodes.parents.get(above)
        if found is None:
            found = self.ino(above, True)
            if not self._tree.inode(found).stat.is_dir:
                raise PathNotDirectoryError(whole, "a part of the path is not a directory")
            self._nodes.parents[above] = found
        return found, name or b"."

    def to_make(self, place: Place) -> tuple[int, bytes]:
        """The place of something new that is no directory."""
        found = self.of(place)
        if _ends_in_slash(place) and names.find(self._nodes, *found) is None:
            raise PathNotFoundError(_text(place), "No such file or directory")
        return found

    def to_take(self, place: Place) -> tuple[int, bytes]:
        """The place of something that leaves it."""
        found = self.of(place)
        if _ends_in_slash(place):
            self._check_directory(found, place)
        return found

    def to_move_to(self, place: Place, source: tuple[int, bytes], *, replace: bool) -> tuple[int, bytes]:
        """The place that what is at ``source`` is to have; what is there already may be in the way unless ``replace``."""
        found = self.of(place)
        if _ends_in_slash(place) and (replace or names.find(self._nodes, *found) is None):
            self._check_directory(source, place)
        return found

    def to_make_file(self, place: Place) -> tuple[int, bytes]:
        """The place of a new file."""
        found = self.of(place)
        if _ends_in_slash(place):
            raise PathIsDirectoryError(_text(place), "Is a directory")
        return found

    def to_fill(self, place: Place) -> PathEnd:
        """Where a file is, or is made, that a path leads to: behind a symbolic link too, as open(2) has it."""
        directory, name = self.to_make_file(place)
        ino = names.find(self._nodes, directory, name)
        if ino is not None and not isinstance(place, tuple) and self._tree.inode(ino).stat.is_symlink:
            return resolve(self._tree, _text(place), follow=True)
        return PathEnd(directory, name, ino)

    def ino(self, target: Target, follow: bool) -> int:
        """The inode of what is to be changed. A name in a directory is never followed."""
        if isinstance(target, int):
            return target
        if isinstance(target, tuple):
            found = names.find(self._nodes, *target)
        else:
            found = resolve(self._tree, _text(target), follow=follow).ino
        if found is None:
            raise PathNotFoundError(_text(target), "No such file or directory")
        return found

    def _check_directory(self, found: tuple[int, bytes], place: Place) -> None:
        """What is at ``found``, if anything, is a directory, as ``place`` says."""
        ino = names.find(self._nodes, *found)
        if ino is not None and not self._tree.inode(ino).stat.is_dir:
            raise PathNotDirectoryError(_text(place), "Not a directory")


def _text(place: Place) -> bytes:
    """The path; of a name in a directory, the name."""
    if isinstance(place, tuple):
        return place[1]
    return place.encode("utf-8", "surrogateescape") if isinstance(place, str) else place


def _ends_in_slash(place: Place) -> bool:
    if isinstance(place, str):
        return place.endswith("/")
    return isinstance(place, bytes) and place.endswith(b"/")


@contextmanager
def speaking_of(*places: Target) -> Iterator[None]:
    """Errors name whole paths."""
    try:
        yield
    except PathError as error:
        for place in places:
            if isinstance(place, bytes | str) and error.path is not None:
                said = show(error.path)
                last = _text(place).rstrip(b"/").rpartition(b"/")[2] or b"."
                if error.path == last or (len(places) == 1 and said.startswith("inode ")):
                    error.path = place
                    error.message = show(place) + error.message[len(said) :]
                    error.args = (error.message,)
                    break
        raise
