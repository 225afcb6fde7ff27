"""Byte-range locks of image files, as Apptainer takes them.

They are open file description locks (``F_OFD_SETLK``, Linux): they belong to the open file, so closing another descriptor of
the same file does not drop them, and they conflict with POSIX locks of other processes.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

from ext3.hostio import HostPath

from .errors import IN_USE_HINT, ImageInUseError, show
from .lock_wait import retry_in_use

__all__ = ["LockState", "lock_now", "lock_range", "lock_state", "open_locked", "still_named"]

T = TypeVar("T")
LockState = Literal["none", "read", "write", "unsupported"]
"""Locks that others hold on a range; ``unsupported``: the system or filesystem has no such locks."""

MOST_TRIES = 5
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}
HELD = {errno.EAGAIN, errno.EACCES}
F_OFD_GETLK, F_OFD_SETLK = 36, 37
_flock = struct.Struct("@hhqqi0q")
"""struct flock of Linux with 64-bit offsets: l_type, l_whence, l_start, l_len, l_pid (must be 0 for these locks)."""


def lock_range(fd: int, *, write: bool, offset: int = 0, size: int = 0, path: HostPath = "") -> bool:
    """Lock ``size`` bytes at ``offset`` of the open file ``fd`` (0: to the end, however far it grows).

    Waits only inside ``wait_for_images``, and a moment for a lock that passes (see ``lock_wait``). A write lock needs ``fd``
    open for writing. Returns False if the system or filesystem has no such locks. Raises ImageInUseError if another open file
    holds a conflicting lock.
    """
    return retry_in_use(partial(lock_now, fd, write=write, offset=offset, size=size, path=path))


def lock_now(fd: int, *, write: bool, offset: int = 0, size: int = 0, path: HostPath = "") -> bool:
    """Lock as ``lock_range`` does, and never wait: for what is left alone if others use it."""
    if sys.platform != "linux":
        return False
    import fcntl

    kind = fcntl.F_WRLCK if write else fcntl.F_RDLCK
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, _flock.pack(kind, os.SEEK_SET, offset, size, 0))
    except OSError as error:
        if error.errno in HELD:
            name = os.fsdecode(path)
            raise ImageInUseError(
                f"{show(name)} is in use by another process", path=name, hint=IN_USE_HINT, locked=True, may_pass=True
            ) from error
        if error.errno in NO_LOCKS:
            return False
        raise
    return True


def lock_state(fd: int, *, offset: int = 0, size: int = 0) -> tuple[LockState, int | None]:
    """Return the lock that other open files hold on a range, and its process if known (it is not for OFD locks).

    No lock is taken; ``fd`` may be open for reading only.
    """
    if sys.platform != "linux":
        return "unsupported", None
    import fcntl

    states: dict[int, LockState] = {fcntl.F_RDLCK: "read", fcntl.F_WRLCK: "write"}
    try:
        answer = fcntl.fcntl(fd, F_OFD_GETLK, _flock.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, size, 0))
    except OSError as error:
        if error.errno in NO_LOCKS:
            return "unsupported", None
        raise
    kind, _, _, _, pid = _flock.unpack(answer)
    return states.get(kind, "none"), pid if pid > 0 else None


def still_named(fd: int, path: HostPath) -> bool:
    """Return True if the open file ``fd`` is still the one under this name: it may have been replaced before it was locked."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def open_locked(path: HostPath, open_file: Callable[[], int], lock: Callable[[int], T]) -> tuple[int, T]:
    """Open a file and lock it; return its descriptor, and what ``lock`` returned for it.

    Others replace files while they hold the lock. If the file was replaced between the two steps, what is opened and locked
    has no name any more, and what is written to it would be lost: it is closed, and the file that has the name now is opened.
    Raises ImageInUseError if that happens again and again, and what the two functions raise.
    """
    for _ in range(MOST_TRIES):
        fd = open_file()
        try:
            locked = lock(fd)
            if still_named(fd, path):
                return fd, locked
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    name = os.fsdecode(path)
    raise ImageInUseError(f"{show(name)} keeps being replaced by other processes", path=name, hint="try again")
