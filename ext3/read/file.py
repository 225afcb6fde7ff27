"""FileReader: the data of one regular file as a seekable stream. Holes read as zeros, contiguous blocks in one read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..device.base import BlockDevice, FileDevice
from ..format.block_map import Extents

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["FileReader", "SeekableFile"]

READ_BYTES = 8 << 20
"""Most bytes of one device read."""


class SeekableFile(io.RawIOBase):
    """Base of the file streams: position and seek. Subclasses have ``size``, in bytes."""

    size: int
    _position: int = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Return the new position, in bytes, possibly behind the end. Raise ValueError if it is negative."""
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None:
            raise ValueError(f"whence {whence} is not 0, 1 or 2")
        if base + offset < 0:
            raise ValueError(f"a file has no byte {base + offset}")
        self._position = base + offset
        return self._position

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")


class FileReader(SeekableFile):
    """File of ``size`` bytes mapped by ``extents``."""

    def __init__(self, device: BlockDevice, extents: Extents, size: int, block_size: int) -> None:
        super().__init__()
        self.size = size
        self._device = device
        self._block_size = block_size
        self._extents = extents

    @property
    def extents(self) -> list[tuple[int, int, int]]:
        """Extents of the data, see ``Filesystem.data_extents``."""
        return list(self._extents)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from byte ``offset``, fewer at the end of the file; the position stays. Thread-safe."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        pieces = list(self._pieces(offset, end))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def data_ranges(self) -> list[tuple[int, int]]:
        """Return (offset, length) in bytes of what is not a hole, ascending."""
        ranges: list[tuple[int, int]] = []
        for offset, _, length in self._byte_extents():
            if ranges and sum(ranges[-1]) == offset:
                before = ranges.pop()
                ranges.append((before[0], before[1] + length))
            else:
                ranges.append((offset, length))
        return ranges

    def host_ranges(self) -> list[tuple[int, int, int, int]] | None:
        """Return (offset, descriptor, offset there, length) of the extents; None if the data is not in a file of the host."""
        device = self._device
        if not isinstance(device, FileDevice):
            return None
        return [(offset, device.fd, device.offset + place, length) for offset, place, length in self._byte_extents()]

    def _byte_extents(self) -> list[tuple[int, int, int]]:
        """Return (offset, offset on the device, length) in bytes of each extent, cut at the end of the file."""
        unit = self._block_size
        return [
            (logical * unit, physical * unit, min(count * unit, self.size - logical * unit))
            for logical, physical, count in self._extents
            if logical * unit < self.size
        ]

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into the buffer. Return the number of bytes read, fewer than it holds only at the end of the file."""
        self._check_open()
        with memoryview(buffer) as whole, whole.cast("B") as view:
            count = min(len(view), max(0, self.size - self._position))
            if count:
                self._fill(view[:count], self._position)
            self._position += count
            return count

    def readall(self) -> bytes:
        """Return the rest of the file, in memory: check ``size`` first if the image is not trusted."""
        data = bytearray(max(0, self.size - self._position))
        self.readinto(data)
        return bytes(data)

    def _fill(self, view: memoryview, position: int) -> None:
        """Fill ``view`` with the bytes from ``position`` on, all inside the file."""
        start = 0
        for piece in self._pieces(position, position + len(view)):
            view[start : start + len(piece)] = piece
            start += len(piece)

    def _pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Iterate over the bytes from ``start`` to ``end``, all inside the file: one piece for each hole and device read."""
        unit = self._block_size
        for logical, physical, count in self._extents.cut(start // unit, -(-end // unit)):
            data_start, data_end = max(start, logical * unit), min(end, (logical + count) * unit)
            if data_start > start:
                yield bytes(data_start - start)
            shift = (physical - logical) * unit
            for piece in range(data_start, data_end, READ_BYTES):
                yield self._device.read(piece + shift, min(READ_BYTES, data_end - piece))
            start = data_end
        if start < end:
            yield bytes(end - start)
