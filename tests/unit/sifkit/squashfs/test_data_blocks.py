"""Cache of data blocks: bounded, and each block read once; many blocks at once."""

from __future__ import annotations

import errno
import threading
import zlib
from types import SimpleNamespace

import pytest

from sifkit.squashfs.codecs import GZIP, decompressor
from sifkit.squashfs.data_blocks import READ_BYTES, STORED, BlockCache, DataBlock
from sifkit.squashfs.errors import CorruptSquashfsError
from sifkit.squashfs.source import ByteSource

from ....support.squashfs_data import MemorySource

BLOCK = 4096


def block(number: int) -> bytes:
    return bytes([number]) * BLOCK


def packed(count: int, *, stored: bool = False) -> tuple[MemorySource, list[DataBlock]]:
    """``count`` blocks behind each other."""
    pieces = [block(number) if stored else zlib.compress(block(number)) for number in range(count)]
    blocks, start = [], 0
    for piece in pieces:
        blocks.append(DataBlock(start, len(piece) | STORED * stored, BLOCK))
        start += len(piece)
    return MemorySource(b"".join(pieces)), blocks


def cache_of(source: ByteSource, cache_bytes: int = 10 * BLOCK) -> BlockCache:
    superblock = SimpleNamespace(block_size=BLOCK, bytes_used=source.size)
    return BlockCache(source, superblock, decompressor(GZIP), cache_bytes)  # type: ignore[arg-type]


def test_block_is_read_once_while_it_is_kept() -> None:
    source, blocks = packed(12)
    cache = cache_of(source, 10 * BLOCK)
    for _ in range(2):
        for number in range(10):
            assert cache.load(*blocks[number][:2]) == block(number)
    assert len(source.reads) == 10
    cache.load(*blocks[10][:2])  # drops the one that was not used for the longest time
    cache.load(*blocks[1][:2])
    assert len(source.reads) == 11
    cache.load(*blocks[0][:2])
    assert len(source.reads) == 12


def test_cache_too_small_for_a_block_keeps_nothing() -> None:
    source, blocks = packed(1)
    cache = cache_of(source, BLOCK - 1)
    assert cache.load(*blocks[0][:2]) == cache.load(*blocks[0][:2]) == block(0)
    assert len(source.reads) == 2


def test_threads_that_want_one_block_read_it_once() -> None:
    source, blocks = packed(2)
    waiting = threading.Event()
    begun = threading.Event()

    class Slow(MemorySource):
        def read_at(self, offset: int, size: int, /) -> bytes:
            begun.set()
            assert waiting.wait(10)
            return super().read_at(offset, size)

    slow = Slow(source.data)
    cache = cache_of(slow)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(cache.load(*blocks[1][:2]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    waiting.set()
    for thread in threads:
        thread.join()
    assert found == [block(1)] * 4
    assert len(slow.reads) == 1


def test_error_is_raised_to_each_and_is_not_kept() -> None:
    source, blocks = packed(1)
    fails = True

    class Failing(MemorySource):
        def read_at(self, offset: int, size: int, /) -> bytes:
            if fails:
                raise OSError(errno.EIO, "of the disk")
            return super().read_at(offset, size)

    cache = cache_of(Failing(source.data))
    for _ in range(2):
        with pytest.raises(OSError, match="of the disk"):
            cache.load(*blocks[0][:2])
    fails = False
    assert cache.load(*blocks[0][:2]) == block(0)


@pytest.mark.parametrize(
    ("start", "word", "wrong"),
    [
        (0, STORED, "size is 0, want 1 to 4096"),
        (0, BLOCK + 1, "size is 4097, want 1 to 4096"),
        (0, 1 << 25 | 5, "size is 33554437, want 1 to 4096"),
        (30, 100, "end is 130, want at most"),
        (1 << 60, 1, "want at most"),
        (1, 20, "its gzip data is damaged"),
    ],
)
def test_impossible_block_is_an_error_with_its_place(start: int, word: int, wrong: str) -> None:
    cache = cache_of(packed(1)[0])
    with pytest.raises(CorruptSquashfsError, match=f"data block at byte {start}: .*{wrong}") as caught:
        cache.load(start, word)
    assert caught.value.offset == start


@pytest.mark.parametrize("stored", (False, True))
@pytest.mark.parametrize("threads", (1, 4))
def test_many_blocks_in_few_reads(stored: bool, threads: int) -> None:
    source, blocks = packed(200, stored=stored)
    cache = cache_of(source)
    cache.threads = threads
    hole = DataBlock(blocks[50].start, 0, BLOCK)
    assert cache.read_many([*blocks[:50], hole, hole, *blocks[50:]]) == [
        *map(block, range(50)),
        bytes(BLOCK),
        bytes(BLOCK),
        *map(block, range(50, 200)),
    ]
    assert len(source.reads) == (2 if not stored else -(-50 * BLOCK // READ_BYTES) + -(-150 * BLOCK // READ_BYTES))
    assert cache.read_many([]) == []
    assert cache.read_many([*blocks[3:5], *blocks[100:102]]) == [block(3), block(4), block(100), block(101)]


@pytest.mark.parametrize("threads", (1, 4))
def test_many_blocks_with_a_damaged_one(threads: int) -> None:
    source, blocks = packed(50)
    cache = cache_of(source)
    cache.threads = threads
    wrong = blocks[20]._replace(length=BLOCK - 1)
    with pytest.raises(CorruptSquashfsError, match=f"at byte {wrong.start}: uncompressed size is 4096, want 4095"):
        cache.read_many([*blocks[:20], wrong, *blocks[21:]])
    with pytest.raises(CorruptSquashfsError, match="size is 5000"):
        cache.read_many([*blocks, DataBlock(0, 5000, BLOCK)])
