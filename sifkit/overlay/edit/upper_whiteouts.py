"""Whiteouts in upper/, of every kind, and files whose content is in a lower layer, as they are found by their names there."""

from __future__ import annotations

import stat

from ext3.read.filesystem import Filesystem

from ...vfs.errors import LowerContentError
from ...vfs.file_tree import Row, Stat, stat_of
from ...vfs.resolve import is_dir
from ...vfs.walk import walk_directories
from ...vfs.whiteouts import (
    OPAQUE_WHITEOUT,
    has_whiteout_prefix,
    has_whiteout_xattr,
    is_metacopy,
    is_redirected,
    is_whiteout,
    whited_out_name,
)

__all__ = ["has_lower_content", "whiteouts_below"]


def has_lower_content(filesystem: Filesystem, found: Stat, ino: int) -> bool:
    """Return True for a file or directory that has its content in a lower layer: a metacopy, or with a redirect."""
    if is_dir(found):
        return is_redirected(filesystem.xattrs(ino))
    return stat.S_ISREG(found.mode) and is_metacopy(filesystem.xattrs(ino))


def whiteouts_below(filesystem: Filesystem, path: bytes, top: int) -> list[tuple[int, bytes]]:
    """Return (directory, name) of the whiteouts below the directory ``top``, which is at ``path``.

    Raises LowerContentError, and CorruptError.
    """
    found: list[tuple[int, bytes]] = []
    for walked in walk_directories(filesystem, top, path.rstrip(b"/")):
        names = {row.name for row in walked.listing.rows}
        for row in walked.listing.rows:
            if _is_whiteout_row(filesystem, row, names):
                found.append((walked.listing.node, row.name))
            elif row.may_have_xattrs and has_lower_content(filesystem, stat_of(row), row.node):
                raise LowerContentError(path, inside=walked.path + b"/" + row.name)
    return found


def _is_whiteout_row(filesystem: Filesystem, row: Row[int], names: set[bytes]) -> bool:
    """Return True for a whiteout among ``names``. One of fuse-overlayfs that hides a file beside it is not meant."""
    found = stat_of(row)
    if has_whiteout_prefix(row.name):
        hidden = whited_out_name(row.name)
        return not is_dir(found) and (row.name == OPAQUE_WHITEOUT or (hidden is not None and hidden not in names))
    if is_whiteout(found):
        return True
    is_empty = stat.S_ISREG(found.mode) and not found.size
    return is_empty and row.may_have_xattrs and has_whiteout_xattr(filesystem.xattrs(row.node))
