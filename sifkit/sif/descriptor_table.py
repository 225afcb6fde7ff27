"""Descriptors of a SIF that is only looked into, for commands that start often: the modules that edit take 10 ms to load."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from ext3 import hostio

from ..errors import FormatError, show
from . import select
from .errors import NotWritableError
from .format.descriptor import Descriptor
from .state import check_objects, load
from .store import FileStore

__all__ = ["DescriptorTable", "open_image_file"]

_NO_WRITING = {
    errno.EROFS: "edit a copy on a writable filesystem",
    errno.ETXTBSY: "wait until it is not running, or edit a copy",
}


class DescriptorTable:
    """Descriptors in use of the image in the open file ``fd``, in table order."""

    def __init__(self, fd: int) -> None:
        """Raises NotSIFError, CorruptSIFError and TruncatedSIFError."""
        store = FileStore(fd)
        state = load(store)
        check_objects(state)
        self.file_size = store.size
        self.descriptors = state.descriptors

    def __iter__(self) -> Iterator[Descriptor]:
        return iter(self.descriptors)

    @property
    def primary(self) -> Descriptor | None:
        """Primary system partition, the container's root."""
        return select.primary(self.descriptors)

    @property
    def overlays(self) -> tuple[Descriptor, ...]:
        """Overlay partitions of any group and filesystem."""
        return select.overlays(self.descriptors)

    def get(self, id: int) -> Descriptor:
        """Return the object with this ID. Raises ObjectNotFoundError, AmbiguousObjectError."""
        return select.by_id(self.descriptors, id)


def open_image_file(path: str, *, writable: bool) -> int:
    """Open the file of an image. Raises OSError, NotWritableError, and FormatError for what cannot be an image."""
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | hostio.NO_WAIT)
    except IsADirectoryError as error:
        raise FormatError(f"{show(path)} is a directory, not an image", path=path, hint="give a SIF image") from error
    except OSError as error:
        if not writable or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY):
            raise
        hint = _NO_WRITING.get(error.errno, "make it writable (chmod u+w), or edit a copy")
        text = f"cannot write to {show(path)}: {error.strerror}"
        raise NotWritableError(text, path=path, hint=hint, error=error) from error
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind) and (writable or not stat.S_ISBLK(kind)):
        os.close(fd)
        what = "a directory" if stat.S_ISDIR(kind) else "a pipe or a device"
        raise FormatError(f"{show(path)} is {what}, not an image", path=path, hint="give a SIF image")
    return fd
