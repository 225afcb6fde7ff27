"""Getting at the file of an image: opening it, locking it against other writers, making a new one."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

from ext3 import hostio

from ..atomic import AtomicFile, HostPath, lock_range, lock_state, new_file_mode
from ..errors import FormatError, ImageInUseError, NotReplaceableError, show
from .errors import EditError, NotWritableError
from .format.header import HEADER_BYTES, MAGIC
from .state import State, load
from .store import FileStore, Store

__all__ = [
    "NewFileStore",
    "check_file_object",
    "check_unlocked",
    "load_locked",
    "lock_for_writing",
    "new_file",
    "open_image_file",
]

SECTOR_BYTES = 512
MOST_TRIES = 5
_NO_WRITING = {
    errno.EROFS: "edit a copy on a filesystem that can be written",
    errno.ETXTBSY: "wait until nobody runs it, or edit a copy",
}


class NewFileStore(FileStore):
    """A file that has no name yet: what is in it is synced once, when it gets one."""

    def sync(self) -> None:
        pass


def open_image_file(path: str, *, writable: bool) -> int:
    """The file's descriptor. Raises OSError, NotWritableError, and FormatError for what can be no image."""
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | hostio.NO_WAIT)
    except IsADirectoryError as error:
        raise FormatError(f"{show(path)} is a directory, not an image", path=path, hint="name a SIF image") from error
    except OSError as error:
        if not writable or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY):
            raise
        hint = _NO_WRITING.get(error.errno, "make it writable (chmod u+w), or edit a copy")
        text = f"{show(path)} cannot be written: {error.strerror}"
        raise NotWritableError(text, path=path, hint=hint, error=error) from error
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind) and (writable or not stat.S_ISBLK(kind)):
        os.close(fd)
        what = "a directory" if stat.S_ISDIR(kind) else "a pipe or a device"
        raise FormatError(f"{show(path)} is {what}, not an image", path=path, hint="name a SIF image")
    return fd


def check_file_object(file: IO[bytes], fd: int | None) -> None:
    """Raise NotWritableError unless an image can be edited through a file object: read, and written where it is told to."""
    if fd is None:
        wrong = not (file.readable() and file.writable())
    else:
        file.flush()
        wrong = not hostio.is_read_write(fd)
    if wrong:
        raise NotWritableError("the file object is not open for reading and writing", hint='open the file with mode "r+b"')


def load_locked(store: Store, path: str | None) -> tuple[State, bool]:
    """Take the lock of those who change the structure, [0, DataOffset), and read what is there then.

    False where there are no locks: not on this system or filesystem, or not for a file object. Raises ImageInUseError.
    """
    if store.base % SECTOR_BYTES > SECTOR_BYTES - HEADER_BYTES:
        raise EditError(
            f"an image at byte {store.base} has its header in two sectors, which are not written at once",
            hint="copy the image to a file of its own and edit that",
        )
    fd = store.fd
    if fd is None:
        return load(store), False
    reach = 0
    for _ in range(MOST_TRIES):
        # Where the data begins is known only from the header, which may change until it is locked.
        state = load(store)
        if state.header.data_offset <= reach:
            return state, True
        reach = state.header.data_offset
        if not lock_for_writing(fd, offset=store.base, size=reach, path=path or ""):
            return state, False
    raise ImageInUseError(f"{show(path or 'the image')} changes all the time", path=path, hint="try again")


def lock_for_writing(fd: int, *, offset: int, size: int, path: str) -> bool:
    """``atomic.lock_range`` with a hint for SIF images."""
    try:
        return lock_range(fd, write=True, offset=offset, size=size, path=path)
    except ImageInUseError as error:
        error.hint = "wait until it is free, or stop the container that uses it"
        raise


def check_unlocked(store: Store, offset: int, size: int, what: str) -> None:
    """Raise ImageInUseError where a running container holds a lock on the range (it does on ext3 partitions it has mounted)."""
    if store.fd is None or size <= 0:
        return
    state, _ = lock_state(store.fd, offset=store.base + offset, size=size)
    if state in ("read", "write"):
        raise ImageInUseError(f"{what} is in use by another process", hint="stop the container that uses it")


def new_file(path: HostPath, *, mode: int, replace: bool) -> AtomicFile:
    """A file that becomes ``path`` when it is committed. Raises NotReplaceableError, TargetError, ImageInUseError.

    ``replace``: a SIF image or an empty file may be there, and nobody uses it. ``mode``: without the process's umask.
    """
    name = os.fsdecode(path)
    if os.path.lexists(name):
        _check_replaceable(name, replace)
    return AtomicFile(name, new_file_mode(mode))


def _check_replaceable(name: str, replace: bool) -> None:
    try:
        fd = open_image_file(name, writable=False)
    except FileNotFoundError:
        return  # a symbolic link to nothing yet
    except FormatError as error:
        raise NotReplaceableError(str(error), path=name, hint="give the new image another name") from error
    try:
        head = os.read(fd, HEADER_BYTES)
        if not replace:
            raise NotReplaceableError(f"{show(name)} exists", path=name, hint="give another name, or --force to replace it")
        if head and MAGIC not in head[:64]:
            hint = "give the new image another name, or remove the file first"
            raise NotReplaceableError(f"{show(name)} is no SIF image; --force replaces nothing else", path=name, hint=hint)
        if lock_state(fd)[0] in ("read", "write"):
            raise ImageInUseError(f"{show(name)} is in use by another process", path=name, hint="wait until it is free")
    finally:
        os.close(fd)
