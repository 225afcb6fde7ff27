"""FileEditor: an open regular file of a writable image, as a seekable stream that reads, writes, truncates and punches."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ..read.file import SeekableFile
from . import file_data
from .inode_cache import InodeCache
from .setattr import set_attributes
from .truncate import regular

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["FileEditor"]


class FileEditor(SeekableFile):
    """Open file. If its last name is removed, its blocks are freed when it is closed.

    ``writable`` False: read-only. Every write is one operation; wrap it in ``io.BufferedRandom`` for small ones.
    ``filesystem``: stays open as long as the file is in use.
    """

    def __init__(self, nodes: InodeCache, ino: int, *, writable: bool, filesystem: object = None) -> None:
        super().__init__()
        regular(nodes.edit(ino) if writable else nodes.load(ino))
        self.ino = ino
        self._nodes = nodes
        self._writable = writable
        self._filesystem = filesystem
        nodes.hold(ino)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Current size, in bytes."""
        return self._nodes.load(self.ino).record.size

    def writable(self) -> bool:
        return self._writable

    def read_at(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from byte ``offset``, fewer at the end of the file."""
        self._check_open()
        return file_data.read(self._nodes, self.ino, offset, size)

    def data_ranges(self) -> list[tuple[int, int]]:
        """Return (offset, length) in bytes of what is not a hole, ascending."""
        return file_data.data_ranges(self._nodes, self.ino)

    def host_ranges(self) -> None:
        """None: the data may not be in the file of the host yet."""
        return

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at byte ``offset``."""
        self._check_writable()
        file_data.write_all(self._nodes, self.ino, offset, data)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into the buffer. Return the number of bytes read, fewer than it holds only at the end of the file."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            data = self.read_at(self._position, len(view))
            view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return the rest of the file, in memory: check ``size`` first if the image is not trusted."""
        data = self.read_at(self._position, max(0, self.size - self._position))
        self._position += len(data)
        return data

    def write(self, data: ReadableBuffer) -> int:
        """Write all of ``data``. Return the number of bytes."""
        with memoryview(data) as whole, whole.cast("B") as view:
            self.write_at(self._position, view)
            self._position += len(view)
            return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Truncate the file to ``size`` bytes (None: the position), or extend it by a hole. Return its size."""
        self._check_writable()
        size = self._position if size is None else size
        set_attributes(self._nodes, self.ino, size=size)
        return size

    def punch_hole(self, offset: int, length: int) -> None:
        """Free the whole blocks of a range and zero the rest; the size stays."""
        self._check_writable()
        file_data.punch(self._nodes, self.ino, offset, length)

    def close(self) -> None:
        """Close the file; delete it if it has no name."""
        if not self.closed:
            super().close()
            self._nodes.release(self.ino)

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise io.UnsupportedOperation("the file was not opened for writing")
