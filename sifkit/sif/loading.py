"""Files of images: opening them, locking them against other writers, creating new ones."""

from __future__ import annotations

import os
from typing import IO

from ext3 import hostio
from ext3.hostio import HostPath

from ..atomic import AtomicFile, new_file_mode
from ..errors import ImageInUseError, NotReplaceableError, show
from ..file_locks import lock_range
from ..in_use import check_open_unused
from ..replacing import Replaceable, check_output
from .errors import EditError, NotWritableError
from .format.header import HEADER_BYTES, MAGIC
from .state import State, load
from .store import FileStore, Store

__all__ = [
    "SIF_IMAGES",
    "NewFileStore",
    "check_file_object",
    "check_partition_unused",
    "load_locked",
    "lock_for_writing",
    "new_file",
]

SIF_IMAGES = Replaceable("a SIF image", "SIF images and empty files", lambda head, size: not size or MAGIC in head[:64])
"""Files that a new image may replace."""
SECTOR_BYTES = 512
MOST_TRIES = 5


class NewFileStore(FileStore):
    """Store in a file that has no name yet, and is synced once, when it gets one."""

    def sync(self) -> None:
        pass


def check_file_object(file: IO[bytes], fd: int | None) -> None:
    """Raise NotWritableError unless a file object can be read, and written at any offset."""
    if fd is None:
        wrong = not (file.readable() and file.writable())
    else:
        file.flush()
        wrong = not hostio.is_read_write(fd)
    if wrong:
        raise NotWritableError("the file object is not open for reading and writing", hint='open the file with mode "r+b"')


def load_locked(store: Store, path: str | None) -> tuple[State, bool]:
    """Lock [0, DataOffset), as editors of the structure do, and read the header and table.

    The second value is False if locking is unavailable (system, filesystem, file object). Raises ImageInUseError.
    """
    if store.base % SECTOR_BYTES > SECTOR_BYTES - HEADER_BYTES:
        raise EditError(
            f"the header of an image at byte {store.base} spans two sectors, which cannot be written atomically",
            hint="copy the image to a file of its own and edit that",
        )
    fd = store.fd
    if fd is None:
        return load(store), False
    reach = 0
    for _ in range(MOST_TRIES):
        # DataOffset is in the header, which may change until it is locked.
        state = load(store)
        if state.header.data_offset <= reach:
            return state, True
        reach = state.header.data_offset
        if not lock_for_writing(fd, offset=store.base, size=reach, path=path or ""):
            return state, False
    raise ImageInUseError(f"{show(path or 'the image')} keeps changing", path=path, hint="try again")


def lock_for_writing(fd: int, *, offset: int, size: int, path: str) -> bool:
    """Call ``file_locks.lock_range`` for writing."""
    return lock_range(fd, write=True, offset=offset, size=size, path=path)


def check_partition_unused(store: Store, offset: int, size: int, what: str) -> None:
    """Raise ImageInUseError if a partition is in use: locked, as containers do it, behind a loop device, or served by FUSE."""
    if store.fd is not None and size > 0:
        check_open_unused(store.fd, span=(store.base + offset, size), shown=what)


def new_file(path: HostPath, *, mode: int, replace: bool) -> AtomicFile:
    """Return a file that becomes ``path`` when it is committed, with ``SIF_IMAGES`` as the guard if it may ``replace`` one.

    ``mode``: before the umask. Raises NotReplaceableError, TargetError, ImageInUseError.
    """
    name = os.fsdecode(path)
    check_output(name, SIF_IMAGES, force=replace, exists=NotReplaceableError)
    return AtomicFile(name, new_file_mode(mode))
