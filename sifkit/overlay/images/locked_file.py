"""Image file opened for an edit or a copy: not in use, locked, still the one of its name, and not changed by others."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from ext3 import hostio

from ...errors import FormatError, SifkitError, show
from ...file_locks import lock_range, open_locked
from ...in_use import check_unused
from .sif_partition import no_locks_error

if TYPE_CHECKING:
    from ext3.progress import Progress

__all__ = ["check_unchanged", "copy_data", "copy_range", "open_for_copy", "open_for_edit"]


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


def check_unchanged(fd: int, before: os.stat_result, name: str) -> None:
    """Raise SifkitError if the file ``name``, open as ``fd``, was written to or cut during a copy, since ``before``."""
    now = os.fstat(fd)
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise SifkitError(
            f"{show(name)} changed while it was copied", path=name, hint="stop the process that uses it, then try again"
        )


def copy_data(name: str, source: int, target: int, size: int, progress: Progress | None, start: int = 0) -> int:
    """Copy the data of ``size`` bytes of the file ``name`` from byte ``start`` on, without its holes; return the bytes copied.

    Raises SifkitError if the file ends before.
    """
    os.ftruncate(target, size)
    ranges = list(hostio.data_ranges(source, start, size))
    total = sum(length for _, length in ranges)
    if progress:
        progress.phase("copy", total, "bytes")
    for offset, length in ranges:
        copy_range(name, source, offset, target, offset - start, length, progress)
    if progress:
        progress.done()
    return total


def copy_range(name: str, source: int, offset: int, target: int, to: int, size: int, progress: Progress | None) -> None:
    """Copy a range of the file ``name`` to byte ``to`` of another, or of the same. Raises SifkitError if it ends before."""
    done = hostio.copy_bytes(source, offset, target, to, size, progress.advance if progress else None)
    if done < size:
        raise SifkitError(f"{show(name)} became shorter while it was copied", path=name, hint="stop the process that uses it")
