"""Content of regular files: whole blocks, then the rest in a last block or in a fragment, which files share."""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .data_blocks import STORED, DataBlock, stored_bytes, wrong_length
from .errors import CorruptSquashfsError
from .inode import Inode
from .metadata_blocks import MetadataTable
from .source import FileWindow

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from .reader import Reader

__all__ = ["BlockList", "SquashfsFile"]

SEGMENT = 512
"""Blocks whose size words are decoded together."""
MAX_SEGMENTS = 64
"""Most segments of a file that are kept."""
MAX_PLACE = 1 << 63
WORD_BYTES = 4
_Words = Sequence[int]
_Segment = tuple[_Words, _Words]
"""Size words of consecutive blocks, and the first byte of each in the image."""
UNCACHED_BLOCKS = 4
"""Blocks of a read from which on they are not kept: whoever reads so much at once goes on behind it."""
MAX_RANGES = 1 << 16
"""Most data ranges reported; what is behind them is one range, as its holes are not worth the memory."""


class BlockList:
    """Size words of a file's blocks, and where the blocks lie. Decoded a segment at a time. Thread-safe."""

    def __init__(self, table: MetadataTable, inode: Inode) -> None:
        """Raises CorruptSquashfsError if the data begins where no image has bytes."""
        if inode.block_count and inode.start_block > MAX_PLACE:
            raise CorruptSquashfsError(f"inode {inode.ino}", "start_block", inode.start_block, f"at most {MAX_PLACE}")
        self.count = inode.block_count
        self._table = table
        self._references = array("Q", [inode.block_list_at])
        """Positions in the table at which the words of each segment begin, as far as they are known."""
        self._places = array("Q", [inode.start_block])
        """Positions in the image at which the blocks of each of these segments begin."""
        self._decoded: dict[int, _Segment] = {}
        self._lock = threading.Lock()

    def at(self, number: int) -> tuple[int, int]:
        """Return the first byte and the size word of a block. Raises CorruptSquashfsError and OSError."""
        segment, index = divmod(number, SEGMENT)
        words, starts = self._decoded.get(segment) or self._segment(segment)
        return starts[index], words[index]

    def segments(self) -> Iterator[tuple[int, _Words, _Words]]:
        """Iterate over all blocks: number of the first one of a segment, size words, first bytes."""
        for segment in range(-(-self.count // SEGMENT)):
            words, starts = self._decoded.get(segment) or self._segment(segment)
            yield segment * SEGMENT, words, starts

    def _segment(self, number: int) -> _Segment:
        """Return a segment, and keep it."""
        with self._lock:
            while len(self._references) <= number:
                words, starts = self._decode(len(self._references) - 1)
                place = starts[-1] + stored_bytes(words[-1])
                if place > MAX_PLACE:
                    raise CorruptSquashfsError("list of blocks", "end of the data", place, f"at most {MAX_PLACE}")
                reference = self._table.skip(self._references[-1], SEGMENT * WORD_BYTES)
                self._places.append(place)
                self._references.append(reference)
            found = self._decode(number)
            while len(self._decoded) >= MAX_SEGMENTS:
                del self._decoded[next(iter(self._decoded))]
            self._decoded[number] = found
            return found

    def _decode(self, segment: int) -> _Segment:
        count = min(SEGMENT, self.count - segment * SEGMENT)
        raw = self._table.read(self._references[segment], count * WORD_BYTES)
        words = struct.unpack(f"<{count}I", raw)
        starts = accumulate([word & ~STORED for word in words[:-1]], initial=self._places[segment])
        return array("I", words), array("Q", starts)


class SquashfsFile:
    """Open regular file. Nothing of it is read before it is needed; it needs no closing."""

    def __init__(self, reader: Reader, inode: Inode) -> None:
        self.size = inode.size
        self._reader = reader
        self._inode = inode
        self._blocks = reader.data
        self._block_size = reader.data.block_size
        self._list = BlockList(reader.inodes.table, inode)

    @property
    def has_holes(self) -> bool:
        """True if not all of it is stored. Raises CorruptSquashfsError and OSError."""
        return any(0 in words for _, words, _ in self._list.segments())

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return ``size`` bytes from byte ``offset``, fewer at the end of the file. Holes read as zeros. Thread-safe.

        Decompresses the blocks that hold these bytes and no others. Raises CorruptSquashfsError and OSError.
        """
        if offset < 0:
            raise ValueError(f"a file has no byte {offset}")
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        unit = self._block_size
        first, last = offset // unit, (end - 1) // unit
        if first == last:
            return self._block(first)[offset - first * unit : end - first * unit]
        pieces = self._many(first, last)
        pieces[0] = pieces[0][offset - first * unit :]
        pieces[-1] = pieces[-1][: end - last * unit]
        return b"".join(pieces)

    def read_into(self, offset: int, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer with the bytes from ``offset`` on; return their number, fewer only at the end of the file."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            done = 0
            while done < len(view):
                piece = self.read_at(offset + done, min(len(view) - done, UNCACHED_BLOCKS * self._block_size))
                if not piece:
                    break
                view[done : done + len(piece)] = piece
                done += len(piece)
            return done

    def data_ranges(self) -> list[tuple[int, int]]:
        """Return (offset, length) in bytes of what is not a hole, ascending. Raises CorruptSquashfsError and OSError."""
        unit, ranges, start = self._block_size, list[tuple[int, int]](), -1
        for first, words, _ in self._list.segments():
            if start >= 0 and 0 not in words:
                continue
            for number, word in enumerate(words, first):
                if word and start < 0:
                    start = number * unit
                elif not word and start >= 0 and len(ranges) < MAX_RANGES:
                    ranges.append((start, number * unit - start))
                    start = -1
        if start < 0 and self._inode.fragment_index is not None:
            start = self._list.count * unit
        if 0 <= start < self.size:
            ranges.append((start, self.size - start))
        return ranges

    def host_ranges(self) -> list[tuple[int, int, int, int]] | None:
        """Return (offset, descriptor, offset there, length) of the data if nothing of it is compressed, else None.

        Raises CorruptSquashfsError and OSError.
        """
        source = self._reader.source
        if not isinstance(source, FileWindow) or not self.size:
            return None
        ranges: list[tuple[int, int, int, int]] = []
        for offset, place, length in self._stored_pieces():
            if length < 0 or place + length > self._blocks.end or len(ranges) > MAX_RANGES:
                return None  # reading tells what is wrong, if something is
            there = source.offset + place
            before = ranges[-1] if ranges else (-1, -1, -1, 0)
            if before[0] + before[3] == offset and before[2] + before[3] == there:
                ranges[-1] = (*before[:3], before[3] + length)
            else:
                ranges.append((offset, source.fd, there, length))
        return ranges

    def _stored_pieces(self) -> Iterator[tuple[int, int, int]]:
        """Iterate over the data, as it is stored: offset, byte of the image, length; -1 for what is compressed or damaged."""
        unit = self._block_size
        for first, words, starts in self._list.segments():
            for number, word in enumerate(words, first):
                if word:
                    length = self._length(number)
                    yield number * unit, starts[number - first], length if word == STORED | length else -1
        if self._inode.fragment_index is not None and (length := self.size - self._list.count * unit):
            fragment = self._reader.fragment(self._inode.fragment_index)
            at = self._inode.fragment_offset
            stored = fragment.size_word & STORED and at + length <= stored_bytes(fragment.size_word)
            yield self._list.count * unit, fragment.start + at, length if stored else -1

    def _length(self, number: int) -> int:
        """Return how much of the file block ``number`` holds."""
        return min(self._block_size, self.size - number * self._block_size)

    def _block(self, number: int) -> bytes:
        """Return one block of the file, its rest in a fragment included."""
        length = self._length(number)
        if number >= self._list.count:
            return self._rest(length)
        start, word = self._list.at(number)
        if not word:
            return bytes(length)
        found = self._blocks.load(start, word)
        if len(found) != length:
            raise wrong_length(start, len(found), length)
        return found

    def _rest(self, length: int) -> bytes:
        """Return the last ``length`` bytes, which are in a fragment."""
        index, at = self._inode.fragment_index, self._inode.fragment_offset
        if index is None:
            raise CorruptSquashfsError(f"inode {self._inode.ino}", "blocks", self._list.count, "as many as its size needs")
        fragment = self._reader.fragment(index)
        found = self._blocks.load(fragment.start, fragment.size_word)[at : at + length]
        if len(found) != length:
            raise wrong_length(fragment.start, at + len(found), f"at least {at + length}")
        return found

    def _many(self, first: int, last: int) -> list[bytes]:
        """Return the blocks from ``first`` to ``last``."""
        if last - first < UNCACHED_BLOCKS:
            return [self._block(number) for number in range(first, last + 1)]
        end = min(last + 1, self._list.count)
        blocks = [DataBlock(*self._list.at(number), self._length(number)) for number in range(first, end)]
        pieces = self._blocks.read_many(blocks)
        if last >= end:
            pieces.append(self._rest(self._length(last)))
        return pieces

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        pass
