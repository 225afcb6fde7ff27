"""Data objects as seekable, read-only files."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from .errors import TruncatedSIFError
from .format.descriptor import Descriptor
from .store import Store

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["ObjectReader", "check_inside"]


def check_inside(descriptor: Descriptor, store: Store) -> None:
    """Raise TruncatedSIFError if the object extends beyond the end of the file."""
    size = store.size
    if descriptor.size and descriptor.end > size:
        missing = descriptor.end - size
        raise TruncatedSIFError(
            f"object {descriptor.id} ends at byte {descriptor.end}, {missing} bytes beyond the end of the file"
        )


class ObjectReader(io.RawIOBase):
    """Reader of one object. It uses the image's file, and works as long as that is open."""

    def __init__(self, store: Store, descriptor: Descriptor) -> None:
        super().__init__()
        check_inside(descriptor, store)
        self._store = store
        self.descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check_open()
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.descriptor.size}.get(whence)
        if start is None:
            raise ValueError(f"cannot seek from {whence}")
        if start + offset < 0:
            raise ValueError("cannot seek to before the object")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        self._check_open()
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._check_open()
        with memoryview(buffer).cast("B") as view:
            size = min(len(view), self.descriptor.size - self._position)
            if size <= 0:
                return 0
            data = self._store.read(self.descriptor.offset + self._position, size)
            view[:size] = data
        self._position += size
        return size

    def write(self, data: ReadableBuffer, /) -> int:
        raise io.UnsupportedOperation("objects are written with the methods of the image")

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the object is closed")
