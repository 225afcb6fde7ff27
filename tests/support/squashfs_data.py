"""Data of one squashfs file, laid out by hand: blocks, holes and a fragment, with no image around them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from types import SimpleNamespace

from sifkit.squashfs.codecs import GZIP, decompressor
from sifkit.squashfs.data_blocks import STORED, BlockCache
from sifkit.squashfs.file_data import SquashfsFile
from sifkit.squashfs.inode import REGULAR_KIND, Inode
from sifkit.squashfs.metadata_blocks import METADATA_BYTES, MetadataBlocks, MetadataTable
from sifkit.squashfs.source import ByteSource
from sifkit.squashfs.tables import Fragment

__all__ = ["HandMadeFile", "MemorySource"]

DATA_START = 96


class MemorySource:
    """Bytes as a source, with the reads made of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, size: int, /) -> bytes:
        self.reads.append((offset, size))
        assert offset >= 0 and offset + size <= self.size
        return self.data[offset : offset + size]


class HandMadeFile:
    """Content cut into blocks: those in ``holes`` are not stored, those in ``stored`` are not compressed.

    ``fragment_at``: the rest of the content is that far in a fragment; None: in a last block. ``image``: all bytes, the block
    list in metadata blocks behind the data. Its list begins ``list_offset`` bytes into a metadata block.
    """

    def __init__(
        self,
        content: bytes,
        *,
        block_size: int = 4096,
        holes: Iterable[int] = (),
        stored: Iterable[int] = (),
        fragment_at: int | None = None,
        fragment_stored: bool = False,
        list_offset: int = 0,
    ) -> None:
        holes, stored = set(holes), set(stored)
        self.content = bytearray(content)
        self.block_size = block_size
        count = len(content) // block_size if fragment_at is not None else -(-len(content) // block_size)
        data, words = bytearray(), []
        self.starts: list[int] = []
        for number in range(count):
            piece = content[number * block_size : (number + 1) * block_size]
            self.starts.append(DATA_START + len(data))
            if number in holes:
                words.append(0)
                self.content[number * block_size : number * block_size + len(piece)] = bytes(len(piece))
            else:
                words.append(self._add(data, piece, stored=number in stored))
        self.fragment = Fragment(0, 0)
        if fragment_at is not None:
            start = DATA_START + len(data)
            whole = b"f" * fragment_at + content[count * block_size :] + b"behind"
            self.fragment = Fragment(start, self._add(data, whole, stored=fragment_stored))
        self.words = words
        self.data_end = DATA_START + len(data)
        self.image = bytes(DATA_START) + bytes(data) + _metadata(bytes(list_offset) + struct.pack(f"<{count}I", *words))
        self.inode = Inode(
            REGULAR_KIND,
            0o100644,
            0,
            0,
            0,
            1,
            1,
            len(content),
            None,
            DATA_START,
            fragment_index=None if fragment_at is None else 0,
            fragment_offset=fragment_at or 0,
            block_list_at=list_offset,
            block_count=count,
        )

    @staticmethod
    def _add(data: bytearray, piece: bytes, *, stored: bool) -> int:
        packed = piece if stored else zlib.compress(piece)
        data += packed
        return len(packed) | STORED * stored

    def open(self, source: ByteSource | None = None, *, cache_bytes: int = 1 << 20) -> SquashfsFile:
        """The file, read from ``source`` or from memory."""
        source = source or MemorySource(self.image)
        inflate = decompressor(GZIP)
        superblock = SimpleNamespace(block_size=self.block_size, bytes_used=len(self.image))
        table = MetadataTable(MetadataBlocks(source, inflate), "table of inodes", self.data_end, len(self.image))
        reader = SimpleNamespace(
            source=source,
            data=BlockCache(source, superblock, inflate, cache_bytes),  # type: ignore[arg-type]
            inodes=SimpleNamespace(table=table),
            fragment=lambda index: self.fragment,
        )
        return SquashfsFile(reader, self.inode)  # type: ignore[arg-type]


def _metadata(raw: bytes) -> bytes:
    """The blocks of a table, compressed."""
    pieces = [zlib.compress(raw[at : at + METADATA_BYTES]) for at in range(0, len(raw), METADATA_BYTES)]
    return b"".join(struct.pack("<H", len(piece)) + piece for piece in pieces)
