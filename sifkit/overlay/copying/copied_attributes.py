"""Attributes of a copy in an image: owner, mode, times and xattrs, as those of its source."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import TypeVar

from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import XattrError

from ...vfs.copy_outcome import CopyError
from ...vfs.whiteouts import without_overlay_xattrs
from ..xattr_filter import ACLS
from .source_file import SourceFile

__all__ = ["copy_attributes"]

N = TypeVar("N")
OWNER_ONLY = 0o1700
"""Mode bits of a file whose ACL is not known or cannot be stored."""


def copy_attributes(
    filesystem: WritableFilesystem, file: SourceFile[N], ino: int, *, preserve: frozenset[str], upper: bool
) -> None:
    """Set those of owner, mode, times and xattrs that are in ``preserve``. ``upper``: the copy is in upper/ of a container.

    Xattrs follow the owner: a new one clears the file capability. ACLs belong to the mode: inherited ones are removed, and
    without those of the source only the owner gets permissions. Raises CopyError or XattrError when all else is set.
    """
    found = file.stat
    exact_mode = "mode" in preserve and file.form != stat.S_IFLNK
    xattrs: Mapping[bytes, bytes] = {}
    problem: CopyError | XattrError | None = None
    if preserve & {"mode", "xattrs"}:
        try:
            xattrs = file.storable_xattrs()
        except CopyError as error:
            problem = error
        if upper:  # what overlay filesystems reserve would be marks here
            xattrs = without_overlay_xattrs(xattrs)
    given = {"uid": found.uid, "gid": found.gid} if "owner" in preserve else {}
    if exact_mode:
        given["mode"] = stat.S_IMODE(found.mode) & (0o7777 if problem is None else OWNER_ONLY)
    if "times" in preserve:
        given |= {"atime": found.atime, "mtime": found.mtime}
    if given:
        filesystem.set_attributes(ino, **given)
    if exact_mode:
        for name in ACLS & filesystem.xattrs(ino).keys() - xattrs.keys():
            filesystem.remove_xattr(ino, name)
    for name in sorted(xattrs, key=lambda name: name not in ACLS):
        if "xattrs" not in preserve and name not in ACLS:
            continue
        try:
            filesystem.set_xattr(ino, name, xattrs[name])
        except XattrError as error:
            if name in ACLS and exact_mode:
                filesystem.set_attributes(ino, mode=stat.S_IMODE(found.mode) & OWNER_ONLY)
            problem = problem or error
    if problem is not None:
        raise problem
