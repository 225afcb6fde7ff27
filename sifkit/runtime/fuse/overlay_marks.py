"""Marks of removed files in an overlay image, as an overlay of the kernel in a user namespace reads and writes them.

Such an overlay uses ``user.overlay`` xattrs; one that root mounts, ``trusted.overlay``. Opaque directories get both, so that
every reader of the image finds them. Directories in which fuse-overlayfs left ``.wh.`` files get the kernel's marks instead,
when they are first looked into. See ``vfs.whiteouts``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from functools import partial

from ext3.constants import S_IFCHR, FileType
from ext3.edit.filesystem import WritableFilesystem

from ...vfs.whiteouts import (
    FUSE_LEFTOVER,
    FUSE_OPAQUE_XATTR,
    OPAQUE_WHITEOUT,
    OPAQUE_XATTRS,
    has_whiteout_prefix,
    is_opaque,
    marks_removed_file,
    whited_out_name,
)

__all__ = ["OPAQUE", "opaque_value", "remove_opaque", "replace_marks", "set_opaque", "shown_xattrs"]

OPAQUE = b"user.overlay.opaque"
"""Name under which an opaque mark is shown."""
_HIDDEN = b"trusted.overlay."
_STORED = (*OPAQUE_XATTRS, FUSE_OPAQUE_XATTR)
YES = b"y"
DOTS = (b".", b"..")
"""Names that no whiteout hides, whatever a hostile image says."""


def shown_xattrs(stored: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the xattrs as a plain user's overlay sees them: one opaque mark, none of ``trusted.overlay``."""
    shown = {name: value for name, value in stored.items() if not name.startswith(_HIDDEN) and name not in _STORED}
    if is_opaque(stored):
        shown[OPAQUE] = YES
    elif OPAQUE in stored:
        shown[OPAQUE] = stored[OPAQUE]
    return shown


def opaque_value(filesystem: WritableFilesystem, ino: int) -> bytes | None:
    """Return the value of the opaque mark as it is shown; None if there is none."""
    found = [filesystem.xattr(ino, name) for name in _STORED]
    return YES if YES in found else filesystem.xattr(ino, OPAQUE)


def set_opaque(filesystem: WritableFilesystem, ino: int, value: bytes) -> None:
    """Set the opaque mark for all readers."""

    def both() -> None:
        for name in OPAQUE_XATTRS:
            filesystem.set_xattr(ino, name, value)

    filesystem.atomically(both)


def remove_opaque(filesystem: WritableFilesystem, ino: int) -> None:
    """Remove the opaque mark for all readers. Raises OSError (ENODATA) if there is none."""
    if opaque_value(filesystem, ino) is None:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def every() -> None:
        for name in _STORED:
            if filesystem.xattr(ino, name) is not None:
                filesystem.remove_xattr(ino, name)

    filesystem.atomically(every)


def replace_marks(filesystem: WritableFilesystem, directory: int) -> None:
    """Replace the ``.wh.`` files of a directory by the kernel's marks.

    What is beside its whiteout is removed, since fuse-overlayfs hides it. Directories under such a name, and names that mean
    nothing, are left as they are.
    """
    entries = filesystem.list_directory(directory).entries
    types = {name: file_type for name, _, file_type in entries}
    for name in filter(has_whiteout_prefix, types):
        if types[name] == FileType.DIRECTORY:
            continue
        hidden = whited_out_name(name) if marks_removed_file(name) else None
        if hidden in DOTS:
            continue
        if hidden:
            if types.get(hidden) == FileType.DIRECTORY:
                filesystem.remove_tree_at(directory, hidden)
            filesystem.atomically(partial(_replace_mark, filesystem, directory, name, hidden))
        elif name in (OPAQUE_WHITEOUT, FUSE_LEFTOVER):
            filesystem.atomically(partial(_replace_opaque_mark, filesystem, directory, name))


def _replace_mark(filesystem: WritableFilesystem, directory: int, mark: bytes, hidden: bytes) -> None:
    filesystem.unlink_at(directory, mark)
    if filesystem.find_name(directory, hidden) is not None:
        filesystem.unlink_at(directory, hidden)
    filesystem.mknod_at(directory, hidden, S_IFCHR)


def _replace_opaque_mark(filesystem: WritableFilesystem, directory: int, mark: bytes) -> None:
    if mark == OPAQUE_WHITEOUT:
        set_opaque(filesystem, directory, YES)
    filesystem.unlink_at(directory, mark)
