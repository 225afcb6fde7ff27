"""Hints for errors of the ext3 library, made from their facts: the library knows no option of the command line."""

from __future__ import annotations

import errno

from ext3.errors import (
    ContentChangedError,
    DeviceError,
    Ext3Error,
    GeometryError,
    NoInodesError,
    NoSpaceError,
    SourceError,
    TooLargeError,
    XattrError,
)

from ...errors import human
from ...overlay.creating.archive_errors import ArchiveSourceError

__all__ = ["creation_hint"]

MIB = 1 << 20
MAX_BLOCK_SIZE = 4096


def creation_hint(error: BaseException) -> str:
    """Return what to change in a failed request to create an image; empty if unknown."""
    if not isinstance(error, Ext3Error):
        return creation_hint(error.__cause__) if isinstance(error.__cause__, GeometryError) else ""
    if isinstance(error, GeometryError):
        return _geometry_hint(error)
    if isinstance(error, NoInodesError):
        return f"give -N {error.enough}, or omit -N, -i and --profile"
    if isinstance(error, NoSpaceError):
        return f"give --size {-(-error.needed_bytes // MIB)}M or more, or omit --size"
    if isinstance(error, DeviceError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return "free some space there, or choose a smaller --size" if full else ""
    if isinstance(error, ArchiveSourceError):
        return ""  # the others are about directories
    return _source_hint(error) if isinstance(error, SourceError) else ""


def _geometry_hint(error: GeometryError) -> str:
    if error.field == "size":
        if error.most is not None:
            return f"the largest size with this block size is {human(error.most)}"
        return f"the smallest size with these options is about {human(error.least)}" if error.least is not None else ""
    if error.field == "journal":
        if error.least is not None:
            return f"the smallest is -J size={-(-error.least // MIB)}"
        return "give a smaller journal, or a larger --size"
    return {
        "block_size": f"use -b {MAX_BLOCK_SIZE}" if error.least else "omit -b, or give one of these",
        "inode_size": "omit -I, or give 128 or 256",
        "inodes": "give fewer inodes, or a larger --size",
    }.get(error.field, "")


def _source_hint(error: SourceError) -> str:
    larger_blocks = getattr(error, "block_size", None)
    can_grow = larger_blocks is not None and larger_blocks < MAX_BLOCK_SIZE
    if isinstance(error, TooLargeError):
        return f"use -b {MAX_BLOCK_SIZE}" if can_grow else "split it"
    if isinstance(error, XattrError):
        return f"use -b {MAX_BLOCK_SIZE}, or --xattrs none" if can_grow else "drop extended attributes with --xattrs none"
    if isinstance(error, ContentChangedError):
        return "try again when no process writes to it, or give --allow-changed"
    if error.errno == errno.ENOTDIR:
        return "--from-dir takes a directory, --from-tar an archive"
    if error.errno == errno.ENOENT:
        return ""
    return "exclude it with --exclude"
