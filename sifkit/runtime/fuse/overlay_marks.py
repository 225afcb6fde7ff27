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

from ext3.constants import S_IFCHR, S_IFMT
from ext3.edit.inode_filesystem import InodeFilesystem

from ...vfs.whiteouts import (
    FUSE_LEFTOVER,
    FUSE_OPAQUE_XATTR,
    METACOPY_XATTRS,
    OPAQUE_WHITEOUT,
    OPAQUE_XATTRS,
    REDIRECT_XATTRS,
    has_whiteout_prefix,
    is_opaque,
    marks_removed_file,
    whited_out_name,
)

__all__ = ["OPAQUE", "mark_value", "opaque_value", "remove_opaque", "replace_marks", "set_opaque", "shown_xattrs"]

OPAQUE = b"user.overlay.opaque"
"""Name under which an opaque mark is shown."""
_HIDDEN = b"trusted.overlay."
_STORED = (*OPAQUE_XATTRS, FUSE_OPAQUE_XATTR)
YES = b"y"
_OF_ROOT = {of_user: of_root for of_root, of_user in (METACOPY_XATTRS, REDIRECT_XATTRS)}
"""Marks that the kernel looks for and does not follow here, with those that root's overlayfs stores."""


def shown_xattrs(stored: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the xattrs as a plain user's overlay sees them: one opaque mark, none of ``trusted.overlay``."""
    shown = {name: value for name, value in stored.items() if not name.startswith(_HIDDEN) and name not in _STORED}
    if is_opaque(stored):
        shown[OPAQUE] = YES
    elif OPAQUE in stored:
        shown[OPAQUE] = stored[OPAQUE]
    return shown


def opaque_value(filesystem: InodeFilesystem, ino: int) -> bytes | None:
    """Return the value of the opaque mark as it is shown; None if there is none."""
    found = [filesystem.xattr(ino, name) for name in _STORED]
    return YES if YES in found else filesystem.xattr(ino, OPAQUE)


def mark_value(filesystem: InodeFilesystem, ino: int, name: bytes) -> bytes | None:
    """Return the value of an xattr, or of root's mark of the same meaning: then the kernel refuses the file, and says so."""
    found = filesystem.xattr(ino, name)
    if found is None and name in _OF_ROOT:
        return filesystem.xattr(ino, _OF_ROOT[name])
    return found


def set_opaque(filesystem: InodeFilesystem, ino: int, value: bytes) -> None:
    """Set the opaque mark for all readers."""

    def both() -> None:
        for name in OPAQUE_XATTRS:
            filesystem.set_xattr_at(ino, name, value)

    filesystem.atomically(both)


def remove_opaque(filesystem: InodeFilesystem, ino: int) -> None:
    """Remove the opaque mark for all readers. Raises OSError (ENODATA) if there is none."""
    if opaque_value(filesystem, ino) is None:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    def every() -> None:
        for name in _STORED:
            if filesystem.xattr(ino, name) is not None:
                filesystem.remove_xattr_at(ino, name)

    filesystem.atomically(every)


def replace_marks(filesystem: InodeFilesystem, directory: int) -> None:
    """Replace the ``.wh.`` files of a directory by the kernel's marks.

    Left as they are, as ``sifkit overlay normalize`` leaves them: names with this prefix that are no marks, for they have
    content, and marks with the file that they would hide beside them.
    """
    names = {name for name, _, _ in filesystem.list_directory(directory).entries}
    for name in filter(has_whiteout_prefix, names):
        found = filesystem.stat(filesystem.find_name(directory, name) or 0)
        is_device = found.mode & S_IFMT == S_IFCHR and found.major == found.minor == 0
        if not is_device and (not found.is_file or found.size):
            continue
        if name == OPAQUE_WHITEOUT or (name == FUSE_LEFTOVER and is_device):
            filesystem.atomically(partial(_replace_opaque_mark, filesystem, directory, name))
            continue
        hidden = whited_out_name(name) if marks_removed_file(name) else None
        if hidden and hidden not in names:
            filesystem.atomically(partial(_replace_mark, filesystem, directory, name, hidden))


def _replace_mark(filesystem: InodeFilesystem, directory: int, mark: bytes, hidden: bytes) -> None:
    filesystem.unlink_at(directory, mark)
    filesystem.mknod_at(directory, hidden, S_IFCHR)


def _replace_opaque_mark(filesystem: InodeFilesystem, directory: int, mark: bytes) -> None:
    if mark == OPAQUE_WHITEOUT:
        set_opaque(filesystem, directory, YES)
    filesystem.unlink_at(directory, mark)
