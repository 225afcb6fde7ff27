"""Content of files: blocks and fragments, decompressed on demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..vfs.file_tree import TreeFile
from .codecs import Inflate
from .errors import CorruptSquashfsError
from .inode import REGULAR_KIND, Inode
from .source import ByteSource
from .superblock import Superblock

if TYPE_CHECKING:
    from .reader import Reader

__all__ = ["BlockCache", "SquashfsFile", "load_files"]

STORED = 1 << 24
"""Bit of the size of a block that is not compressed."""


class BlockCache:
    """Data blocks by their byte position, the last ones kept."""

    def __init__(self, source: ByteSource, superblock: Superblock, inflate: Inflate, cache_bytes: int) -> None:
        self._source = source
        self._superblock = superblock
        self._inflate = inflate
        self._most = max(1, cache_bytes // superblock.block_size)
        self._cache: dict[tuple[int, int], bytes] = {}

    def load(self, start: int, size_word: int) -> bytes:
        """Return the block at byte ``start``."""
        found = self._cache.get((start, size_word))
        if found is None:
            found = self._read(start, size_word)
            while len(self._cache) >= self._most:
                self._cache.pop(next(iter(self._cache)), None)
            self._cache[start, size_word] = found
        return found

    def _read(self, start: int, size_word: int) -> bytes:
        size, limit = size_word & ~STORED, self._superblock.block_size
        if size > limit:
            raise CorruptSquashfsError("data block", "size", size, f"at most {limit}", offset=start)
        if start + size > self._superblock.bytes_used:
            raise CorruptSquashfsError(
                "data block", "end", start + size, f"at most {self._superblock.bytes_used}", offset=start
            )
        raw = self._source.read_at(start, size)
        if size_word & STORED:
            return raw
        try:
            return self._inflate(raw, limit)
        except CorruptSquashfsError as error:
            raise error.at("data block", start) from error


class SquashfsFile:
    """Open regular file."""

    def __init__(self, reader: Reader, inode: Inode) -> None:
        self._reader = reader
        self._inode = inode
        self._block_size = reader.superblock.block_size
        self._sizes = reader.block_sizes(inode)
        self._starts = list(accumulate((size & ~STORED for size in self._sizes), initial=inode.start_block))
        self._fragment = None if inode.fragment_index is None else reader.fragment(inode.fragment_index)

    @property
    def size(self) -> int:
        return self._inode.size

    def read_at(self, offset: int, size: int, /) -> bytes:
        end = min(offset + size, self.size)
        pieces: list[bytes] = []
        while offset < end:
            number, at = divmod(offset, self._block_size)
            piece = self._block(number)[at : at + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def _block(self, number: int) -> bytes:
        wanted = min(self._block_size, self.size - number * self._block_size)
        at = 0
        if number < len(self._sizes):
            if not self._sizes[number]:
                return bytes(wanted)
            start, word = self._starts[number], self._sizes[number]
        else:
            assert self._fragment is not None
            start, word = self._fragment
            at = self._inode.fragment_offset
        found = self._reader.data.load(start, word)[at : at + wanted]
        if len(found) < wanted:
            raise CorruptSquashfsError(
                "data block", "uncompressed size", at + len(found), f"at least {at + wanted}", offset=start
            )
        return found

    def data_ranges(self) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for number in range(-(-self.size // self._block_size)):
            if number < len(self._sizes) and not self._sizes[number]:
                continue
            start = number * self._block_size
            length = min(self._block_size, self.size - start)
            if ranges and sum(ranges[-1]) == start:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
            else:
                ranges.append((start, length))
        return ranges

    def host_ranges(self) -> list[tuple[int, int, int, int]] | None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        pass


def load_files(reader: Reader, nodes: Sequence[int], *, keep_order: bool, limit: int) -> Iterator[TreeFile[int]]:
    """Yield each of ``nodes`` with its Stat, its attributes and the content of a small file."""
    order = range(len(nodes)) if keep_order else sorted(range(len(nodes)), key=nodes.__getitem__)
    for position in order:
        node = nodes[position]
        try:
            inode = reader.inode(node)
            stat = reader.stat_of(inode)
        except OSError as error:
            yield TreeFile(position, node, error, {}, None)
            continue
        xattrs: Mapping[bytes, bytes] | OSError = {}
        content: bytes | OSError | None = None
        try:
            xattrs = reader.xattrs(node)
        except OSError as error:
            xattrs = error
        if inode.kind == REGULAR_KIND and inode.size <= limit and not inode.sparse_bytes:
            try:
                content = SquashfsFile(reader, inode).read_at(0, inode.size)
            except OSError as error:
                content = error
        yield TreeFile(position, node, stat, xattrs, content)
