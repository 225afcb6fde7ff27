"""FileEditor: a regular file of an image that is being edited, as a seekable stream that reads, writes, cuts and punches."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ..read.file import SeekableFile
from . import file_data
from .inode_cache import InodeCache

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["FileEditor"]


class FileEditor(SeekableFile):
    """An open file. It outlives its last name: its blocks are given back when it is closed.

    ``writable`` False: it is only read. Every write is one operation; wrap it in ``io.BufferedRandom`` for small ones.
    """

    def __init__(self, nodes: InodeCache, ino: int, *, writable: bool) -> None:
        super().__init__()
        file_data.regular(nodes.edit(ino) if writable else nodes.load(ino))
        self.ino = ino
        self._nodes = nodes
        self._writable = writable
        nodes.hold(ino)

    @property
    def size(self) -> int:  # type: ignore[override]
        """In bytes, now."""
        return self._nodes.load(self.ino).record.size

    def writable(self) -> bool:
        return self._writable

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from byte ``offset``, fewer at the end of the file."""
        self._check_open()
        return file_data.read(self._nodes, self.ino, offset, size)

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at byte ``offset``."""
        self._check_writable()
        file_data.write_all(self._nodes, self.ino, offset, data)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Bytes read: as many as fit the buffer, or as there are."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            data = self.read_at(self._position, len(view))
            view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """The rest of the file. It is held in memory: look at ``size`` first where the image is not trusted."""
        data = self.read_at(self._position, max(0, self.size - self._position))
        self._position += len(data)
        return data

    def write(self, data: ReadableBuffer) -> int:
        """Write all of ``data``; how many bytes that is."""
        with memoryview(data) as whole, whole.cast("B") as view:
            self.write_at(self._position, view)
            self._position += len(view)
            return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file to ``size`` bytes (to where it stands if None), or make it longer by a hole; its size."""
        self._check_writable()
        size = self._position if size is None else size
        file_data.set_size(self._nodes, self.ino, size)
        return size

    def punch_hole(self, offset: int, length: int) -> None:
        """Make a range of bytes a hole as far as it is whole blocks, and zeros; the size stays."""
        self._check_writable()
        file_data.punch(self._nodes, self.ino, offset, length)

    def close(self) -> None:
        """Let go of the file; without a name it is deleted now."""
        if not self.closed:
            super().close()
            self._nodes.release(self.ino)

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise io.UnsupportedOperation("the file was not opened for writing")
