"""Image file opened for an edit or a copy: not in use, locked, and still the one of its name."""

from __future__ import annotations

import os
from functools import partial

from ext3 import hostio

from ...errors import FormatError, show
from ...file_locks import lock_range, open_locked
from ...in_use import check_unused
from .sif_partition import no_locks_error

__all__ = ["open_for_edit", "open_for_copy"]


def open_for_edit(name: str, *, require_lock: bool) -> tuple[int, bool]:
    """Open an image for writing, locked; return its descriptor, and False if file locking is unavailable.

    Raises ImageInUseError if others use it, FormatError if it is no regular file, OSError, and with ``require_lock``
    SifkitError if it cannot be locked.
    """
    return _open(name, write=True, writers_only=False, require_lock=require_lock)


def open_for_copy(name: str, *, writers_only: bool = True, require_lock: bool = False) -> tuple[int, bool]:
    """As ``open_for_edit``, for reading. ``writers_only``: others may use it, but not write to it."""
    return _open(name, write=False, writers_only=writers_only, require_lock=require_lock)


def _open(name: str, *, write: bool, writers_only: bool, require_lock: bool) -> tuple[int, bool]:
    def lock(fd: int) -> bool:
        if not hostio.is_regular(fd):
            raise FormatError(f"{show(name)} is not a regular file", path=name, hint="give an image file")
        check_unused(name, writers_only=writers_only)
        locked = lock_range(fd, write=write, path=name)
        if require_lock and not locked:
            raise no_locks_error(name)
        check_unused(name, writers_only=writers_only, own_lock=True)  # others may have come before the lock
        return locked

    flags = os.O_RDWR if write else os.O_RDONLY
    return open_locked(name, partial(os.open, name, flags | hostio.NO_WAIT), lock)
