"""Errors above the file formats: invalid requests, target files that cannot be created, images in use.

As in ``ext3.errors`` each class carries its facts, and the message is made from them once. ``kind`` is a stable word for
programs, ``hint`` says what to do next (may be empty), ``exit_code`` is for the command line. ``human``, ``counted``, ``show``
and ``shell_quote`` format sizes, numbers and names in messages.
"""

from __future__ import annotations

import errno

__all__ = [
    "IN_USE_HINT",
    "FormatError",
    "HostFullError",
    "ImageChangedError",
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
    "shell_quote",
    "show",
]

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def show(name: bytes | str) -> str:
    """Format a path or name as one line of text: control characters and bytes that are not UTF-8 are escaped."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shell_quote(text: str) -> str:
    """Quote a name for a shell, as one line that is never taken for an option."""
    import shlex

    return show(shlex.quote(f"./{text}" if text.startswith("-") else text))


def human(size: int) -> str:
    """Format a size in bytes in powers of 1024, with at most one decimal: 512 bytes, 1.5 GiB, 500 MiB."""
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
    """Format a number of things: ``counted(1, "file")`` is "1 file", ``counted(2000, "file")`` "2,000 files"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


class SifkitError(Exception):
    """Base of the errors this package raises. ``path``: the file concerned, if there is one."""

    kind = "failed"
    exit_code = 1

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint
        self._names_path = path is not None and show(path) in message

    def set_path(self, path: bytes | str) -> None:
        """Name the file concerned in the message, unless it names that or another."""
        if self.path in (None, path) and not self._names_path:
            self.path = path
            self.message = f"{show(path)}: {self.message}"
            self._names_path = True

    def append(self, text: str) -> None:
        """Append to the message."""
        self.message += text

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Between processes: facts are attributes, and constructors differ from class to class.
        return _rebuild, (type(self), self.args, self.__dict__, getattr(self, "errno", None))


def _rebuild(kind: type[SifkitError], args: tuple[object, ...], facts: dict[str, object], number: int | None) -> SifkitError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    if isinstance(error, OSError):
        error.errno = number
    return error


class UsageError(SifkitError):
    """Invalid request, whatever the files are."""

    kind = "usage"
    exit_code = 2


class LayoutError(UsageError):
    """Source whose layout is ambiguous."""

    kind = "layout"


class NotYetError(UsageError):
    """Request that this release does not support; the hint says what does."""

    kind = "not-yet"


class InputError(SifkitError, OSError):
    """File given beside the image (a list of patterns) that cannot be read. ``kind`` depends on ``errno``."""

    kind = "io"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", error: OSError) -> None:
        super().__init__(message, path=path, hint=hint)
        self.errno = error.errno


class OutputError(SifkitError):
    """Failed write to standard output."""

    kind = "io"


class FormatError(SifkitError):
    """File of another format than the command works on; ``message`` says which."""

    kind = "format"


class TruncatedError(FormatError):
    """File that is shorter than the filesystem in it, or has no room for it at ``offset``."""

    kind = "truncated"

    def __init__(self, path: bytes | str, *, needed_bytes: int, available_bytes: int, offset: int = 0) -> None:
        text = f"{show(path)} is truncated: the filesystem has {human(needed_bytes)}, the file {human(available_bytes)}"
        if offset:
            room = f"there are {human(available_bytes)} up to the end of the partition or file"
            text = f"{show(path)}: the filesystem at byte {offset} has {human(needed_bytes)}, and {room}"
        super().__init__(text, path=path, hint="download or copy it again")
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class TargetError(SifkitError, OSError):
    """Target file that cannot be created: the directory is missing or not writable, the target is a directory."""

    kind = "target"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", error: OSError | None = None) -> None:
        super().__init__(message, path=path, hint=hint)
        self.errno = error.errno if error else errno.EINVAL


class HostFullError(TargetError):
    """Target whose filesystem on the host has no space left: ``needed_bytes`` at most, ``available_bytes`` if known."""

    kind = "no-space"

    def __init__(
        self,
        message: str,
        *,
        path: bytes | str,
        hint: str,
        needed_bytes: int,
        available_bytes: int | None,
        error: OSError,
    ) -> None:
        super().__init__(message, path=path, hint=hint, error=error)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class NotReplaceableError(TargetError):
    """Target that exists and may not be replaced."""

    kind = "not-replaceable"


class ImageChangedError(SifkitError):
    """Image that another process wrote to while it was read, so that what was read is of no single moment."""

    kind = "changed"


IN_USE_HINT = "wait for it with --wait SECONDS, or stop the container that uses it"


class ImageInUseError(SifkitError):
    """Image that another process has locked or mounted. ``holders``: the processes, as far as known.

    ``locked``: a lock says so, which does not tell whose it is. ``may_pass``: it may be that of a file that was just closed.
    """

    kind = "in-use"

    def __init__(
        self,
        message: str,
        *,
        path: bytes | str | None = None,
        hint: str = "",
        holders: tuple[str, ...] = (),
        locked: bool = False,
        may_pass: bool = False,
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.holders = holders
        self.locked = locked
        self.may_pass = may_pass
