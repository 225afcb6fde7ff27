"""Trouble has four kinds: the image is wrong, the image is not ours, the caller is wrong, the device failed.

Every class carries its facts as attributes; the text is made from them once. ``kind`` is a stable word for machines
(it ends up in ``--json`` errors), ``hint`` says what to do next and may be empty.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

__all__ = [
    "CHECK_HINT",
    "ContentChangedError",
    "CorruptError",
    "DeviceError",
    "Ext3Error",
    "GeometryError",
    "JournalFullError",
    "NeedsCheckError",
    "NoFreeInodesError",
    "NoInodesError",
    "NoSpaceError",
    "NotExt3Error",
    "PathError",
    "PathExistsError",
    "PathIsDirectoryError",
    "PathNotDirectoryError",
    "PathNotEmptyError",
    "PathNotFoundError",
    "SourceError",
    "UnsupportedError",
    "XattrError",
]


CHECK_HINT = "e2fsck -f finds and repairs what is wrong"
"""What to do with an image that is damaged."""


def show(name: bytes | str) -> str:
    """A path or name as text for a message: bytes that are not UTF-8 and control characters are escaped."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Ext3Error(Exception):
    """Base of everything this package raises on purpose."""

    kind = "ext3"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # From one process to another: facts are attributes, and the constructors of the kinds differ.
        return _rebuild, (type(self), self.args, self.__dict__, getattr(self, "errno", None))


def _rebuild(kind: type[Ext3Error], args: tuple[object, ...], facts: dict[str, object], number: int | None) -> Ext3Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    if isinstance(error, OSError):
        error.errno = number
    return error


class CorruptError(Ext3Error):
    """The image contradicts the format: ``where`` it does, in which ``field``, what it says and what it should."""

    kind = "corrupt"

    def __init__(self, where: str, field: str, got: object, want: object) -> None:
        super().__init__(f"{where}: {field} is {got}, want {want}")
        self.where = where
        self.field = field
        self.got = got
        self.want = want


class NotExt3Error(Ext3Error):
    """There is no ext2/ext3 superblock where one should be."""

    kind = "not-ext3"


class UnsupportedError(Ext3Error):
    """A valid filesystem with features this package does not read or write; they are named in ``features``."""

    kind = "unsupported"

    def __init__(self, features: Iterable[str], *, hint: str = "") -> None:
        self.features = tuple(features)
        super().__init__(f"filesystem features that are not ext3: {', '.join(self.features)}", hint=hint)


class DeviceError(Ext3Error, OSError):
    """Reading or writing the device failed, or would leave its window."""

    kind = "io"

    def __init__(self, message: str, *, error: OSError | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = error.errno if error else errno.EIO


class GeometryError(Ext3Error, ValueError):
    """The numbers asked for (size, block size, inodes, journal ...) make no filesystem."""

    kind = "geometry"


class NoSpaceError(Ext3Error, OSError):
    """The content does not fit. ``needed_bytes`` is the smallest size found to hold it."""

    kind = "no-space"

    def __init__(self, message: str, *, needed_bytes: int, available_bytes: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = errno.ENOSPC
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class NoInodesError(Ext3Error, OSError):
    """More files than inodes."""

    kind = "no-inodes"

    def __init__(self, *, needed: int, available: int, enough: int) -> None:
        """``enough``: a count to ask for that surely suffices after rounding to whole groups."""
        super().__init__(
            f"the content needs {needed:,} inodes and the filesystem has {available:,}",
            hint=f"give -N {enough}, or leave -N, -i and --profile out",
        )
        self.errno = errno.ENOSPC
        self.needed = needed
        self.available = available
        self.enough = enough


class NoFreeInodesError(Ext3Error, OSError):
    """An open image has no inode left for one more file."""

    kind = "no-inodes"

    def __init__(self, inodes_count: int) -> None:
        super().__init__(
            f"all {inodes_count:,} inodes of the image are in use", hint="remove files, or make an image with more inodes"
        )
        self.errno = errno.ENOSPC
        self.inodes_count = inodes_count


class JournalFullError(Ext3Error):
    """One operation changes more blocks (``needed``) than a transaction of this journal holds (``capacity``)."""

    kind = "journal-full"

    def __init__(self, needed: int, capacity: int) -> None:
        super().__init__(
            f"a single change of {needed} blocks or more does not fit the journal, which takes {capacity} at once",
            hint="do it in smaller steps",
        )
        self.needed = needed
        self.capacity = capacity


class NeedsCheckError(Ext3Error):
    """The image is marked as damaged, or as never put in order: it is not changed before it was checked."""

    kind = "needs-check"

    def __init__(self, why: str) -> None:
        super().__init__(f"the filesystem {why}: run a check first", hint=CHECK_HINT)


class PathError(Ext3Error, OSError):
    """A path inside the image is missing or of the wrong type; see the subclasses. ``code``: errno, unless the kind's own."""

    kind = "path"
    code = errno.EINVAL

    def __init__(self, path: bytes | str, message: str, *, code: int | None = None) -> None:
        super().__init__(f"{show(path)}: {message}", path=path)
        self.errno = self.code if code is None else code


class PathNotFoundError(PathError, FileNotFoundError):
    kind = "not-found"
    code = errno.ENOENT


class PathNotDirectoryError(PathError, NotADirectoryError):
    kind = "not-a-directory"
    code = errno.ENOTDIR


class PathIsDirectoryError(PathError, IsADirectoryError):
    kind = "is-a-directory"
    code = errno.EISDIR


class PathExistsError(PathError, FileExistsError):
    kind = "exists"
    code = errno.EEXIST


class PathNotEmptyError(PathError):
    kind = "not-empty"
    code = errno.ENOTEMPTY


class SourceError(Ext3Error, OSError):
    """Something on the host, or in an archive, cannot be taken in; ``path`` names it."""

    kind = "source"

    def __init__(self, path: bytes | str, message: str, *, error: OSError | None = None, hint: str = "") -> None:
        super().__init__(f"{show(path)}: {message}", path=path, hint=hint)
        self.errno = error.errno if error else errno.EINVAL


class ContentChangedError(SourceError):
    """A file changed while it was read, and again when it was read once more."""

    kind = "changed"


class XattrError(SourceError):
    """An extended attribute that ext3 cannot hold."""

    kind = "xattr"
