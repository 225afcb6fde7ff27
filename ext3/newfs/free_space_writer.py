"""Writer by position in the free space (free_space.py): contiguous positions become contiguous device writes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..constants import DIRECT_BLOCKS
from ..device.base import BlockDevice
from .free_space import FreeSpace
from .plan import Plan

__all__ = ["FreeSpaceWriter"]

WRITE_BYTES = 512 << 10
"""Indirect blocks computed at once. Larger arrays come as fresh memory from the system each time, which is slower."""


class FreeSpaceWriter:
    """Writer that splits a range of positions into runs of device blocks."""

    def __init__(self, space: FreeSpace, device: BlockDevice, block_size: int) -> None:
        self.space = space
        self.device = device
        self.block_size = block_size

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """Write ``data``, whole blocks (the last may be short), from ``position`` on."""
        view = memoryview(data)
        size = self.block_size
        for at, block, count in self.space.runs(position, -(-len(view) // size)):
            begin = (at - position) * size
            self.device.write(block * size, view[begin : begin + count * size])

    def write_blocks(self, position: int, data: npt.NDArray[np.uint8], begin: int, end: int) -> int:
        """Write blocks ``begin`` to ``end`` of ``data`` from ``position`` on. Return their number."""
        if end > begin:
            self.write(position, data[begin * self.block_size : end * self.block_size].data)
        return max(0, end - begin)

    def make_zero(self, position: int, count: int) -> None:
        """Make ``count`` blocks from ``position`` on read as zero."""
        for _, block, piece in self.space.runs(position, count):
            self.device.make_zero(block * self.block_size, piece * self.block_size)

    def write_single_indirect(self, plan: Plan, nodes: npt.NDArray[np.int64]) -> None:
        """Write the single indirect block of each of ``nodes``, whose data blocks are at consecutive positions."""
        demand = plan.demand
        pointers = demand.pointers
        at_once = max(1, WRITE_BYTES // self.block_size)
        for low in range(0, len(nodes), at_once):
            some = nodes[low : low + at_once]
            counts = demand.data_blocks[some] - DIRECT_BLOCKS
            rows = np.zeros((len(some), pointers), "<u4")
            # Most are partly filled: only the pointers in use are computed.
            node = np.repeat(np.arange(len(some)), counts)
            column = np.arange(len(node)) - np.repeat(np.cumsum(counts) - counts, counts)
            rows[node, column] = plan.space.blocks((plan.data_at[some] + DIRECT_BLOCKS)[node] + column)
            where = plan.indirect_at[some]
            # Blocks at consecutive positions go out in one write.
            bounds = [0, *(np.flatnonzero(np.diff(where) != 1) + 1).tolist(), len(some)]
            for first, last in pairwise(bounds):
                self.write(int(where[first]), rows[first:last].tobytes())
