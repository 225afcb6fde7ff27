"""Errors of paths in a tree: in the system's words, with the path as it was given."""

from __future__ import annotations

import errno
import os

from ..errors import SifkitError, show

__all__ = [
    "LOWER_CONTENT",
    "DamagedTreeError",
    "LowerContentError",
    "MissingLowerError",
    "MissingPathError",
    "NotDirectoryPathError",
    "TreePathError",
    "bad_mode_error",
    "path_error",
    "reason_of",
    "unreadable_attributes",
]

EUCLEAN = getattr(errno, "EUCLEAN", errno.EIO)
_KINDS = {
    errno.ENOENT: "not-found",
    errno.ENOTDIR: "not-a-directory",
    errno.EISDIR: "is-a-directory",
    errno.EEXIST: "exists",
}


class TreePathError(SifkitError, OSError):
    """Path in a tree that cannot be used; None: the tree itself. ``reason`` is the text without the path; ``kind`` depends on
    ``errno``."""

    def __init__(self, path: bytes | None, number: int, reason: str = "") -> None:
        self.reason = reason or os.strerror(number)
        super().__init__(self.reason if path is None else f"{show(path)}: {self.reason}", path=path)
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

    def __init__(self, path: bytes | None, reason: str) -> None:
        super().__init__(path, EUCLEAN, reason)
        self.kind = "corrupt"


def bad_mode_error(mode: int) -> DamagedTreeError:
    """Return the error of a file whose mode has no type, or another one than its directory entry says."""
    return DamagedTreeError(None, f"the image is damaged: its mode is {mode:#o}, want what its entry says")


LOWER_CONTENT = "its content is in a lower layer"


class LowerContentError(TreePathError):
    """File whose content is in a lower layer, so that it cannot be read or moved here. ``inside``: it is below ``path``."""

    def __init__(self, path: bytes | None, *, inside: bytes | None = None) -> None:
        super().__init__(path, errno.EINVAL, LOWER_CONTENT if inside is None else f"{show(inside)}: {LOWER_CONTENT}")
        self.kind = "lower-layer"
        self.hint = "do it in the container, which has that layer"


class MissingLowerError(LowerContentError):
    """File or directory whose lower one, renamed since, is ``lower`` in layers that are not here, or in none."""

    def __init__(self, path: bytes | None, lower: bytes) -> None:
        super().__init__(path)
        self.reword(f"{self.message}, which has it as {show(lower)}: it is not there")
        self.reason = self.message
        self.hint = "give all images that lie below it"


_CLASSES: dict[int, type[TreePathError]] = {errno.ENOENT: MissingPathError, errno.ENOTDIR: NotDirectoryPathError}


def path_error(path: bytes, number: int) -> TreePathError:
    """Return the error of a path for an errno."""
    return _CLASSES.get(number, TreePathError)(path, number)


def reason_of(error: OSError) -> str:
    """Return the text of an error for a message that names the path itself."""
    return error.reason if isinstance(error, TreePathError) else error.strerror or str(error)


def unreadable_attributes(error: OSError) -> str:
    """Return the text of an error of reading xattrs, for a file that is copied without them."""
    return f"its extended attributes cannot be read: {reason_of(error)}"
