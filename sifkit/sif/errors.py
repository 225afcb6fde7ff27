"""What goes wrong with SIF files. Each class carries its facts; the text is made once, ``hint`` says what to do next."""

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
    "SourceError",
    "StoreError",
    "TruncatedError",
    "UnknownCodeError",
]


class SIFError(SifkitError):
    """Base of what only SIF files raise."""

    kind = "sif"


class NotSIFError(SIFError, FormatError):
    """There is no SIF header where one should be, or one of another version."""

    kind = "not-sif"


class CorruptSIFError(SIFError, FormatError):
    """The file contradicts the format: ``where`` it does, in which ``field``, what it says and what it should."""

    kind = "corrupt"

    def __init__(self, where: str, field: str, got: object, want: object, *, path: bytes | str | None = None) -> None:
        super().__init__(f"{where}: {field} is {got}, want {want}", path=path, hint="get the image again, or build it anew")
        self.where = where
        self.field = field
        self.got = got
        self.want = want


class TruncatedError(SIFError, FormatError):
    """Bytes that the file should have are behind its end: a download cut short, most of the time."""

    kind = "truncated"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "get the whole file again") -> None:
        super().__init__(message, path=path, hint=hint)


class StoreError(SIFError, OSError):
    """Reading or writing the file failed."""

    kind = "io"

    def __init__(self, message: str, *, error: OSError | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = error.errno if error else errno.EIO


class NotWritableError(SIFError, PermissionError):
    """The image is to be edited and may not be written."""

    kind = "permission"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", error: OSError | None = None) -> None:
        super().__init__(message, path=path, hint=hint)
        self.errno = error.errno if error else errno.EACCES


class ObjectNotFoundError(SIFError, LookupError):
    """No data object is the one asked for."""

    kind = "not-found"


class AmbiguousObjectError(SIFError, LookupError):
    """Several data objects are; ``ids`` names them."""

    kind = "ambiguous"

    def __init__(self, message: str, *, ids: tuple[int, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.ids = ids


class ObjectSizeError(SIFError, ValueError):
    """An object is larger than the caller wants in memory. ``size_bytes``, ``limit_bytes``."""

    kind = "too-large"

    def __init__(self, message: str, *, size_bytes: int, limit_bytes: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class EditError(SIFError, ValueError):
    """A change that would make the image wrong; nothing was written."""

    kind = "refused"


class ImageFullError(SIFError, OSError):
    """Every descriptor is used. ``used`` of ``total``."""

    kind = "full"

    def __init__(self, used: int, total: int, *, path: str | None = None) -> None:
        image = show(path) if path else "IMAGE"
        super().__init__(
            f"{used} of {total} descriptors are used",
            path=path,
            hint=f"make room with: sifkit sif compact {image} --capacity {max(48, 2 * total)}",
        )
        self.errno = errno.ENOSPC
        self.used = used
        self.total = total


class SourceError(SIFError, OSError):
    """What is to become an object cannot be read."""

    kind = "source"

    def __init__(self, message: str, *, path: bytes | str | None = None, hint: str = "", error: OSError | None = None) -> None:
        super().__init__(message, path=path, hint=hint)
        self.errno = error.errno if error else errno.EINVAL


class SourceChangedError(SourceError):
    """The source changed while it was copied."""

    kind = "changed"


class UnknownCodeError(SIFError, UsageError):
    """A word or number that names no data type, filesystem, architecture ... ``words`` are those that do."""

    kind = "usage"
    exit_code = 2

    def __init__(self, what: str, given: object, words: tuple[str, ...]) -> None:
        text = show(given) if isinstance(given, str | bytes) else str(given)
        super().__init__(f"{text[:80]!r} is no {what}", hint=f"one of: {', '.join(words)}")
        self.words = words
