"""Path resolution in an image: components, symbolic links and ``..``.

Source: Linux ``fs/namei.c`` (link_path_walk, step_into).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from ..constants import NAME_MAX, ROOT_INO
from ..errors import PathError, PathNotDirectoryError, PathNotFoundError

if TYPE_CHECKING:
    from .filesystem import Filesystem

__all__ = ["MAX_COMPONENTS", "MAX_SYMLINKS", "AnyPath", "PathEnd", "path_bytes", "resolve"]

MAX_SYMLINKS = 40
"""Most symlinks followed in one path, as in the kernel."""
MAX_COMPONENTS = 4096
"""Most names in one path, including symlink targets; also the depth limit of a walk."""


AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path in an image, from its root. Text is UTF-8, with surrogate escapes for other bytes, on any host."""


def path_bytes(path: AnyPath) -> bytes:
    """Return a path as bytes. Raise TypeError for what is no path."""
    plain = os.fspath(path)
    return plain.encode("utf-8", "surrogateescape") if isinstance(plain, str) else plain


class PathEnd(NamedTuple):
    """End of a path: the entry ``name`` of inode ``directory``, and its inode ``ino``, None if it does not exist.

    The root is b"." in itself.
    """

    directory: int
    name: bytes
    ino: int | None


def resolve(tree: Filesystem, path: bytes, *, follow: bool) -> PathEnd:
    """Resolve ``path``. Follows at most 40 symlinks, inside the image; a last one only if ``follow``, or before a slash.

    Raise PathNotFoundError if a parent directory does not exist, PathNotDirectoryError, PathError (ELOOP,
    ENAMETOOLONG).
    """
    pending = [name for name in path.split(b"/") if name][::-1]
    follow = follow or path.endswith((b"/", b"/."))
    # ".." returns to the directory the walk came from; the ".." on disk is not used.
    taken = [(b".", tree.inode(ROOT_INO))]
    links = steps = 0
    while pending:
        name = pending.pop()
        steps += 1
        if steps + len(pending) > MAX_COMPONENTS:
            raise PathError(path, "File name too long", code=errno.ENAMETOOLONG)
        directory = taken[-1][1].stat
        if not directory.is_dir:
            raise PathNotDirectoryError(path, "Not a directory")
        if name == b".":
            continue
        if name == b"..":
            if len(taken) > 1:
                taken.pop()
            continue
        if len(name) > NAME_MAX:
            raise PathError(path, "File name too long", code=errno.ENAMETOOLONG)
        ino = tree.find_name(directory.ino, name)
        if ino is None:
            if pending:
                raise PathNotFoundError(path, "No such file or directory")
            return PathEnd(directory.ino, name, None)
        inode = tree.inode(ino)
        if inode.stat.is_symlink and (pending or follow):
            links += 1
            if links > MAX_SYMLINKS:
                raise PathError(path, "Too many levels of symbolic links", code=errno.ELOOP)
            target = tree.readlink(ino)
            if target.startswith(b"/"):
                del taken[1:]
            pending += [part for part in target.split(b"/") if part][::-1]
            continue
        taken.append((name, inode))
    name, inode = taken[-1]
    if path.endswith(b"/") and not inode.stat.is_dir:
        raise PathNotDirectoryError(path, "Not a directory")
    return PathEnd(taken[max(0, len(taken) - 2)][1].stat.ino, name, inode.stat.ino)
