"""Metadata blocks and the tables made of them."""

from __future__ import annotations

import struct

import pytest

from sifkit.squashfs.errors import CorruptSquashfsError
from sifkit.squashfs.metadata_blocks import LookupTable, MetadataBlocks, MetadataCursor, MetadataTable
from tests.support.squashfs_tables import metadata_blocks, never_inflate, stored_stream, stored_table
from tools.squashfs_mutants import MemorySource

STREAM = bytes(range(256)) * 100


class Counting(MemorySource):
    reads = 0

    def read_at(self, offset: int, size: int, /) -> bytes:
        self.reads += 1
        return super().read_at(offset, size)


def test_records_cross_blocks() -> None:
    table = stored_table(STREAM, before=300)
    assert table.read(0, len(STREAM)) == STREAM
    assert table.read(8190, 4) == STREAM[8190:8194]
    second = 8194 << 16
    assert table.read(second | 5, 10) == STREAM[8197:8207]
    assert table.place(second) == 300 + 8194
    assert b"".join(piece for piece, _ in table.pieces(second | 100)) == STREAM[8292:]
    assert sum(stored for _, stored in table.pieces(0)) == table.end - table.start
    cursor = MetadataCursor(table, 100)
    assert [cursor.read(9000), cursor.read(0), cursor.read(7)] == [STREAM[100:9100], b"", STREAM[9100:9107]]


def test_a_table_ends() -> None:
    table = stored_table(STREAM[:1000])
    with pytest.raises(CorruptSquashfsError, match="bytes before the end is 10, want at least 11"):
        table.read(990, 11)
    with pytest.raises(CorruptSquashfsError, match="bytes before the end is 10, want at least 11"):
        MetadataCursor(table, 990).read(11)
    with pytest.raises(CorruptSquashfsError, match="position is 5000"):
        table.read(5000 << 16, 1)
    with pytest.raises(CorruptSquashfsError):
        table.read(1 << 60, 1)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (b"\x00\x80", "size is 0"),
        (b"\x00\x00", "size is 0"),
        (b"\x01\xa0" + bytes(8193), "size is 8193, want 1 to 8192"),
        (b"\x05\x80abcd", "at most 4, where its table ends"),
        (b"\x05", "position"),
    ],
)
def test_impossible_blocks(block: bytes, text: str) -> None:
    blocks = metadata_blocks(b"head" + block)
    with pytest.raises(CorruptSquashfsError, match=text):
        blocks.load(4, 4 + len(block))


def test_compressed_blocks() -> None:
    """What a codec refuses gets the block's place; nothing is no content."""

    def inflate(data: bytes | memoryview, limit: int) -> bytes:
        assert limit == 8192
        if data == b"bad":
            raise CorruptSquashfsError("compressed block", "its data is damaged")
        return bytes(data[1:]) * 2

    blocks = MetadataBlocks(MemorySource(b"\x03\x00bad\x03\x00xab\x01\x00x"), inflate)
    assert blocks.load(5, 13) == (b"abab", 10)
    with pytest.raises(CorruptSquashfsError, match="metadata block at byte 0: its data is damaged"):
        blocks.load(0, 13)
    with pytest.raises(CorruptSquashfsError, match="metadata block at byte 10: uncompressed size is 0"):
        blocks.load(10, 13)


def test_the_cache_is_bounded() -> None:
    source = Counting(stored_stream(STREAM * 4))
    blocks = MetadataBlocks(source, never_inflate, cache_bytes=4 * 8192)
    table = MetadataTable(blocks, "table", 0, source.size)
    places = range(0, source.size, 8194)
    for place in places:
        table.block(place)
        table.block(0)  # used again and again, and kept
    assert source.reads == len(places)
    assert len(blocks._cache) == 4
    table.block(places[-1])
    assert source.reads == len(places)
    table.block(places[1])
    assert source.reads == len(places) + 1


def lookup(stream: bytes, count: int, *, pointers: list[int] | None = None) -> LookupTable:
    """A table of 16-byte records, and its pointers behind it."""
    blocks = stored_stream(stream)
    found = [1 + at for at in range(0, len(blocks), 8194)] if pointers is None else pointers
    image = b"." + blocks + struct.pack(f"<{len(found)}Q", *found)
    start = 1 + len(blocks)
    return LookupTable(metadata_blocks(image), "records", start=start, end=len(image), count=count, size=16)


def test_records_by_index() -> None:
    table = lookup(STREAM, 1600)
    for index in (0, 511, 512, 1599):
        block, offset = table.block_of(index)
        assert block[offset : offset + 16] == STREAM[16 * index : 16 * index + 16]
    for index in (-1, 1600, 1 << 40):
        with pytest.raises(CorruptSquashfsError, match=f"index is {index}"):
            table.block_of(index)


def test_a_block_that_is_too_short() -> None:
    table = lookup(STREAM[:1000], 100)
    assert table.block_of(61)[1] == 61 * 16
    with pytest.raises(CorruptSquashfsError, match="uncompressed size is 1000, want at least 1008"):
        table.block_of(62)


@pytest.mark.parametrize("pointers", [[0], [10**9], [5, 5], [6, 5], [1, 1 << 63]])
def test_pointers_that_go_elsewhere(pointers: list[int]) -> None:
    with pytest.raises(CorruptSquashfsError, match="pointer"):
        lookup(STREAM[:1000], 512 * len(pointers), pointers=pointers)


def test_more_pointers_than_bytes() -> None:
    with pytest.raises(CorruptSquashfsError, match="pointers is 8388608"):
        lookup(STREAM[:1000], 0xFFFFFFFF)
