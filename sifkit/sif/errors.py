"""Errors of SIF files. Each class carries its facts, and the message is made from them once."""

from __future__ import annotations

import errno

from ..errors import FormatError, SifkitError, UsageError, show

__all__ = [
    "AmbiguousObjectError",
    "CorruptSIFError",
    "EditError",
    "ImageFullError",
    "NotSIFError",
    "NotWritableError",
    "ObjectNotFoundError",
    "ObjectSizeError",
    "SIFError",
    "SourceChangedError",
    "SIFSourceError",
    "StoreError",
    "TruncatedSIFError",
    "UnknownCodeError",
]


class SIFError(SifkitError):
    """Base of the errors of SIF files."""

    kind = "sif"


class NotSIFError(SIFError, FormatError):
    """File without a SIF header, or with one of another version."""

    kind = "not-sif"


class CorruptSIFError(SIFError, FormatError):
    """File that contradicts the format: ``field`` of the structure ``where`` is ``got`` instead of ``want``."""

    kind = "corrupt"

    def __init__(self, where: str, field: str, got: object, want: object, *, path: bytes | str | None = None) -> None:
        super().__init__(f"{where}: {field} is {got}, want {want}", path=path, hint="download or build the image again")
        self.where = where
        self.field = field
        self.got = got
        self.want = want


class TruncatedSIFError(SIFError, FormatError):
    """File that ends before its objects do: an incomplete download, usually."""

    kind = "truncated"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "download or copy the file again") -> None:
        super().__init__(message, path=path, hint=hint)


class StoreError(SIFError, OSError):
    """Failed read or write of the file. The attribute ``committed`` is True if the edit was done by then."""

    kind = "io"

    def __init__(self, message: str, *, error: OSError | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = error.errno if error else errno.EIO

    def mark_committed(self, text: str) -> None:
        """Say that the edit is done, and what is not, after the commit."""
        self.committed = True
        self.append(f"; {text}")


class NotWritableError(SIFError, PermissionError):
    """Image that cannot be opened for writing."""

    kind = "permission"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", error: OSError | None = None) -> None:
        super().__init__(message, path=path, hint=hint)
        self.errno = error.errno if error else errno.EACCES


class ObjectNotFoundError(SIFError, LookupError):
    """Object that does not exist."""

    kind = "not-found"


class AmbiguousObjectError(SIFError, LookupError):
    """Request that several objects match; ``ids`` lists them."""

    kind = "ambiguous"

    def __init__(self, message: str, *, ids: tuple[int, ...], path: str | None = None, hint: str = "") -> None:
        super().__init__(message, path=path, hint=hint)
        self.ids = ids


class ObjectSizeError(SIFError, ValueError):
    """Object that is larger than the caller's limit for memory."""

    kind = "too-large"

    def __init__(self, message: str, *, size_bytes: int, limit_bytes: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class EditError(SIFError, ValueError):
    """Edit that would make the image invalid; nothing was written."""

    kind = "refused"


class ImageFullError(SIFError, OSError):
    """Image without a free descriptor."""

    kind = "full"

    def __init__(self, used: int, total: int, *, path: str | None = None) -> None:
        image = show(path) if path else "IMAGE"
        super().__init__(
            f"{used} of {total} descriptors are used",
            path=path,
            hint=f"raise the capacity with: sifkit sif compact {image} --capacity {max(48, 2 * total)}",
        )
        self.errno = errno.ENOSPC
        self.used = used
        self.total = total


class SIFSourceError(SIFError, OSError):
    """Source of an object that cannot be read."""

    kind = "source"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", error: OSError | None = None) -> None:
        super().__init__(message, path=path, hint=hint)
        self.errno = error.errno if error else errno.EINVAL


class SourceChangedError(SIFSourceError):
    """Source that changed while it was copied."""

    kind = "changed"


class UnknownCodeError(SIFError, UsageError):
    """Unknown word or number for a data type, filesystem, architecture and so on; ``words`` are the known ones."""

    kind = "usage"
    exit_code = 2

    def __init__(self, what: str, given: object, words: tuple[str, ...]) -> None:
        text = show(given) if isinstance(given, str | bytes) else str(given)
        super().__init__(f"unknown {what} {text[:80]!r}", hint=f"one of: {', '.join(words)}")
        self.words = words
