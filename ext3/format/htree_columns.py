"""Hash index columns: the index of a new directory planned from the hashes of all its names. See ``htree``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..constants import FileType, HashVersion
from .dirent_block import pack_dots
from .htree import node_limit, pack_node, pack_root, root_limit

__all__ = ["IndexPlan", "plan_index"]

Array64 = npt.NDArray[np.int64]

LEAF_FILL_PERCENT = 80
"""Fill of new leaves: the rest is for names added later, which would split every full leaf."""


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """Index of a new directory. ``order``: entries sorted by hash; ``leaf_first``: the start of each leaf in ``order``.

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
        """Number of blocks of the directory: the root, the nodes, the leaves."""
        return 1 + self.nodes + self.leaves

    def pack(self, ino: int, parent: int, *, version: int = HashVersion.HALF_MD4, filetype: bool = True) -> bytes:
        """Return the index blocks, the first of the directory, with ``ino`` as ``.`` and ``parent`` as ``..``.

        ``version``: that of the hashes; ``filetype``: the filesystem's feature.
        """
        size = self.block_size
        dots = pack_dots(ino, parent, size, FileType.DIRECTORY if filetype else 0).ljust(size, b"\0")
        hashes = self.hashes.tolist()
        leaves = list(range(1 + self.nodes, self.blocks))
        if not self.nodes:
            return pack_root(dots, version, 0, hashes, leaves)
        parts = np.array_split(np.arange(self.leaves), self.nodes)
        spans = [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
        root = pack_root(dots, version, 1, [hashes[span.start] for span in spans], range(1, 1 + self.nodes))
        return root + b"".join(pack_node(hashes[span], leaves[span], size) for span in spans)


def plan_index(hashes: npt.NDArray[np.uint32], sizes: Array64, block_size: int) -> IndexPlan | None:
    """Plan the index of a directory by the hashes and sizes (bytes, padded) of its entries. Return None if two levels of
    index are too small for its leaves (a directory without an index is slow but valid)."""
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
    nodes = 0
    if len(leaf_first) > root_limit(block_size):
        # Nodes too keep some room for splits.
        nodes = min(root_limit(block_size), -(-len(leaf_first) * 100 // (node_limit(block_size) * LEAF_FILL_PERCENT)))
        if len(leaf_first) > nodes * node_limit(block_size):
            return None
    sorted_hashes = hashes[order].astype(np.int64)
    starts = sorted_hashes[leaf_first]
    continued = np.zeros(len(starts), bool)
    continued[1:] = sorted_hashes[leaf_first[1:] - 1] == starts[1:]
    return IndexPlan(block_size, order, leaf_first, starts | continued, nodes)
