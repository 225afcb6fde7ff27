"""Path arguments of a writable filesystem, resolved to a directory inode and a name, with the kernel's checks.

A path that ends in a slash must be a directory's. Source: Linux
``fs/namei.c`` (filename_create, open_last_lookups, do_unlinkat, do_renameat2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import PathError, PathIsDirectoryError, PathNotDirectoryError, PathNotFoundError
from ..read.filesystem import Filesystem, PathOrIno
from ..read.path_walk import AnyPath, PathEnd, path_bytes, resolve
from . import namei
from .inode_cache import InodeCache

__all__ = ["PathArguments", "errors_name"]


class PathArguments:
    """Resolves the paths of one filesystem, ``tree``, whose inodes are edited in ``nodes``."""

    def __init__(self, tree: Filesystem, nodes: InodeCache) -> None:
        self._tree = tree
        self._nodes = nodes

    def resolve_parent(self, path: AnyPath) -> tuple[int, bytes]:
        """Return (directory, name) of a path. The name may be "." or "..", and is b"." for the root."""
        whole = path_bytes(path)
        above, _, name = whole.rstrip(b"/").rpartition(b"/")
        if not whole:
            raise PathNotFoundError(whole, "No such file or directory")
        found = self._nodes.parents.get(above)
        if found is None:
            found = self.resolve(above, True)
            if not self._tree.inode(found).stat.is_dir:
                raise PathNotDirectoryError(whole, "Not a directory")
            self._nodes.parents[above] = found
        return found, name or b"."

    def for_create(self, path: AnyPath) -> tuple[int, bytes]:
        """Return (directory, name) of a new entry that is not a directory."""
        found = self.resolve_parent(path)
        if _ends_in_slash(path) and namei.find(self._nodes, *found) is None:
            raise PathNotFoundError(path_bytes(path), "No such file or directory")
        return found

    def for_remove(self, path: AnyPath) -> tuple[int, bytes]:
        """Return (directory, name) of an entry to remove or to rename."""
        found = self.resolve_parent(path)
        if _ends_in_slash(path):
            self._check_directory(found, path)
        return found

    def for_rename(self, path: AnyPath, source: tuple[int, bytes], *, replace: bool) -> tuple[int, bytes]:
        """Return (directory, name) that ``source`` is renamed to. Raise PathExistsError if it exists, unless ``replace``."""
        found = self.resolve_parent(path)
        if _ends_in_slash(path) and (replace or namei.find(self._nodes, *found) is None):
            self._check_directory(source, path)
        return found

    def for_create_file(self, path: AnyPath) -> tuple[int, bytes]:
        """Return (directory, name) of a new regular file."""
        found = self.resolve_parent(path)
        if _ends_in_slash(path):
            raise PathIsDirectoryError(path_bytes(path), "Is a directory")
        return found

    def for_open(self, path: AnyPath) -> PathEnd:
        """Return the end of the path of a file to open or create. Follows symbolic links, as open(2) does."""
        directory, name = self.for_create_file(path)
        ino = namei.find(self._nodes, directory, name)
        if ino is not None and self._tree.inode(ino).stat.is_symlink:
            return resolve(self._tree, path_bytes(path), follow=True)
        return PathEnd(directory, name, ino)

    def resolve(self, path_or_ino: PathOrIno, follow: bool) -> int:
        """Return the inode of a path. Raise PathNotFoundError."""
        if isinstance(path_or_ino, int):
            return path_or_ino
        found = resolve(self._tree, path_bytes(path_or_ino), follow=follow).ino
        if found is None:
            raise PathNotFoundError(path_bytes(path_or_ino), "No such file or directory")
        return found

    def _check_directory(self, found: tuple[int, bytes], path: AnyPath) -> None:
        """Raise PathNotDirectoryError if the entry ``found`` exists and is not a directory."""
        ino = namei.find(self._nodes, *found)
        if ino is not None and not self._tree.inode(ino).stat.is_dir:
            raise PathNotDirectoryError(path_bytes(path), "Not a directory")


def _ends_in_slash(path: AnyPath) -> bool:
    return path_bytes(path).endswith(b"/")


@contextmanager
def errors_name(*paths: PathOrIno) -> Iterator[None]:
    """Replace the last component of one of ``paths`` by the whole path in PathErrors raised inside."""
    try:
        yield
    except PathError as error:
        for path in paths:
            if not isinstance(path, int) and error.path is not None:
                last = path_bytes(path).rstrip(b"/").rpartition(b"/")[2] or b"."
                if error.path == last or (len(paths) == 1 and error.ino is not None):
                    error.rename(path_bytes(path))
                    break
        raise
