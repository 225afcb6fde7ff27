"""The hash index of a directory: which leaf holds which hashes, and the index blocks that say so.

Source: Linux ``fs/ext4/namei.c`` (dx_root, dx_node), e2fsprogs ``e2fsck/rehash.c``. Block 0 is the root: "." and "..",
then the table; with one more level, nodes follow; then come the leaves, ordinary directory blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..constants import FileType, HashVersion
from .schema import DIRENT, DX_COUNTLIMIT, DX_ENTRY, DX_ROOT_INFO

__all__ = ["Index", "plan_index"]

Array64 = npt.NDArray[np.int64]

DOT_SIZE = 12
ROOT_HEAD = 2 * DOT_SIZE + DX_ROOT_INFO.size
NODE_HEAD = DIRENT.size
LEAF_FILL_PERCENT = 80
"""Leaves are left partly empty, so that the first names added later do not split every one of them."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index over leaves. ``order``: entries sorted by hash; ``leaf_first``: where in ``order`` each leaf begins.

    ``hashes``: first hash of each leaf, its lowest bit set where the leaf before ends with the same hash. ``nodes``:
    number of interior blocks (0 where the root points at leaves).
    """

    block_size: int
    order: Array64
    leaf_first: Array64
    hashes: Array64
    nodes: int

    @property
    def leaves(self) -> int:
        return len(self.leaf_first)

    @property
    def blocks(self) -> int:
        """Blocks of the directory: the root, the nodes, the leaves."""
        return 1 + self.nodes + self.leaves

    def write(self, out: npt.NDArray[np.uint8], directory: int, parent: int) -> None:
        """Fill the index blocks at the start of ``out`` (uint8, the directory's blocks); inode numbers of . and .."""
        size = self.block_size
        head = DIRENT.packer.pack(directory, DOT_SIZE, 1, FileType.DIRECTORY) + b".\0\0\0"
        head += DIRENT.packer.pack(parent, size - DOT_SIZE, 2, FileType.DIRECTORY) + b"..\0\0"
        head += DX_ROOT_INFO.packer.pack(0, HashVersion.HALF_MD4, DX_ROOT_INFO.size, 1 if self.nodes else 0, 0)
        out[:ROOT_HEAD] = np.frombuffer(head, np.uint8)
        first_leaf = 1 + self.nodes
        leaf_blocks = np.arange(first_leaf, first_leaf + self.leaves)
        if not self.nodes:
            _write_table(out[ROOT_HEAD:size], self.hashes, leaf_blocks)
            return
        parts = np.array_split(np.arange(self.leaves), self.nodes)
        firsts = np.array([part[0] for part in parts])
        _write_table(out[ROOT_HEAD:size], self.hashes[firsts], 1 + np.arange(self.nodes))
        for number, part in enumerate(parts, 1):
            block = out[number * size : (number + 1) * size]
            block[:NODE_HEAD] = np.frombuffer(DIRENT.packer.pack(0, size, 0, 0), np.uint8)
            _write_table(block[NODE_HEAD:], self.hashes[part], leaf_blocks[part])


def _write_table(space: npt.NDArray[np.uint8], hashes: Array64, blocks: Array64) -> None:
    table = DX_ENTRY.zeros(len(hashes))
    table["hash"] = hashes
    table["block"] = blocks
    raw = table.view(np.uint8)
    space[: len(raw)] = raw
    # Slot 0 needs no hash (it covers everything below slot 1): limit and count lie there.
    space[: DX_COUNTLIMIT.size] = np.frombuffer(DX_COUNTLIMIT.packer.pack(len(space) // DX_ENTRY.size, len(hashes)), np.uint8)


def plan_index(hashes: npt.NDArray[np.uint32], sizes: Array64, block_size: int) -> Index | None:
    """The index of a directory whose entries have these hashes and sizes (bytes, padded), or None where two levels of
    index cannot reach so many leaves (the directory is then left without one, which is slow but valid)."""
    order = np.argsort(hashes, kind="stable")
    ends = np.cumsum(sizes[order])
    room = block_size * LEAF_FILL_PERCENT // 100
    largest = int(sizes.max()) if len(sizes) else 0
    room = max(room, min(block_size, largest))
    firsts = []
    first, begin = 0, 0
    while first < len(order):
        firsts.append(first)
        first = int(np.searchsorted(ends, begin + room, side="right"))
        begin = int(ends[first - 1])
    leaf_first = np.array(firsts, np.int64)
    root_limit = (block_size - ROOT_HEAD) // DX_ENTRY.size
    node_limit = (block_size - NODE_HEAD) // DX_ENTRY.size
    nodes = 0
    if len(leaf_first) > root_limit:
        # Nodes too keep some room for splits.
        nodes = min(root_limit, -(-len(leaf_first) * 100 // (node_limit * LEAF_FILL_PERCENT)))
        if len(leaf_first) > nodes * node_limit:
            return None
    sorted_hashes = hashes[order].astype(np.int64)
    starts = sorted_hashes[leaf_first]
    continued = np.zeros(len(starts), bool)
    continued[1:] = sorted_hashes[leaf_first[1:] - 1] == starts[1:]
    return Index(block_size, order, leaf_first, starts | continued, nodes)
