"""Metadata blocks: the compressed blocks of up to 8 KiB that all tables are made of, with a bounded cache.

A table is one stream of bytes cut into blocks. Places in it are references: the block's start, in bytes from the start of the
table, in the upper bits, and in the lower 16 an offset in what the block decompresses to. Records may cross blocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from .errors import CorruptSquashfsError
from .source import ByteSource

__all__ = [
    "DEFAULT_CACHE_BYTES",
    "METADATA_BYTES",
    "LookupTable",
    "MetadataBlocks",
    "MetadataCursor",
    "MetadataTable",
    "read_pointers",
]

METADATA_BYTES = 8192
"""Bytes of a decompressed metadata block; only the last one of a table is shorter."""
DEFAULT_CACHE_BYTES = 4 << 20
HEADER_BYTES = 2
STORED = 0x8000
"""Bit of the header of a block that is not compressed."""
POINTER_BYTES = 8

Inflate = Callable[[bytes | memoryview, int], bytes]


class MetadataBlocks:
    """Blocks of an image by their byte position. The least recently used ones are dropped beyond ``cache_bytes``."""

    def __init__(self, source: ByteSource, inflate: Inflate, *, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.source = source
        self._inflate = inflate
        self._most = max(1, cache_bytes // METADATA_BYTES)
        self._cache: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        """Used without a lock: its methods are atomic, and a forked process could inherit a lock that is held."""

    def load(self, position: int, end: int) -> tuple[bytes, int]:
        """Return what the block at byte ``position`` decompresses to, never nothing, and where the next block begins.

        ``end``: of its table. Raises CorruptSquashfsError and OSError.
        """
        cache = self._cache
        found = cache.get(position)
        if found is not None:
            with suppress(KeyError):  # another thread has dropped it
                cache.move_to_end(position)
            return found
        found = cache[position] = self._read(position, end)
        while len(cache) > self._most:
            with suppress(KeyError):
                cache.popitem(last=False)
        return found

    def _read(self, position: int, end: int) -> tuple[bytes, int]:
        if not 0 <= position <= end - HEADER_BYTES:
            raise CorruptSquashfsError("metadata block", "position", position, f"below {end}, the end of its table")
        raw = self.source.read_at(position, min(HEADER_BYTES + METADATA_BYTES, end - position))
        header = raw[0] | raw[1] << 8
        size = header & ~STORED
        if not 0 < size <= METADATA_BYTES:
            raise CorruptSquashfsError("metadata block", "size", size, f"1 to {METADATA_BYTES}", offset=position)
        if size > len(raw) - HEADER_BYTES:
            most = f"at most {len(raw) - HEADER_BYTES}, where its table ends"
            raise CorruptSquashfsError("metadata block", "size", size, most, offset=position)
        data = raw[HEADER_BYTES : HEADER_BYTES + size]
        if not header & STORED:
            try:
                data = self._inflate(data, METADATA_BYTES)
            except CorruptSquashfsError as error:
                raise error.at("metadata block", position) from error
        if not data:
            raise CorruptSquashfsError("metadata block", "uncompressed size", 0, "at least 1", offset=position)
        return data, position + HEADER_BYTES + size


class MetadataTable:
    """Stream of records, from byte ``start`` to byte ``end`` of the image. ``name`` is for messages."""

    def __init__(self, blocks: MetadataBlocks, name: str, start: int, end: int) -> None:
        self._blocks = blocks
        self.name = name
        self.start = start
        self.end = end

    def place(self, reference: int) -> int:
        """Return the byte of the image at which the block of a reference begins."""
        return self.start + (reference >> 16)

    def block(self, start: int) -> bytes:
        """Return what the block at ``start``, in bytes from the start of the table, decompresses to."""
        return self._blocks.load(self.start + start, self.end)[0]

    def pieces(self, reference: int) -> Iterator[tuple[bytes, int]]:
        """Iterate from a reference to the end of the table: the bytes of each block, and what share of its stored size they
        are."""
        position = self.start + (reference >> 16)
        offset = reference & 0xFFFF
        while position < self.end:
            data, following = self._blocks.load(position, self.end)
            if offset < len(data):
                piece = data[offset:] if offset else data
                yield piece, (following - position) * len(piece) // len(data)
            offset = max(0, offset - len(data))
            position = following

    def skip(self, reference: int, size: int) -> int:
        """Return the reference of the byte ``size`` bytes behind a reference. Raises CorruptSquashfsError and OSError."""
        position, offset = self.start + (reference >> 16), (reference & 0xFFFF) + size
        while True:
            data, following = self._blocks.load(position, self.end)
            if offset < len(data):
                return position - self.start << 16 | offset
            offset -= len(data)
            position = following

    def read(self, reference: int, size: int) -> bytes:
        """Return ``size`` bytes at a reference. Raises CorruptSquashfsError if the table ends before."""
        data = self.block(reference >> 16)
        offset = reference & 0xFFFF
        if offset + size <= len(data):
            return data[offset : offset + size]
        pieces: list[bytes] = []
        left = size
        for piece, _ in self.pieces(reference):
            pieces.append(piece[:left])
            left -= len(pieces[-1])
            if not left:
                return b"".join(pieces)
        place = self.place(reference)
        raise CorruptSquashfsError(self.name, "bytes before the end", size - left, f"at least {size}", offset=place)


class MetadataCursor:
    """Reader of a table from a reference on, record by record."""

    def __init__(self, table: MetadataTable, reference: int) -> None:
        self._table = table
        self._reference = reference
        self._pieces = table.pieces(reference)
        self._data = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes. Raises CorruptSquashfsError if the table ends before."""
        while len(self._data) - self._at < size:
            piece = next(self._pieces, None)
            if piece is None:
                place = self._table.place(self._reference)
                left = len(self._data) - self._at
                raise CorruptSquashfsError(self._table.name, "bytes before the end", left, f"at least {size}", offset=place)
            self._data = self._data[self._at :] + piece[0]
            self._at = 0
        found = self._data[self._at : self._at + size]
        self._at += size
        return found


def read_pointers(source: ByteSource, name: str, start: int, count: int, end: int) -> Sequence[int]:
    """Read ``count`` pointers to metadata blocks at byte ``start``. They ascend, and lie before ``start``, as do the blocks."""
    import struct

    if count * POINTER_BYTES > end - start:
        raise CorruptSquashfsError(name, "pointers", count, f"at most {(end - start) // POINTER_BYTES}", offset=start)
    pointers = struct.unpack(f"<{count}Q", source.read_at(start, count * POINTER_BYTES))
    last = 0
    for pointer in pointers:
        if not last < pointer < start:
            raise CorruptSquashfsError(name, "pointer", pointer, f"{last + 1} to {start - 1}", offset=start)
        last = pointer
    return pointers


class LookupTable:
    """Array of ``count`` records of ``size`` bytes in metadata blocks, to which pointers at byte ``start`` lead."""

    def __init__(self, blocks: MetadataBlocks, name: str, *, start: int, end: int, count: int, size: int) -> None:
        self._blocks = blocks
        self.name = name
        self.start = start
        self.count = count
        self.size = size
        self.per_block = METADATA_BYTES // size
        self.pointers = read_pointers(blocks.source, name, start, -(-count // self.per_block), end)

    @property
    def end(self) -> int:
        """First byte behind the pointers."""
        return self.start + POINTER_BYTES * len(self.pointers)

    def block_of(self, index: int) -> tuple[bytes, int]:
        """Return the block that holds record ``index``, and the record's offset in it. Raises CorruptSquashfsError."""
        if not 0 <= index < self.count:
            raise CorruptSquashfsError(self.name, "index", index, f"below {self.count}", offset=self.start)
        number, place = divmod(index, self.per_block)
        pointer = self.pointers[number]
        following = self.pointers[number + 1] if number + 1 < len(self.pointers) else self.start
        data, _ = self._blocks.load(pointer, following)
        offset = place * self.size
        if offset + self.size > len(data):
            want = f"at least {offset + self.size}"
            raise CorruptSquashfsError(self.name, "block's uncompressed size", len(data), want, offset=pointer)
        return data, offset
