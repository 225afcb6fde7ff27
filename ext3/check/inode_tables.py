"""Inode tables, read whole: in long reads, without the holes of the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..device.base import BlockDevice, data_ranges
from ..errors import DeviceError
from ..format.inode_table_columns import Records
from ..format.layout_columns import Table
from ..format.superblock import Superblock

__all__ = ["TablePart", "read_tables"]

PART_BYTES = 8 << 20
"""Most bytes of a table in one read."""


class TablePart(NamedTuple):
    """Records of consecutive inodes from ``first`` on, writable; ``offset``: the byte where they lie. ``error``: why they could
    not be read; then they are zero."""

    first: int
    offset: int
    records: Records
    error: DeviceError | None = None


def read_tables(device: BlockDevice, superblock: Superblock, groups: Table) -> Iterator[TablePart]:
    """Yield the parts of all inode tables that are not holes or zero, by ascending inode number.

    A group whose table the descriptor does not name, or that leaves the filesystem, has no parts.
    """
    geometry = superblock.geometry
    size, block_size = geometry.inode_size, geometry.block_size
    count = geometry.inodes_per_group
    end = geometry.size_bytes
    rows_at_once = max(1, PART_BYTES // size)
    for group, block in enumerate(groups["bg_inode_table"].tolist()):
        begin = block * block_size
        if not max(1, geometry.first_data_block) <= block or begin + count * size > end:
            continue
        first_ino = group * count + 1
        done = 0
        """Rows of the group that were yielded or are holes."""
        for start, length in data_ranges(device, begin, count * size):
            low = max(done, (start - begin) // size)
            high = min(count, -(-(start + length - begin) // size))
            for row in range(low, high, rows_at_once):
                rows = min(rows_at_once, high - row)
                first = first_ino + row
                part = _read(device, first, begin + row * size, rows, size, keep=first < superblock.first_ino)
                if part is not None:
                    yield part
            done = max(done, high)


def _read(device: BlockDevice, first: int, offset: int, rows: int, size: int, *, keep: bool) -> TablePart | None:
    """Return a part, None if it is all zero and need not be kept: hosts may count a hole that was read as data."""
    try:
        raw = device.read(offset, rows * size)
    except DeviceError as error:
        return TablePart(first, offset, np.zeros((rows, size), np.uint8), error)
    if not keep and not np.frombuffer(raw, np.uint64).any():
        return None
    return TablePart(first, offset, np.frombuffer(bytearray(raw), np.uint8).reshape(rows, size))
