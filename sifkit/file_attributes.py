"""Attributes of a file that is replaced by its own changed copy: owner, extended attributes, ACLs.

Attributes that cannot be kept are reported.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from ext3.hostio import NO_XATTRS

from .errors import counted, show

__all__ = ["keep_attributes"]

ACL = "system.posix_acl_access"
_SILENT = "security."
"""Attributes that the system itself gives to files, as SELinux does."""


def keep_attributes(source: int, target: int) -> tuple[str, ...]:
    """Copy owner and extended attributes from one open file to another; return notes on what is not kept.

    The mode is up to the caller, and set last: it does not change what an ACL says.
    """
    return (*_keep_owner(source, target), *_keep_xattrs(source, target), *_about_links(source))


def _keep_owner(source: int, target: int) -> list[str]:
    found, made = os.fstat(source), os.fstat(target)
    if not hasattr(os, "fchown") or (made.st_uid, made.st_gid) == (found.st_uid, found.st_gid):
        return []
    try:
        os.fchown(target, found.st_uid, found.st_gid)
    except OSError:  # another user's file in our directory
        with suppress(OSError):
            os.fchown(target, -1, found.st_gid)
        made = os.fstat(target)
        if made.st_uid != found.st_uid:
            return [f"could not preserve the owner of the image: it was user {found.st_uid}, now user {made.st_uid}"]
        return [f"could not preserve the group of the image: it was {found.st_gid}, now {made.st_gid}"]
    return []


def _keep_xattrs(source: int, target: int) -> list[str]:
    if not hasattr(os, "listxattr"):
        return []
    try:
        names = os.listxattr(source)
    except OSError as error:
        return [] if error.errno in NO_XATTRS else [f"could not preserve extended attributes: {error.strerror}"]
    notes = []
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno != errno.ENODATA and not name.startswith(_SILENT):
                notes.append(f"could not preserve the extended attribute {show(name)}: {error.strerror}")
    if ACL not in names:
        with suppress(OSError):  # one that the directory gives to new files
            os.removexattr(target, ACL)
    return notes


def _about_links(source: int) -> list[str]:
    others = os.fstat(source).st_nlink - 1
    if others < 1:
        return []
    return [f"{counted(others, 'other hard link')} of the image {'keeps' if others == 1 else 'keep'} the old content"]
