"""The index blocks of a directory while it is being edited: read, searched, and given entries.

A table is the entries of the root or of a node. An index that is not as it should be is odd, not fatal: the names are
all in the leaves, and the caller reads those one by one. Source: Linux ``fs/ext4/namei.c`` (dx_probe, dx_insert_block,
ext4_dx_add_entry).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..constants import HashVersion
from ..format.htree import DOT_SIZE, NODE_HEAD, ROOT_HEAD
from ..format.schema import DIRENT, DX_COUNTLIMIT, DX_ENTRY, DX_ROOT_INFO

__all__ = ["Frame", "OddIndexError", "Table", "limit_of", "next_leaves", "new_node", "new_root", "read_root", "read_table"]

DOTS = 2 * DOT_SIZE
BLOCK_MASK = 0x0FFFFFFF
"""The upper bits of an entry's block number are kept for something that never came."""
MAX_LEVELS = 1
"""Levels of nodes below the root; more would need large_dir."""


class OddIndexError(Exception):
    """The index contradicts the format; what it says is no reason not to find a name."""


class Table(NamedTuple):
    """The entries in logical block ``block``, at byte ``start`` of ``data``; ``hashes[0]`` counts as 0."""

    block: int
    data: bytes
    start: int
    hashes: list[int]
    blocks: list[int]

    @property
    def full(self) -> bool:
        return len(self.hashes) >= (len(self.data) - self.start) // DX_ENTRY.size

    def slot(self, number: int) -> int:
        """The entry whose leaf or node holds this hash."""
        return bisect_right(self.hashes, number, 1) - 1

    def packed(self, hashes: Sequence[int], blocks: Sequence[int]) -> bytes:
        """The block with other entries in the table."""
        return self.data[: self.start] + _table(hashes, blocks, len(self.data) - self.start)

    def inserted(self, slot: int, number: int, block: int) -> bytes:
        """The block with one entry more, at ``slot`` (1 or more)."""
        at = self.start + slot * DX_ENTRY.size
        end = self.start + len(self.hashes) * DX_ENTRY.size
        changed = bytearray(self.data)
        changed[at + DX_ENTRY.size : end + DX_ENTRY.size] = self.data[at:end]
        DX_ENTRY.packer.pack_into(changed, at, number, block)
        limit = (len(changed) - self.start) // DX_ENTRY.size
        DX_COUNTLIMIT.packer.pack_into(changed, self.start, limit, len(self.hashes) + 1)
        return bytes(changed)


class Frame(NamedTuple):
    """A table on the way to a leaf, and the slot taken there."""

    table: Table
    slot: int


def _table(hashes: Sequence[int], blocks: Sequence[int], size: int) -> bytes:
    pack = DX_ENTRY.packer.pack
    raw = bytearray(b"".join(map(pack, hashes, blocks)))
    DX_COUNTLIMIT.packer.pack_into(raw, 0, size // DX_ENTRY.size, len(hashes))
    return bytes(raw).ljust(size, b"\0")


def limit_of(block_size: int, *, root: bool) -> int:
    """Entries the table of the root, or of a node, has room for."""
    return (block_size - (ROOT_HEAD if root else NODE_HEAD)) // DX_ENTRY.size


def read_root(data: bytes) -> tuple[int, int]:
    """(hash version, levels of nodes) of a directory's first block. OddIndexError where it is not the root of an index."""
    zero, version, length, levels, flags = DX_ROOT_INFO.packer.unpack_from(data, DOTS)
    _, dot_length, _, _ = DIRENT.packer.unpack_from(data, 0)
    if dot_length != DOT_SIZE or zero or length != DX_ROOT_INFO.size or flags & 1:
        raise OddIndexError("no root of an index")
    if version > HashVersion.TEA or levels > MAX_LEVELS:
        raise OddIndexError(f"hash version {version}, {levels} levels")
    return version, levels


def read_table(data: bytes, block: int, *, root: bool) -> Table:
    """The entries in logical block ``block``. OddIndexError where its count and limit are not those of a table."""
    start = ROOT_HEAD if root else NODE_HEAD
    if not root:
        ino, rec_len, _, _ = DIRENT.packer.unpack_from(data, 0)
        if ino or rec_len != len(data):
            raise OddIndexError(f"block {block} is no node")
    limit, count = DX_COUNTLIMIT.packer.unpack_from(data, start)
    if limit != limit_of(len(data), root=root) or not 0 < count <= limit:
        raise OddIndexError(f"block {block}: {count} entries of {limit}")
    pairs = DX_ENTRY.packer.iter_unpack(data[start : start + count * DX_ENTRY.size])
    hashes, blocks = map(list, zip(*pairs, strict=True))
    hashes[0] = 0
    return Table(block, data, start, hashes, [number & BLOCK_MASK for number in blocks])


def new_root(first_block: bytes, version: int, levels: int, hashes: Sequence[int], blocks: Sequence[int]) -> bytes:
    """The root of an index; of ``first_block`` only the two inodes and types of . and .. are used."""
    size = len(first_block)
    dot, _, _, dot_type = DIRENT.packer.unpack_from(first_block, 0)
    parent, _, _, parent_type = DIRENT.packer.unpack_from(first_block, DOT_SIZE)
    head = DIRENT.packer.pack(dot, DOT_SIZE, 1, dot_type) + b".\0\0\0"
    head += DIRENT.packer.pack(parent, size - DOT_SIZE, 2, parent_type) + b"..\0\0"
    head += DX_ROOT_INFO.packer.pack(0, version, DX_ROOT_INFO.size, levels, 0)
    return head + _table(hashes, blocks, size - ROOT_HEAD)


def new_node(hashes: Sequence[int], blocks: Sequence[int], block_size: int) -> bytes:
    """A node with these entries."""
    return DIRENT.packer.pack(0, block_size, 0, 0) + _table(hashes, blocks, block_size - NODE_HEAD)


def next_leaves(frames: Sequence[Frame], number: int, node_at: Callable[[int], Table]) -> Iterator[int]:
    """Leaves behind the one that ``frames`` lead to that begin with the same hash: their entries say so by the lowest bit.

    ``node_at`` gives the table of a node by its block.
    """
    wanted = number | 1
    *above, (table, slot) = frames
    for at in range(slot + 1, len(table.hashes)):
        if table.hashes[at] != wanted:
            return
        yield table.blocks[at]
    if not above:
        return
    root, at = above[0]
    for following in range(at + 1, len(root.hashes)):
        if root.hashes[following] != wanted:
            return
        node = node_at(root.blocks[following])
        yield node.blocks[0]
        for inner in range(1, len(node.hashes)):
            if node.hashes[inner] != wanted:
                return
            yield node.blocks[inner]
