"""Free blocks and inodes of a filesystem, counted in its bitmaps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..device.base import BlockDevice
from ..format.layout_columns import Table
from ..format.superblock import Superblock
from .block_maps import read_blocks

__all__ = ["count_free"]

BATCH_GROUPS = 1024
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)


def count_free(device: BlockDevice, superblock: Superblock, groups: Table) -> tuple[int, int] | None:
    """Return (free blocks, free inodes) as the bitmaps have them; None if a descriptor names no place for one.

    Raises DeviceError.
    """
    geometry = superblock.geometry
    free = []
    for column, total, per_group in (
        ("bg_block_bitmap", geometry.blocks - geometry.first_data_block, geometry.blocks_per_group),
        ("bg_inode_bitmap", geometry.inodes, geometry.inodes_per_group),
    ):
        blocks = groups[column].astype(np.int64)
        if not ((blocks >= geometry.first_data_block) & (blocks < geometry.blocks)).all():
            return None
        used = 0
        for start in range(0, len(blocks), BATCH_GROUPS):
            rows = read_blocks(device.read, blocks[start : start + BATCH_GROUPS], geometry.block_size)
            last = total - (len(blocks) - 1) * per_group if start + BATCH_GROUPS >= len(blocks) else per_group
            used += _used(rows[:-1], per_group) + _used(rows[-1:], last)
        free.append(total - used)
    return free[0], free[1]


def _used(bitmaps: npt.NDArray[np.uint8], bits: int) -> int:
    """Return how many of the first ``bits`` bits of each bitmap are set."""
    whole, rest = divmod(bits, 8)
    used = int(_ONES[bitmaps[:, :whole]].sum(dtype=np.int64))
    if rest:
        used += int(_ONES[bitmaps[:, whole] & ((1 << rest) - 1)].sum(dtype=np.int64))
    return used
