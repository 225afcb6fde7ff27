"""Errors of paths in a tree: in the system's words, with the path as it was given."""

from __future__ import annotations

import errno
import os

from ..errors import SifkitError, show

__all__ = ["DamagedTreeError", "MissingPathError", "NotDirectoryPathError", "TreePathError", "path_error"]

EUCLEAN = getattr(errno, "EUCLEAN", errno.EIO)
_KINDS = {
    errno.ENOENT: "not-found",
    errno.ENOTDIR: "not-a-directory",
    errno.EISDIR: "is-a-directory",
    errno.EEXIST: "exists",
}


class TreePathError(SifkitError, OSError):
    """Path in a tree that cannot be used. ``reason`` is the text without the path; ``kind`` depends on ``errno``."""

    def __init__(self, path: bytes, number: int, reason: str = "") -> None:
        self.reason = reason or os.strerror(number)
        super().__init__(f"{show(path)}: {self.reason}", path=path)
        self.errno = number
        self.kind = _KINDS.get(number, "path")

    def reword(self, message: str) -> None:
        """Say it in the words of the command that was given."""
        self.message = message


class MissingPathError(TreePathError, FileNotFoundError):
    """Path that does not exist (ENOENT)."""


class NotDirectoryPathError(TreePathError, NotADirectoryError):
    """Path through a file that is not a directory, or to one where a directory is needed (ENOTDIR)."""


class DamagedTreeError(TreePathError):
    """Contradiction in a tree that no file of it can be blamed for: a directory in two places, shared blocks (EUCLEAN)."""

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(path, EUCLEAN, reason)
        self.kind = "corrupt"


_CLASSES: dict[int, type[TreePathError]] = {errno.ENOENT: MissingPathError, errno.ENOTDIR: NotDirectoryPathError}


def path_error(path: bytes, number: int) -> TreePathError:
    """Return the error of a path for an errno."""
    return _CLASSES.get(number, TreePathError)(path, number)
