"""Errors: the image is damaged, the image is unsupported, the caller is wrong, or the device failed.

Every class carries its facts as attributes; the text is made from them. ``kind`` is a stable word for programs. ``hint`` says
what to do next, if that does not depend on the program around this package; else it is empty, and the facts say enough.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
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
    "TooLargeError",
    "TooSmallError",
    "UndoError",
    "UnsupportedError",
    "XattrError",
]


EUCLEAN = getattr(errno, "EUCLEAN", errno.EIO)
"""Errno of a damaged filesystem; only Linux has it."""


def show(name: bytes | str) -> str:
    """Return a path or name as text for a message: bytes that are not UTF-8 and control characters are escaped."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Ext3Error(Exception):
    """Base of all errors of this package."""

    kind = "ext3"
    needs_check = False
    """True if a check of the filesystem finds what is wrong, and may repair it."""

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Between processes: facts are attributes, and constructors differ from class to class.
        return _rebuild, (type(self), self.args, self.__dict__, getattr(self, "errno", None))


def _rebuild(kind: type[Ext3Error], args: tuple[object, ...], facts: dict[str, object], number: int | None) -> Ext3Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(facts)
    if isinstance(error, OSError):
        error.errno = number
    return error


class CorruptError(Ext3Error, OSError):
    """Contradiction of the format: ``where``, in which ``field``, the value there and the values allowed. EUCLEAN."""

    kind = "corrupt"
    needs_check = True

    def __init__(self, where: str, field: str, got: object, want: object) -> None:
        super().__init__(f"{where}: {field} is {got}, want {want}")
        self.errno = EUCLEAN
        self.where = where
        self.field = field
        self.got = got
        self.want = want


class NotExt3Error(Ext3Error):
    """No ext2/ext3 superblock where one should be. ``backup``: (block, block size) of a copy, if there is one."""

    kind = "not-ext3"

    def __init__(self, message: str, *, hint: str = "", backup: tuple[int, int] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.backup = backup


class UnsupportedError(Ext3Error, OSError):
    """Valid filesystem with ``features`` that this package does not read or write. EOPNOTSUPP."""

    kind = "unsupported"

    def __init__(self, features: Iterable[str], *, hint: str = "") -> None:
        self.features = tuple(features)
        super().__init__(f"filesystem features that are not ext3: {', '.join(self.features)}", hint=hint)
        self.errno = errno.EOPNOTSUPP


class DeviceError(Ext3Error, OSError):
    """Failed read or write of the device, or one that would leave its window."""

    kind = "io"

    def __init__(self, message: str, *, error: OSError | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = error.errno if error else errno.EIO


class CheckpointError(DeviceError):
    """Failed write after the commit: the change is done, and opening the image for writing completes it from the journal."""

    committed = True

    def __init__(self, cause: DeviceError) -> None:
        super().__init__(
            f"{cause.message}; the change is done, and is completed when the image is next opened for writing",
            error=cause,
            hint=cause.hint,
        )


class GeometryError(Ext3Error, ValueError):
    """Numbers that make no filesystem.

    ``field`` names the one to change: "size", "block_size", "inode_size", "inodes", "inode_ratio", "reserved_percent",
    "reserved_blocks", "journal" or "label". ``least`` and ``most`` bound it where that is known (sizes and the journal in
    bytes).
    """

    kind = "geometry"

    def __init__(self, message: str, *, field: str, least: int | None = None, most: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.least = least
        self.most = most


class TooSmallError(GeometryError):
    """Size below the smallest one of a filesystem (``least``), which is that of its content, its journal and its metadata."""

    kind = "too-small"
    least: int

    def __init__(self, message: str, *, least: int, content_bytes: int, journal_bytes: int) -> None:
        super().__init__(message, field="size", least=least)
        self.content_bytes = content_bytes
        self.journal_bytes = journal_bytes


class NoSpaceError(Ext3Error, OSError):
    """Content that does not fit. ``needed_bytes`` is the smallest size found to hold it."""

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
        """``enough``: a count that suffices after rounding to whole groups."""
        super().__init__(f"the content needs {needed:,} inodes and the filesystem has {available:,}")
        self.errno = errno.ENOSPC
        self.needed = needed
        self.available = available
        self.enough = enough


class NoFreeInodesError(Ext3Error, OSError):
    """Open image without a free inode."""

    kind = "no-inodes"

    def __init__(self, inodes_count: int) -> None:
        super().__init__(
            f"all {inodes_count:,} inodes of the image are in use", hint="remove files, or make an image with more inodes"
        )
        self.errno = errno.ENOSPC
        self.inodes_count = inodes_count


class JournalFullError(Ext3Error):
    """Operation that changes more blocks (``needed``) than a transaction of this journal holds (``capacity``)."""

    kind = "journal-full"

    def __init__(self, needed: int, capacity: int) -> None:
        super().__init__(
            f"a single change of {needed} blocks or more does not fit the journal, which takes {capacity} at once",
            hint="do it in smaller steps",
        )
        self.needed = needed
        self.capacity = capacity


class NeedsCheckError(Ext3Error):
    """Image that is marked as damaged or as not cleanly unmounted, and must be checked before it is changed."""

    kind = "needs-check"
    needs_check = True

    def __init__(self, why: str) -> None:
        super().__init__(f"the filesystem {why}")


class UndoError(Ext3Error):
    """Undo file that cannot be used, or is not of this image as it is. Nothing was written."""

    kind = "undo"


class PathError(Ext3Error, OSError):
    """Path in the image that is missing or of the wrong type. ``reason`` is the text without the path; ``code``: errno.

    ``ino`` is set if the caller gave an inode number instead of a path.
    """

    kind = "path"
    code = errno.EINVAL

    def __init__(
        self,
        path: bytes | str | os.PathLike[str] | os.PathLike[bytes] | int,
        message: str,
        *,
        code: int | None = None,
    ) -> None:
        self.ino = path if isinstance(path, int) else None
        text = f"inode {path}" if isinstance(path, int) else os.fspath(path)
        super().__init__(f"{show(text)}: {message}", path=text)
        self.reason = message
        self.errno = self.code if code is None else code

    def rename(self, path: bytes | str) -> None:
        """Name another path: the one the caller gave, where the error was found at a part of it."""
        self.path = path
        self.message = f"{show(path)}: {self.reason}"
        self.args = (self.message,)


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
    """File of the host, or member of an archive, that cannot be read or stored. ``reason`` is the text without ``path``."""

    kind = "source"

    def __init__(self, path: bytes | str, message: str, *, error: OSError | None = None, hint: str = "") -> None:
        super().__init__(f"{show(path)}: {message}", path=path, hint=hint)
        self.reason = message
        self.errno = error.errno if error else errno.EINVAL


class TooLargeError(SourceError):
    """File or symlink target that is larger than ext3 holds in blocks of ``block_size``. Sizes in bytes."""

    def __init__(self, path: bytes | str, message: str, *, size_bytes: int, limit_bytes: int, block_size: int) -> None:
        super().__init__(path, message)
        self.errno = errno.EFBIG
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        self.block_size = block_size


class ContentChangedError(SourceError):
    """File that changed while it was read, and again when it was read once more."""

    kind = "changed"


class XattrError(SourceError):
    """Extended attribute that ext3 cannot store. ``block_size``, in bytes, if the attributes of a file exceed one block."""

    kind = "xattr"
    block_size: int | None = None
