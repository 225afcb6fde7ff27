"""Attributes of files created on the host: owner, xattrs, mode, ACLs and times, in the order in which cp sets them.

Everything is set through a descriptor, because others may write to the directory and replace the name. Devices, FIFOs, sockets
and symlinks are not opened: a descriptor without access (O_PATH) identifies them, and its path in /proc takes the calls.

An access ACL holds the permissions of owner and others too, and its mask those of the group. So it is set after the mode and
wins where an image has both and they differ. Sources: coreutils ``copy.c`` (copy_reg, copy_acl) and gnulib
``set-permissions.c``; Linux ``fs/posix_acl.c``, ``fs/xattr.c`` (xattr_permission); open(2), O_PATH.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import NamedTuple

from ext3 import hostio

from .file_tree import Stat, TreeStat
from .host_writer import REPLACED, ExtractResult

__all__ = ["ACLS", "NewFileAttributes", "owner_only", "set_attributes", "set_unopened_attributes"]

ACCESS_ACL, DEFAULT_ACL = b"system.posix_acl_access", b"system.posix_acl_default"
ACLS = (ACCESS_ACL, DEFAULT_ACL)
NO_CHANGE_ID = 0xFFFFFFFF
"""The owner -1, which means "no change" to chown(2)."""
HAS_XATTRS = hasattr(os, "setxattr")
O_PATH = getattr(os, "O_PATH", 0)

_ACL_HEADER_BYTES = 4
_ACL_ENTRY = struct.Struct("<HHI")
_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20
"""Entries of an ACL in the form of the system calls: tag, permissions, ID (linux/posix_acl_xattr.h)."""


def owner_only(found: Stat) -> Stat:
    """Return the Stat of a file whose xattrs cannot be read, with permissions for its owner only: an ACL may be among them."""
    fields = {name: getattr(found, name) for name in TreeStat._fields}
    return TreeStat(**fields | {"mode": found.mode & ~0o6077})


class _Observed(NamedTuple):
    """Attributes that the system gave a new file. ``has_acl``: it inherited an access ACL."""

    mode: int
    owner: tuple[int, int]
    has_acl: bool


class NewFileAttributes:
    """Setter of owner, mode and times of new regular files, with as few system calls as possible.

    The first file of each mode shows what the system makes of it (umask, set-group-ID directories, default ACLs, servers that
    change owners). Files of the same mode in directories of the same kind come out the same, so calls that would change
    nothing are skipped.
    """

    def __init__(self, *, owners: bool, uniform: bool) -> None:
        """``owners``: set owners too. ``uniform``: all directories were created by this extraction."""
        self._owners = owners
        self._uniform = uniform
        self._observed: dict[int, _Observed] = {}

    @staticmethod
    def create_mode(found: Stat, xattrs: Mapping[bytes, bytes]) -> int:
        """Return the permissions to create a file with: its own, unless an xattr (an ACL) changes their meaning."""
        return 0o600 if xattrs else found.mode & 0o777

    def set(self, fd: int, found: Stat, xattrs: Mapping[bytes, bytes], result: ExtractResult) -> None:
        """Set the attributes of a file created with ``create_mode(found, xattrs)`` and written. Raises OSError."""
        if xattrs:
            set_attributes(fd, found, xattrs, result, owners=self._owners)
            return
        mode = found.mode & 0o7777
        owner = found.uid, found.gid
        observed = self._observed.get(mode & 0o777)
        if observed is None:
            new = os.fstat(fd)
            observed = _Observed(new.st_mode & 0o7777, (new.st_uid, new.st_gid), _has_access_acl(fd))
            if self._uniform:
                self._observed[mode & 0o777] = observed
        if self._owners:
            if observed.owner != owner:
                mode = _set_owner(fd, found, result, None)
        elif observed.owner != owner:
            result.owners_left += 1
            mode &= 0o1777  # no set-ID bits for another owner or group
        if observed.has_acl:
            _remove_acls(fd, (ACCESS_ACL,))
        if observed.mode != mode:
            os.fchmod(fd, mode)
        try:  # noqa: SIM105 - suppress() takes as long as the call, once per file
            os.utime(fd, ns=(found.atime, found.mtime))
        except (OSError, OverflowError):  # the host's filesystem cannot store this time
            pass


def set_unopened_attributes(
    name: bytes, found: Stat, xattrs: Mapping[bytes, bytes], result: ExtractResult, *, owners: bool, directory: int
) -> None:
    """Set the attributes of a device, FIFO, socket or symlink just created as ``name`` in ``directory``.

    Raises OSError, also if the name leads to another file by now. Where a server gives new files another owner nothing is set.
    """
    if not O_PATH:  # no /proc either; by name, which these systems can without following symlinks
        set_attributes(name, found, xattrs, result, owners=owners, directory=directory)
        return
    with _created(name, found, directory) as (path, is_own):
        if is_own:
            set_attributes(path, found, xattrs, result, owners=owners)
        else:
            result.owners_left += 1


@contextmanager
def _created(name: bytes, found: Stat, directory: int) -> Iterator[tuple[bytes, bool]]:
    """Give the path in /proc of a file that was just created, and whether it belongs to this process.

    Raises OSError if another file has this name by now: of another type, or one that has other names too.
    """
    fd = os.open(name, O_PATH | hostio.NO_FOLLOW, dir_fd=directory)
    try:
        new = os.fstat(fd)
        is_device = stat.S_ISCHR(new.st_mode) or stat.S_ISBLK(new.st_mode)
        if (
            stat.S_IFMT(new.st_mode) != stat.S_IFMT(found.mode)
            or new.st_nlink > 1
            or (is_device and new.st_rdev != os.makedev(found.major, found.minor))
        ):
            raise OSError(errno.EEXIST, REPLACED)
        if not _has_proc():
            raise OSError(errno.ENOSYS, "/proc is not mounted: its attributes cannot be set")
        yield b"/proc/self/fd/%d" % fd, new.st_uid == os.geteuid()
    finally:
        os.close(fd)


@cache
def _has_proc() -> bool:
    return os.path.isdir("/proc/self/fd")


def set_attributes(
    file: int | bytes,
    found: Stat,
    xattrs: Mapping[bytes, bytes],
    result: ExtractResult,
    *,
    owners: bool,
    directory: int | None = None,
) -> None:
    """Set owner, xattrs, mode, ACLs and times of ``found``; remove inherited ACLs. Raises OSError.

    What the caller may not set is counted in ``result``. ``file`` is a descriptor or the path of one in /proc; with
    ``directory`` a name in it, which is not followed. Xattrs follow the owner, because a new owner clears the file capability,
    and precede the mode, because a file that may not be written takes no user xattrs.
    """
    is_link = stat.S_ISLNK(found.mode)
    mode = stat.S_IMODE(found.mode)
    if owners:
        mode = _set_owner(file, found, result, directory)
    else:
        new = os.stat(file) if directory is None else os.stat(file, dir_fd=directory, follow_symlinks=False)
        if (found.uid, found.gid) != (new.st_uid, new.st_gid):  # its group may be that of a set-group-ID directory
            result.owners_left += 1
            mode &= 0o1777  # no set-ID bits for another owner or group
    plain = {name: value for name, value in xattrs.items() if name not in ACLS}
    if plain and isinstance(file, int):
        _make_writable(file)
    _set_xattrs(file, plain, result)
    if not is_link:
        _set_permissions(file, found, mode, xattrs, result, directory)
    with suppress(OSError, OverflowError):  # the host's filesystem cannot store this time
        if directory is None:
            os.utime(file, ns=(found.atime, found.mtime))
        else:
            os.utime(file, ns=(found.atime, found.mtime), dir_fd=directory, follow_symlinks=False)


def _set_permissions(
    file: int | bytes,
    found: Stat,
    mode: int,
    xattrs: Mapping[bytes, bytes],
    result: ExtractResult,
    directory: int | None,
) -> None:
    """Set the mode, then the ACLs. Without its access ACL a file gives nobody more than the ACL does."""

    def change_mode(mode: int) -> None:
        if directory is None:
            os.chmod(file, mode)
        else:
            os.chmod(file, mode, dir_fd=directory, follow_symlinks=False)

    _remove_acls(file, [name for name in (ACLS if stat.S_ISDIR(found.mode) else ACLS[:1]) if name not in xattrs])
    change_mode(mode)
    acls = {name: value for name, value in xattrs.items() if name in ACLS}
    if ACCESS_ACL in _set_xattrs(file, acls, result):
        change_mode(_restricted_mode(mode, acls[ACCESS_ACL]))


def _restricted_mode(mode: int, acl: bytes) -> int:
    """Return a mode that gives no more than an access ACL does to those it does not name; if it is damaged, the owner's."""
    try:
        bits: dict[int, int] = {tag: allowed & 7 for tag, allowed, _ in _ACL_ENTRY.iter_unpack(acl[_ACL_HEADER_BYTES:])}
        group = bits[_GROUP_OBJ] & bits.get(_MASK, 7)
        return mode & ~0o777 | bits[_USER_OBJ] << 6 | group << 3 | bits[_OTHER]
    except (KeyError, struct.error):
        return mode & ~0o077


def _set_owner(file: int | bytes, found: Stat, result: ExtractResult, directory: int | None) -> int:
    """Set the owner of a file; return the mode to set."""
    try:
        if NO_CHANGE_ID in (found.uid, found.gid):
            raise OSError(errno.EINVAL, "the ID -1 means no change")
        if directory is None:
            os.chown(file, found.uid, found.gid)
        else:
            os.chown(file, found.uid, found.gid, dir_fd=directory, follow_symlinks=False)
    except OSError:  # no permission, or not mapped in this user namespace
        result.owners_left += 1
        return found.mode & 0o1777
    return found.mode & 0o7777


def _make_writable(fd: int) -> None:
    """Let the owner, who may be the caller, read and write a file; its mode is set later."""
    mode = os.fstat(fd).st_mode
    if mode & 0o600 != 0o600:
        with suppress(OSError):
            os.fchmod(fd, stat.S_IMODE(mode) | 0o600)


def _set_xattrs(file: int | bytes, xattrs: Mapping[bytes, bytes], result: ExtractResult) -> list[bytes]:
    """Set xattrs; count those that cannot be set, and return their names."""
    left = []
    for name, value in xattrs.items():
        try:
            if not HAS_XATTRS:
                raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
            os.setxattr(file, name, value)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            left.append(name)
    result.xattrs_left += len(left)
    return left


def _has_access_acl(fd: int) -> bool:
    if not HAS_XATTRS:
        return False
    try:
        os.getxattr(fd, ACCESS_ACL)
    except OSError:
        return False
    return True


def _remove_acls(file: int | bytes, names: list[bytes] | tuple[bytes, ...]) -> None:
    """Remove ACLs that a file inherited from its directory, if there are any."""
    if HAS_XATTRS:
        for name in names:
            with suppress(OSError):
                os.removexattr(file, name)
