"""What goes wrong above the file formats: the request, the target file, somebody else using it.

Like ``ext3.errors``: each class carries its facts, the text is made once, ``kind`` is a stable word for machines, ``hint``
says what to do next (it may be empty). ``exit_code`` is what the command line exits with.
"""

from __future__ import annotations

import errno

__all__ = [
    "FormatError",
    "ImageInUseError",
    "LayoutError",
    "NotReplaceableError",
    "NotYetError",
    "OutputError",
    "SifkitError",
    "TargetError",
    "UsageError",
    "show",
]


def show(name: bytes | str) -> str:
    """A path or name as one line of text: what is not UTF-8 and control characters are escaped."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class SifkitError(Exception):
    """Base of everything this package raises on purpose. ``path``: the file concerned, where there is one."""

    kind = "failed"
    exit_code = 1

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(SifkitError):
    """The request makes no sense, whatever the files are."""

    kind = "usage"
    exit_code = 2


class LayoutError(UsageError):
    """The source can be meant in two ways and nothing says which."""

    kind = "layout"


class NotYetError(UsageError):
    """A request this release does not serve; the hint says what does."""

    kind = "not-yet"


class OutputError(SifkitError):
    """What was asked for could not be written to standard output."""

    kind = "io"


class FormatError(SifkitError):
    """The file is not what the command works on; ``message`` says what it is."""

    kind = "format"


class TargetError(SifkitError, OSError):
    """The file to be made cannot be made there: directory missing or not writable, a directory in its place ..."""

    kind = "target"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", error: OSError | None = None) -> None:
        super().__init__(message, path=path, hint=hint)
        self.errno = error.errno if error else errno.EINVAL


class NotReplaceableError(TargetError):
    """The target exists, and is nothing that may be replaced."""

    kind = "not-replaceable"


class ImageInUseError(SifkitError):
    """Another process holds a lock on the image, or it is mounted. ``holders`` names who, as far as one can see."""

    kind = "in-use"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", holders: tuple[str, ...] = ()) -> None:
        super().__init__(message, path=path, hint=hint)
        self.holders = holders
