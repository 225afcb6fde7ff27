"""What goes wrong above the file formats: the request, the target file, somebody else using it.

Like ``ext3.errors``: each class carries its facts, the text is made once, ``kind`` is a stable word for machines, ``hint``
says what to do next (it may be empty). ``exit_code`` is what the command line exits with. Numbers in texts: ``human`` for
sizes, ``counted`` for things.
"""

from __future__ import annotations

import errno

__all__ = [
    "FormatError",
    "ImageInUseError",
    "InputError",
    "LayoutError",
    "NotReplaceableError",
    "NotYetError",
    "OutputError",
    "SifkitError",
    "TargetError",
    "TruncatedError",
    "UsageError",
    "counted",
    "human",
    "show",
]

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def show(name: bytes | str) -> str:
    """A path or name as one line of text: what is not UTF-8 and control characters are escaped."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def human(size: int) -> str:
    """``size`` bytes in powers of 1024, at most one decimal: 512 bytes, 1.5 GiB, 500 MiB."""
    value = float(size)
    for unit in UNITS:
        if round(value, 1) < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    if unit == "bytes":
        return f"{size} bytes" if size != 1 else "1 byte"
    text = f"{value:.1f}".removesuffix(".0")
    return f"{text} {unit}"


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things: ``counted(1, "file")`` is "1 file", of 2000 "2,000 files"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


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


class InputError(SifkitError, OSError):
    """A file named beside the image (a list of patterns) cannot be read. ``kind`` follows from the system's answer."""

    kind = "io"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", error: OSError) -> None:
        super().__init__(message, path=path, hint=hint)
        self.errno = error.errno


class OutputError(SifkitError):
    """What was asked for could not be written to standard output."""

    kind = "io"


class FormatError(SifkitError):
    """The file is not what the command works on; ``message`` says what it is."""

    kind = "format"


class TruncatedError(FormatError):
    """The file is shorter than the filesystem in it."""

    kind = "truncated"

    def __init__(self, path: bytes | str, *, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(
            f"{show(path)} is cut short: its filesystem has {human(needed_bytes)}, the file {human(available_bytes)}",
            path=path,
            hint="fetch or copy it again",
        )
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


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
