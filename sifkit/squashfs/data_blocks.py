"""Data blocks: the compressed blocks that hold the content of files, alone or, as fragments, together. With a bounded cache.

The word that says how long a block is has a bit for a block that is stored uncompressed. A word of 0 is a hole.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .block_threads import MAX_THREADS, for_each, usable_processors
from .codecs import Inflate
from .errors import CorruptSquashfsError
from .source import ByteSource
from .superblock import Superblock

__all__ = ["STORED", "BlockCache", "DataBlock", "stored_bytes", "wrong_length"]

STORED = 1 << 24
"""Bit of the size word of a block that is not compressed."""
READ_BYTES = 256 << 10
"""Most bytes of a read of several blocks, unless one block is larger."""


def stored_bytes(word: int) -> int:
    """Return the bytes that a block takes in the image."""
    return word & ~STORED


class DataBlock(NamedTuple):
    """Block at byte ``start`` of the image, with its size word, that has ``length`` bytes when it is decompressed."""

    start: int
    word: int
    length: int


class BlockCache:
    """Data blocks of an image by their place. The least recently used ones are dropped beyond ``cache_bytes``. Thread-safe."""

    def __init__(self, source: ByteSource, superblock: Superblock, inflate: Inflate, cache_bytes: int) -> None:
        self.source = source
        self.block_size = superblock.block_size
        self.threads = min(MAX_THREADS, usable_processors())
        self.end = superblock.bytes_used
        self._inflate = inflate
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._cache: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._pending: dict[tuple[int, int], threading.Lock] = {}
        """Blocks that a thread is reading, each with the lock it holds as long."""
        self._lock = threading.Lock()

    def load(self, start: int, word: int) -> bytes:
        """Return the decompressed block at byte ``start``, and keep it. Raises CorruptSquashfsError and OSError."""
        key = start, word
        while True:
            with self._lock:
                found = self._cache.get(key)
                if found is not None:
                    self._cache.move_to_end(key)
                    return found
                pending = self._pending.get(key)
                if pending is None:
                    pending = self._pending[key] = threading.Lock()
                    pending.acquire()
                    break
            with pending:  # another thread reads it
                pass
        try:
            found = self.read(start, word)
            with self._lock:
                self._keep(key, found)
        finally:
            with self._lock:
                del self._pending[key]
            pending.release()
        return found

    def _keep(self, key: tuple[int, int], data: bytes) -> None:
        self._cache[key] = data
        self._held_bytes += len(data)
        while self._held_bytes > self._cache_bytes:
            self._held_bytes -= len(self._cache.popitem(last=False)[1])

    def read(self, start: int, word: int) -> bytes:
        """Return the decompressed block at byte ``start``, without the cache. Raises CorruptSquashfsError and OSError."""
        self.check(start, word)
        return self.decompress(self.source.read_at(start, stored_bytes(word)), start, word)

    def check(self, start: int, word: int) -> None:
        """Check that a block can be read. Raises CorruptSquashfsError."""
        size = stored_bytes(word)
        if not 0 < size <= self.block_size:
            raise CorruptSquashfsError("data block", "size", size, f"1 to {self.block_size}", offset=start)
        if start + size > self.end:
            raise CorruptSquashfsError("data block", "end", start + size, f"at most {self.end}", offset=start)

    def decompress(self, raw: bytes | memoryview, start: int, word: int) -> bytes:
        """Return the decompressed data of the block at byte ``start``, stored as ``raw``. Raises CorruptSquashfsError."""
        if word & STORED:
            return bytes(raw)
        try:
            return self._inflate(raw, self.block_size)
        except CorruptSquashfsError as error:
            raise error.at("data block", start) from error

    def read_many(self, blocks: Sequence[DataBlock]) -> list[bytes]:
        """Return the decompressed blocks, read together where they lie together, in threads. They are not kept.

        Raises CorruptSquashfsError, also for a block of another length, and OSError.
        """
        pieces = [b""] * len(blocks)

        def read(numbers: range) -> None:
            first, last = blocks[numbers.start], blocks[numbers.stop - 1]
            if not first.word:
                pieces[numbers.start] = bytes(first.length)
                return
            raw = memoryview(self.source.read_at(first.start, last.start + stored_bytes(last.word) - first.start))
            for number in numbers:
                start, word, length = blocks[number]
                at = start - first.start
                pieces[number] = data = self.decompress(raw[at : at + stored_bytes(word)], start, word)
                if len(data) != length:
                    raise wrong_length(start, len(data), length)

        for_each(self._runs(blocks), read, min(self.threads, len(blocks) // 2))
        return pieces

    def _runs(self, blocks: Sequence[DataBlock]) -> Iterator[range]:
        """Iterate over the blocks in runs that are one read each; a hole is a run of its own."""
        first = size = 0
        for number, (start, word, _) in enumerate(blocks):
            if word:
                self.check(start, word)
            joins = size and word and start == blocks[number - 1].start + stored_bytes(blocks[number - 1].word)
            if number > first and not (joins and size + stored_bytes(word) <= READ_BYTES):
                yield range(first, number)
                first, size = number, 0
            size += stored_bytes(word)
        if blocks:
            yield range(first, len(blocks))


def wrong_length(start: int, got: int, want: object) -> CorruptSquashfsError:
    """Return the error of a block that decompresses to another length."""
    return CorruptSquashfsError("data block", "uncompressed size", got, want, offset=start)
