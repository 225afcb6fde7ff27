"""Read-ahead: the data of many small files in long reads instead of one file at a time.

Most files are small and contiguous, and neighbours of other files. The columns of their inodes show which; all other files
need ``Filesystem.block_map``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from ..constants import DIRECT_BLOCKS, S_IFMT, S_IFREG
from ..errors import DeviceError
from ..format.inode import NO_MAP
from ..format.inode_fields_columns import Flags, Numbers
from ..format.inode_table_columns import Columns
from .volume import Volume

__all__ = ["ReadAhead", "contiguous_files"]

RUN_BYTES = 4 << 20
GAP_BLOCKS = 8
"""Gaps between wanted blocks are read too, up to this many blocks."""


def contiguous_files(volume: Volume, columns: Columns) -> tuple[Flags, Numbers]:
    """Return which rows are regular files without holes whose data is one run of direct blocks in the filesystem, and the
    block where it begins (0: the file is empty, or not straight)."""
    superblock = volume.superblock
    need = -(-columns.size // superblock.block_size)
    pointers = columns.rows["i_block"][:, :DIRECT_BLOCKS].astype(np.int64)
    first = pointers[:, 0]
    steps = np.arange(DIRECT_BLOCKS)
    straight = ((pointers == first[:, None] + steps) | (steps >= need[:, None])).all(axis=1)
    inside = (first >= superblock.first_data_block) & (first + need <= superblock.blocks_count) & (first > 0)
    regular = ((columns.mode & S_IFMT) == S_IFREG) & ((columns.rows["i_flags"] & NO_MAP) == 0) & ~columns.bad
    found = regular & (columns.size >= 0) & (need <= DIRECT_BLOCKS) & ((need == 0) | (straight & inside))
    return found, np.where(found & (need > 0), first, 0)


class ReadAhead:
    """Reader of straight files, fastest in the order of ``rows``.

    ``first``: first block of each row, 0 without data; ``sizes``: bytes, at most 12 blocks for a contiguous file. At most
    4 MiB are in memory.
    """

    def __init__(self, volume: Volume, first: Sequence[int], sizes: Sequence[int], rows: Sequence[int]) -> None:
        self._device = volume.device
        self._block_size = volume.superblock.block_size
        self._first = first
        self._runs: dict[int, tuple[int, int]] = {}
        """Row -> (first block, blocks) of the run that starts with it."""
        self._start = 0
        self._data = memoryview(b"")
        block_size = self._block_size
        most = RUN_BYTES // block_size
        head, begin, end = -1, 0, 0
        for row in rows:
            start = first[row]
            if not start:
                continue
            stop = start - (-sizes[row] // block_size)
            if head >= 0 and begin <= start <= end + GAP_BLOCKS and stop - begin <= most:
                end = max(end, stop)
            else:
                head, begin, end = row, start, stop
            self._runs[head] = (begin, end - begin)

    def take(self, row: int, size: int) -> memoryview:
        """Return the first ``size`` bytes of a straight file. Raises DeviceError."""
        if not size:
            return memoryview(b"")
        run = self._runs.get(row)
        if run is not None:
            self._start, blocks = run
            self._data = memoryview(b"")
            with suppress(DeviceError):  # if the run cannot be read, its files are read one by one
                self._data = memoryview(self._device.read(self._start * self._block_size, blocks * self._block_size))
        at = (self._first[row] - self._start) * self._block_size
        if 0 <= at <= len(self._data) - size:
            return self._data[at : at + size]
        return memoryview(self._device.read(self._first[row] * self._block_size, size))
