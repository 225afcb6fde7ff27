"""Errors of archives as errors of a source: what a user can do about each, and the kinds that a build of an image raises."""

from __future__ import annotations

import errno

from ext3 import hostio
from ext3.errors import ContentChangedError, Ext3Error, NoSpaceError, SourceError

from ...errors import human
from ...tar.errors import (
    ArchiveChangedError,
    ArchiveError,
    ArchiveOpenError,
    CompressedStreamError,
    ContentLimitError,
    CorruptHeaderError,
    EmptyArchiveError,
    NotTarError,
    SparseMapError,
    SpoolError,
    TruncatedArchiveError,
)
from ...tar.stream import STDIN

__all__ = ["ArchiveSourceChangedError", "ArchiveSourceError", "source_error"]

_PROGRAMS = {"gzip": "gzip -dc", "xz": "xz -dc", "bzip2": "bzip2 -dc", "zstd": "zstd -dc --long=31"}
_HINTS_OF_OPENING = {
    errno.EISDIR: "--from-dir takes a directory",
    errno.EACCES: "ask its owner, or read it as a user who may",
    errno.EPERM: "ask its owner, or read it as a user who may",
}
_HINTS: dict[type[ArchiveError], str] = {
    NotTarError: "tar archives are taken plain or packed with gzip, xz, bzip2 or zstd",
    CorruptHeaderError: "the archive is damaged, or not written by a tar program",
    SparseMapError: "the archive is damaged",
}


class ArchiveSourceError(SourceError):
    """Archive, or member of one, that cannot be stored. Hints for directories do not apply to it."""


class ArchiveSourceChangedError(ArchiveSourceError, ContentChangedError):
    """Archive that became shorter while the image was written."""


def source_error(error: ArchiveError) -> Ext3Error:
    """Return the error to raise from ``error``, with a hint: an ArchiveSourceError, or NoSpaceError for too much data."""
    if isinstance(error, ContentLimitError):
        return NoSpaceError(
            f"the content does not fit in an image of {human(error.limit_bytes)}: it needs {human(error.needed_bytes)} or more",
            needed_bytes=error.needed_bytes,
            available_bytes=error.limit_bytes,
            hint="give a larger --size, or leave it out",
        )
    kind = ArchiveSourceChangedError if isinstance(error, ArchiveChangedError) else ArchiveSourceError
    return kind(error.path, error.reason, error=error, hint=error.hint or _hint(error))


def _hint(error: ArchiveError) -> str:
    if isinstance(error, ArchiveOpenError):
        return _HINTS_OF_OPENING.get(error.errno or 0, "")
    if isinstance(error, CompressedStreamError):
        if error.problem == "memory":
            return f"unpack it with {_PROGRAMS[error.compression]} and give the plain archive"
        if error.problem == "module":
            return "install that, or unpack it with zstd -dc and give the plain archive"
        return _again(error.path)
    if isinstance(error, SpoolError):
        where = "with more space" if error.errno in hostio.FULL else "that can be written to"
        how = f"unpack it with {_PROGRAMS[error.compression]} and give" if error.compression else "give it as"
        return f"set TMPDIR to a directory {where}, or {how} a file"
    if isinstance(error, TruncatedArchiveError):
        return "pack the archive again" if error.compression else _again(error.path)
    if isinstance(error, EmptyArchiveError):
        return _again(error.path)
    return _HINTS.get(type(error), "")


def _again(path: bytes) -> str:
    """Return the hint for an archive that was damaged in transfer."""
    return "see whether the program that sends it failed, and send it again" if path == STDIN else "fetch it again"
