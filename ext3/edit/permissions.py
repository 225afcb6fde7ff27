"""Modes and POSIX ACLs: inheritance by new files, and updates of a mode by an ACL and of an ACL by a mode.

ACLs are in the form of the host's system calls. Source: Linux ``fs/posix_acl.c`` (posix_acl_create_masq,
__posix_acl_chmod_masq, posix_acl_equiv_mode). All functions raise ValueError for an invalid ACL.
"""

from __future__ import annotations

from typing import NamedTuple

from ..format.acl import KERNEL_VERSION, AclTag, to_disk
from ..format.schema import ACL_ENTRY, ACL_HEADER

__all__ = ["Inherited", "acl_after_chmod", "inherit", "is_no_acl", "mode_of_acl"]

PERMISSIONS = 0o777


class Inherited(NamedTuple):
    """Mode and ACLs of a new file. ``access``: None if the mode is equivalent. ``default``: None except for directories."""

    mode: int
    access: bytes | None
    default: bytes | None


def _entries(value: bytes) -> list[tuple[int, int, int]]:
    to_disk(value)  # raises ValueError
    return [(tag, permissions, ident) for tag, permissions, ident in ACL_ENTRY.packer.iter_unpack(value[ACL_HEADER.size :])]


def _packed(entries: list[tuple[int, int, int]]) -> bytes:
    return ACL_HEADER.packer.pack(KERNEL_VERSION) + b"".join(ACL_ENTRY.packer.pack(*entry) for entry in entries)


def _group_tag(entries: list[tuple[int, int, int]]) -> int:
    """Return the tag of the entry that the group bits of a mode stand for: the mask, if there is one."""
    return AclTag.MASK if any(tag == AclTag.MASK for tag, _, _ in entries) else AclTag.GROUP_OBJ


def _extended(entries: list[tuple[int, int, int]]) -> bool:
    return any(tag in (AclTag.USER, AclTag.GROUP, AclTag.MASK) for tag, _, _ in entries)


def inherit(default: bytes | None, mode: int, *, directory: bool, umask: int = 0) -> Inherited:
    """Return mode and ACLs of a file created with ``mode`` in a directory with this default ACL (None: without one).

    The umask applies only without a default ACL. Not for symlinks, which have no ACL.
    """
    if default is None:
        return Inherited(mode & ~umask, None, None)
    entries = _entries(default)
    shifts = {AclTag.USER_OBJ: 6, _group_tag(entries): 3, AclTag.OTHER: 0}
    made = []
    bits = 0
    for tag, permissions, ident in entries:
        kept = permissions
        if tag in shifts:
            kept &= mode >> shifts[tag] & 7
            bits |= kept << shifts[tag]
        made.append((tag, kept, ident))
    access = _packed(made) if _extended(entries) else None
    return Inherited(mode & ~PERMISSIONS | bits, access, default if directory else None)


def is_no_acl(value: bytes) -> bool:
    """Return True if the ACL has no entries: setting it removes the ACL."""
    return not value or value == ACL_HEADER.packer.pack(KERNEL_VERSION)


def mode_of_acl(acl: bytes, mode: int) -> tuple[int, bool]:
    """Return the mode of a file with this access ACL, and True if the ACL is not equivalent to the mode."""
    entries = _entries(acl)
    shifts = {AclTag.USER_OBJ: 6, _group_tag(entries): 3, AclTag.OTHER: 0}
    bits = sum(permissions << shifts[tag] for tag, permissions, _ in entries if tag in shifts)
    return mode & ~PERMISSIONS | bits, _extended(entries)


def acl_after_chmod(acl: bytes, mode: int) -> bytes:
    """Return the access ACL of a file after chmod: owner, mask (or group) and other are set from the mode."""
    entries = _entries(acl)
    shifts = {AclTag.USER_OBJ: 6, _group_tag(entries): 3, AclTag.OTHER: 0}
    return _packed([(tag, mode >> shifts[tag] & 7 if tag in shifts else bits, ident) for tag, bits, ident in entries])
