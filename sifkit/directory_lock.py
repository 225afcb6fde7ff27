"""Lock of a directory that is written to, one of flock(2): those of ``file_locks`` need a file that is open for writing."""

from __future__ import annotations

import os

from ext3.hostio import HostPath

from .in_use import directory_use, in_use_error
from .lock_wait import retry_in_use

__all__ = ["lock_directory"]


def lock_directory(path: HostPath, *, shown: str) -> int:
    """Lock a directory; return the descriptor that holds the lock, in forked processes, too.

    ``shown``: what to call it in the error. Raises ImageInUseError if another process has locked it, and OSError.
    """
    import fcntl

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def lock() -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise in_use_error(os.fsdecode(path), directory_use(path, os.fstat(fd)), shown=shown) from error

    try:
        retry_in_use(lock)
    except BaseException:
        os.close(fd)
        raise
    return fd
