"""Owner of a whole overlay: of upper/ and work/ and everything in them, which a container needs to write.

work/ holds a directory work of mode 0000, which the runtimes make; it changes hands with the rest.
"""

from __future__ import annotations

import errno
from array import array
from dataclasses import dataclass

import numpy as np

from ext3.edit.filesystem import WritableFilesystem

from ..vfs.errors import MissingPathError
from ..vfs.file_tree import Stat, stat_of
from ..vfs.resolve import is_dir
from ..vfs.walk import walk

__all__ = ["OwnerChange", "change_owner"]


@dataclass(frozen=True, slots=True)
class OwnerChange:
    """Owner to set; None keeps the user or the group. ``old``: only files of this user and group, None for any."""

    uid: int | None
    gid: int | None
    old: tuple[int | None, int | None] = (None, None)


def change_owner(filesystem: WritableFilesystem, change: OwnerChange) -> int:
    """Set the owner of upper/, work/ and all files in them, symbolic links themselves. Return the number of files changed.

    Set-ID bits and file capabilities are cleared, as by chown(2). Raises MissingPathError without upper/, and the errors of
    directories that cannot be read, before any change.
    """
    tops = [ino for name in (b"upper", b"work") if (ino := filesystem.find_name(filesystem.root, name)) is not None]
    if filesystem.find_name(filesystem.root, b"upper") is None:
        raise MissingPathError(b"/upper", errno.ENOENT, "the image has no upper/")

    def is_changed(known: Stat) -> bool:
        is_old = all(want in (None, have) for want, have in zip(change.old, (known.uid, known.gid), strict=True))
        return is_old and not (change.uid in (None, known.uid) and change.gid in (None, known.gid))

    changed = array("I")  # an overlay may hold millions of files
    for top in tops:
        stat = filesystem.stat(top)
        if is_changed(stat):
            changed.append(top)
        if is_dir(stat):
            changed.extend(walked.row.node for walked in walk(filesystem, top) if is_changed(stat_of(walked.row)))
    # A file is found by each of its names.
    inos = np.unique(np.array(changed, np.uint32))
    for ino in inos:
        filesystem.chown(int(ino), change.uid, change.gid)
    return len(inos)
