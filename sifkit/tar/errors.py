"""Errors of reading archives. Each class carries its facts, and the text is made from them once.

None of them has a hint: what a user can do about an error depends on where the archive comes from, which the caller knows.
"""

from __future__ import annotations

import errno
from typing import Literal

from ..errors import SifkitError, human, show
from .header import PATH_LIMIT

__all__ = [
    "ArchiveChangedError",
    "ArchiveError",
    "ArchiveOpenError",
    "CompressedStreamError",
    "ContentLimitError",
    "CorruptHeaderError",
    "EmptyArchiveError",
    "NotTarError",
    "SparseMapError",
    "SpoolError",
    "StreamProblem",
    "TruncatedArchiveError",
]

StreamProblem = Literal["truncated", "corrupt", "memory", "module"]
"""Reasons why a compressed stream cannot be read: it ends early, its bytes are wrong, it needs more memory than is allowed, or
the module that reads this format is not installed."""


class ArchiveError(SifkitError, OSError):
    """Archive that cannot be read, and base of the others.

    ``path``: the archive's; ``member``: the name of the entry concerned; ``offset``: the byte of the archive, after
    decompression, where the trouble is; ``compression``: what the archive is compressed with, or empty. ``reason`` is the
    text without the path. ``errno`` is that of ``error``, else EINVAL.
    """

    kind = "source"
    path: bytes

    def __init__(
        self,
        path: bytes,
        reason: str,
        *,
        member: bytes | None = None,
        offset: int | None = None,
        compression: str = "",
        error: OSError | None = None,
        hint: str = "",
    ) -> None:
        if member is not None:
            reason = f"{show(member[:PATH_LIMIT]) or '(no name)'}: {reason}"
        if offset is not None:
            reason += f" (at byte {offset}{' of the unpacked archive' if compression else ''})"
        super().__init__(f"{show(path)}: {reason}", path=path, hint=hint)
        self.reason = reason
        self.member = member
        self.offset = offset
        self.compression = compression
        self.errno = error.errno if error else errno.EINVAL


class ArchiveOpenError(ArchiveError):
    """The archive cannot be opened; ``errno`` says why."""


class NotTarError(ArchiveError):
    """The file is no tar archive, and no compressed one. ``found`` is what it seems to be, or empty."""

    def __init__(self, path: bytes, reason: str, *, found: str = "", compression: str = "") -> None:
        super().__init__(path, reason, compression=compression)
        self.found = found


class EmptyArchiveError(NotTarError):
    """The file has no bytes."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path, "is empty: not a tar archive")


class TruncatedArchiveError(ArchiveError):
    """The archive ends where it should go on; the stream it is compressed in, if any, is whole."""

    def __init__(self, path: bytes, detail: str, *, member: bytes | None, offset: int, compression: str) -> None:
        what = f"the {compression} stream is whole, but the archive in it" if compression else "the archive"
        super().__init__(path, f"{what} is truncated: {detail}", offset=offset, compression=compression)
        self.member = member


class CompressedStreamError(ArchiveError):
    """The stream the archive is compressed in cannot be read. ``problem`` says why."""

    def __init__(self, path: bytes, reason: str, *, problem: StreamProblem, offset: int | None, compression: str) -> None:
        super().__init__(path, reason, offset=offset, compression=compression)
        self.problem = problem


class CorruptHeaderError(ArchiveError):
    """A header, or an extended one, contradicts the format."""


class SparseMapError(ArchiveError):
    """The map of a sparse file contradicts the file's size or its stored data, or is of a format that is not read."""


class SpoolError(ArchiveError):
    """The temporary file that holds the archive's data cannot be written. ``directory``: where it is."""

    def __init__(self, path: bytes, directory: bytes, *, written: int, compression: str, error: OSError) -> None:
        done = f" after {human(written)}" if written else ""
        reason = f"writing its temporary file in {show(directory)} failed{done}: {error.strerror}"
        super().__init__(path, reason, compression=compression, error=error)
        self.directory = directory


class ContentLimitError(ArchiveError):
    """Archive with more data than its caller can take: at least ``needed_bytes``, where ``limit_bytes`` are taken."""

    kind = "no-space"

    def __init__(self, path: bytes, *, needed_bytes: int, limit_bytes: int, compression: str) -> None:
        reason = f"its files have {human(needed_bytes)} or more; at most {human(limit_bytes)} are taken"
        super().__init__(path, reason, compression=compression)
        self.needed_bytes = needed_bytes
        self.limit_bytes = limit_bytes


class ArchiveChangedError(ArchiveError):
    """The archive is shorter than it was when its members were read."""

    kind = "changed"
