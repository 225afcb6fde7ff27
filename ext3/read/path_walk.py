"""Paths: from the root of an image, name by name and through symbolic links, to where they end.

Source: Linux ``fs/namei.c`` (link_path_walk, step_into).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from ..constants import NAME_MAX, ROOT_INO
from ..errors import PathError, PathNotDirectoryError, PathNotFoundError

if TYPE_CHECKING:
    from .filesystem import Filesystem

__all__ = ["MAX_COMPONENTS", "MAX_SYMLINKS", "PathEnd", "resolve"]

MAX_SYMLINKS = 40
"""As many as the kernel follows in one path."""
MAX_COMPONENTS = 4096
"""Names in one path, those of symlinks' targets included; also how deep a walk goes."""


class PathEnd(NamedTuple):
    """Where a path ends: at ``name`` in the inode ``directory``, which leads to ``ino``, or is not there (None).

    The root is b"." in itself.
    """

    directory: int
    name: bytes
    ino: int | None


def resolve(tree: Filesystem, path: bytes, *, follow: bool) -> PathEnd:
    """Where ``path`` ends. Symlinks stay inside the image, at most 40 of them; the last only if ``follow``, or before a slash.

    Raises PathNotFoundError for a directory on the way that is not there, PathNotDirectoryError, and PathError (ELOOP,
    ENAMETOOLONG).
    """
    pending = [name for name in path.split(b"/") if name][::-1]
    follow = follow or path.endswith((b"/", b"/."))
    # ".." goes back along the way that was taken: the image's own ".." is not needed.
    taken = [(b".", tree.inode(ROOT_INO))]
    links = steps = 0
    while pending:
        name = pending.pop()
        steps += 1
        if steps + len(pending) > MAX_COMPONENTS:
            raise PathError(path, "the path has too many parts", code=errno.ENAMETOOLONG)
        directory = taken[-1][1].stat
        if not directory.is_dir:
            raise PathNotDirectoryError(path, "a part of the path is not a directory")
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
                raise PathNotFoundError(path, "there is no such file in the image")
            return PathEnd(directory.ino, name, None)
        inode = tree.inode(ino)
        if inode.stat.is_symlink and (pending or follow):
            links += 1
            if links > MAX_SYMLINKS:
                raise PathError(path, "too many symbolic links", code=errno.ELOOP)
            target = tree.readlink(ino)
            if target.startswith(b"/"):
                del taken[1:]
            pending += [part for part in target.split(b"/") if part][::-1]
            continue
        taken.append((name, inode))
    name, inode = taken[-1]
    if path.endswith(b"/") and not inode.stat.is_dir:
        raise PathNotDirectoryError(path, "not a directory")
    return PathEnd(taken[max(0, len(taken) - 2)][1].stat.ino, name, inode.stat.ino)
