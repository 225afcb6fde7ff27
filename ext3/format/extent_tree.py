"""Extent tree of an ext4 inode, for a check that turns it into a block map; ext3 itself has none.

The root lies in ``i_block``, nodes below it in blocks of their own. Source: Linux ``fs/ext4/ext4_extents.h``,
``fs/ext4/extents.c`` (__ext4_ext_check).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..errors import CorruptError
from .extent_schema import EXTENT, EXTENT_HEADER, EXTENT_INDEX
from .layout_columns import Table

__all__ = ["EXTENT_MAGIC", "Extent", "ExtentTree", "read_extent_tree"]

EXTENT_MAGIC = 0xF30A
MAX_DEPTH = 5
WRITTEN_MAX = 32768
"""Longest extent; a higher ``ee_len`` is one of blocks that were never written and read as zeros, with this added."""


class Extent(NamedTuple):
    """``length`` blocks of data from ``logical`` on, in blocks from ``block`` on. Not ``written``: they read as zeros."""

    logical: int
    block: int
    length: int
    written: bool


class ExtentTree(NamedTuple):
    """Extents of a file, ascending, and the blocks of the nodes below the root."""

    extents: list[Extent]
    nodes: list[int]


def read_extent_tree(root: bytes, read: Callable[[int], bytes], *, first: int, end: int, where: str) -> ExtentTree:
    """Read the tree whose root is ``root``, the 60 bytes of i_block. Blocks must lie in [first, end), the filesystem.

    Raise CorruptError (``where``) for a tree that the kernel would not take, DeviceError.
    """
    return _Reader(read, first, end, where).tree(root)


class _Reader:
    def __init__(self, read: Callable[[int], bytes], first: int, end: int, where: str) -> None:
        self._read = read
        self._first = first
        self._end = end
        self._where = where
        self._extents: list[Extent] = []
        self._nodes: dict[int, None] = {}
        self._blocks = 0

    def tree(self, root: bytes) -> ExtentTree:
        depth = int(EXTENT_HEADER.view(root)[0]["eh_depth"])
        self._require("eh_depth", depth, depth <= MAX_DEPTH, f"<= {MAX_DEPTH}")
        self._node(root, depth, 0, 1 << 32)
        return ExtentTree(self._extents, list(self._nodes))

    def _require(self, field: str, got: object, holds: bool, want: object) -> None:
        if not holds:
            raise CorruptError(self._where, field, got, want)

    def _node(self, data: bytes, depth: int, low: int, high: int) -> None:
        """Read a node whose extents lie in logical blocks [low, high)."""
        head = EXTENT_HEADER.view(data)[0]
        entries, room = int(head["eh_entries"]), (len(data) - EXTENT_HEADER.size) // EXTENT.size
        self._require("eh_magic", f"{int(head['eh_magic']):#x}", head["eh_magic"] == EXTENT_MAGIC, f"{EXTENT_MAGIC:#x}")
        self._require("eh_depth", int(head["eh_depth"]), head["eh_depth"] == depth, depth)
        most = int(head["eh_max"])
        self._require("eh_max", most, 0 < most <= room, f"from 1 to {room}")
        self._require("eh_entries", entries, entries <= most and (entries > 0 or not depth), f"<= {most}")
        if not depth:
            self._leaf(EXTENT.view(data, entries, EXTENT_HEADER.size), low, high)
            return
        rows = EXTENT_INDEX.view(data, entries, EXTENT_HEADER.size)
        starts = [*rows["ei_block"].tolist(), high]
        for at, row in enumerate(rows):
            block = int(row["ei_leaf_lo"]) | int(row["ei_leaf_hi"]) << 32
            self._require("ei_block", starts[at], low <= starts[at] < starts[at + 1] <= high, f"from {low} to {high}")
            self._require("ei_leaf", block, self._first <= block < self._end, f"from {self._first} to {self._end - 1}")
            self._require("ei_leaf", block, block not in self._nodes, "a block that is used once")
            self._nodes[block] = None
            self._node(self._read(block), depth - 1, starts[at], starts[at + 1])

    def _leaf(self, rows: Table, low: int, high: int) -> None:
        for row in rows:
            logical, length = int(row["ee_block"]), int(row["ee_len"])
            written = length <= WRITTEN_MAX
            count = length if written else length - WRITTEN_MAX
            block = int(row["ee_start_lo"]) | int(row["ee_start_hi"]) << 32
            self._require("ee_len", length, count > 0, "> 0")
            self._require("ee_block", logical, low <= logical and logical + count <= high, f"from {low} to {high}")
            inside = self._first <= block and block + count <= self._end
            self._require("ee_start", block, inside, f"{count} blocks from {self._first} to {self._end - 1}")
            self._blocks += count
            self._require("blocks", self._blocks, self._blocks <= self._end, f"<= {self._end}")
            self._extents.append(Extent(logical, block, count, written))
            low = logical + count
