"""Extent trees of ext4: which are valid, and what they hold."""

from __future__ import annotations

import pytest

from ext3.errors import CorruptError
from ext3.format.extent_tree import EXTENT, EXTENT_HEADER, EXTENT_INDEX, EXTENT_MAGIC, ExtentTree, read_extent_tree

ROOT_ROOM = 4
NODE_ROOM = 84


def head(entries: int, depth: int, *, room: int = ROOT_ROOM, magic: int = EXTENT_MAGIC) -> bytes:
    return EXTENT_HEADER.packer.pack(magic, entries, room, depth, 0)


def leaf(*extents: tuple[int, int, int], room: int = ROOT_ROOM, size: int = 60) -> bytes:
    """Node of (logical, block, ee_len)."""
    rows = b"".join(EXTENT.packer.pack(logical, count, block >> 32, block & 0xFFFFFFFF) for logical, block, count in extents)
    return (head(len(extents), 0, room=room) + rows).ljust(size, b"\0")


def index(*nodes: tuple[int, int], depth: int = 1) -> bytes:
    """Root of (logical, block)."""
    rows = b"".join(EXTENT_INDEX.packer.pack(logical, block & 0xFFFFFFFF, block >> 32, 0) for logical, block in nodes)
    return (head(len(nodes), depth) + rows).ljust(60, b"\0")


def read(root: bytes, blocks: dict[int, bytes] | None = None) -> ExtentTree:
    return read_extent_tree(root, lambda block: (blocks or {})[block], first=1, end=10_000, where="inode 12")


def test_root_alone():
    tree = read(leaf((0, 100, 5), (7, 200, 32768 + 3)))
    assert tree.extents == [(0, 100, 5, True), (7, 200, 3, False)]
    assert tree.nodes == []
    assert read(leaf()).extents == []


def test_two_levels():
    nodes = {
        50: leaf((0, 100, 5), room=NODE_ROOM, size=1024),
        51: leaf((9, 300, 1), (10, 400, 2), room=NODE_ROOM, size=1024),
    }
    tree = read(index((0, 50), (9, 51)), nodes)
    assert [x.logical for x in tree.extents] == [0, 9, 10]
    assert tree.nodes == [50, 51]


INVALID = {
    "zeros": bytes(60),
    "magic": head(0, 0, magic=0xF30B).ljust(60, b"\0"),
    "too many entries": head(5, 0).ljust(60, b"\0"),
    "more than fit": head(5, 0, room=5).ljust(60, b"\0"),
    "no room": head(0, 0, room=0).ljust(60, b"\0"),
    "too deep": head(1, 6).ljust(60, b"\0"),
    "index without entries": head(0, 1).ljust(60, b"\0"),
    "extent of no blocks": leaf((0, 100, 0)),
    "block outside": leaf((0, 9_999, 2)),
    "block of 48 bits": leaf((0, 1 << 33, 1)),
    "block 0": leaf((0, 0, 1)),
    "extents that overlap": leaf((0, 100, 5), (4, 200, 1)),
    "extents out of order": leaf((5, 100, 1), (0, 200, 1)),
    "node outside": index((0, 10_000)),
    "node used twice": index((0, 50), (9, 50)),
    "nodes out of order": index((9, 50), (0, 51)),
    "node of another depth": index((0, 52)),
    "extent outside of its node's range": index((0, 50), (3, 51)),
    "more blocks than there are": leaf((0, 1, 9_000), (9_000, 1, 9_000)),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid(name):
    nodes = {
        50: leaf((0, 100, 5), room=NODE_ROOM, size=1024),
        51: leaf((9, 300, 1), room=NODE_ROOM, size=1024),
        52: (head(1, 1, room=NODE_ROOM) + EXTENT_INDEX.packer.pack(0, 50, 0, 0)).ljust(1024, b"\0"),
    }
    with pytest.raises(CorruptError, match="inode 12"):
        read(INVALID[name], nodes)
