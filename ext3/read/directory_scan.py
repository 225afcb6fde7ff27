"""Directory scan: reads many directories together, their inodes and records as numpy columns, their blocks in long reads.

Reading small directories one by one takes five times as long. Source: see ``ext3.format.dirent``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..constants import DIRECT_BLOCKS, S_IFDIR, S_IFMT, FileType
from ..device.base import BlockDevice
from ..format.dirent import MIN_REC_LEN, Entry, make_entry
from ..format.dirent_columns import read_dirent_columns
from ..format.inode import NO_MAP
from ..format.inode_fields_columns import Flags, Numbers
from ..format.inode_table_columns import Columns
from ..format.superblock import Superblock
from .inode_scan import read_columns
from .volume import Volume

__all__ = ["READ_BYTES", "Listing", "read_directories", "read_mapped_directory"]

READ_BYTES = 2 << 20
"""Most bytes of directory blocks per call; of a longer list only the first directories are read."""
USUAL_BYTES = 128
"""Assumed bytes of a directory per name."""

_TYPES: list[FileType | None] = [None, *(FileType(number) for number in range(1, 8)), *[None] * 248]
"""File type by the number in a record; None: the record has none, so the inode is needed."""


class Listing(NamedTuple):
    """Entries of a directory in disk order, without ``.`` and ``..``, and the directory's blocks."""

    entries: list[Entry]
    blocks: list[int]


def read_directories(volume: Volume, inos: Sequence[int], most_names: int = 1 << 16) -> list[Listing | None]:
    """Return the listings of the first of these directories: at least one, up to about ``most_names`` names or 2 MiB.

    None for a directory that is damaged, has indirect blocks, or has entries without a file type: ``Filesystem.scandir``
    reads it, and reports the damage.
    """
    superblock = volume.superblock
    size = superblock.block_size
    most = max(1, min(READ_BYTES, most_names * USUAL_BYTES) // size)
    inos = inos[:most]
    if not inos:
        return []
    try:
        columns = read_columns(volume, inos)
        plain, counts = _plain(superblock, columns)
        many = max(1, int(np.searchsorted(np.cumsum(counts), most, side="right")))
        plain, counts = plain[:many], counts[:many]
        pointers = columns.rows["i_block"][:many, :DIRECT_BLOCKS].astype(np.int64)
        blocks = pointers[np.arange(DIRECT_BLOCKS) < counts[:, None]]
        raw = _read_blocks(volume.device, blocks, size)
    except OSError:  # in one of them
        return read_directories(volume, inos[: len(inos) // 2], most_names) if len(inos) > 1 else [None]
    return _listings(superblock, raw, blocks, plain, counts)


def read_mapped_directory(volume: Volume, size: int, runs: Sequence[tuple[int, int, int]]) -> Listing | None:
    """Return the listing of one directory of ``size`` bytes whose block map was read: ``runs`` are its data extents.

    None as from ``read_directories``, and for a directory with holes or of more than READ_BYTES.
    """
    superblock = volume.superblock
    count, rest = divmod(size, superblock.block_size)
    if not 0 < size <= READ_BYTES or rest or sum(length for _, _, length in runs) != count or not superblock.has_filetype:
        return None
    blocks = np.array([block for _, start, length in runs for block in range(start, start + length)], np.int64)
    try:
        raw = _read_blocks(volume.device, blocks, superblock.block_size)
    except OSError:
        return None
    return _listings(superblock, raw, blocks, np.array([True]), np.array([count]))[0]


def _listings(superblock: Superblock, raw: bytes, blocks: Numbers, plain: Flags, counts: Numbers) -> list[Listing | None]:
    """Return the listings of directories with ``counts`` blocks each, whose data is in ``raw``; None if not ``plain``."""
    size, many = superblock.block_size, len(counts)
    ends = np.cumsum(counts)
    first = np.zeros(len(blocks), bool)
    first[(ends - counts)[counts > 0]] = True
    records = read_dirent_columns(raw, first, block_size=size, inodes=superblock.inodes_count)
    owner = np.repeat(np.arange(many), counts)
    kinds = records.file_types
    plain[owner[records.damaged]] = False
    plain[owner[records.at[(kinds == 0) | (kinds > 7)] // size]] = False
    types = map(_TYPES.__getitem__, kinds.tolist())
    entries = list(map(make_entry, zip(records.names, records.inodes.tolist(), types, strict=True)))
    bounds = np.searchsorted(owner[records.at // size], np.arange(many + 1)).tolist()
    edges = [0, *ends.tolist()]
    numbers = blocks.tolist()
    return [
        Listing(entries[bounds[row] : bounds[row + 1]], numbers[edges[row] : edges[row + 1]]) if good else None
        for row, good in enumerate(plain.tolist())
    ]


def _plain(superblock: Superblock, columns: Columns) -> tuple[Flags, Numbers]:
    """Return a mask of the directories with only direct blocks, all mapped and in range, and their numbers of blocks."""
    counts, rest = np.divmod(columns.size, superblock.block_size)
    pointers = columns.rows["i_block"][:, :DIRECT_BLOCKS].astype(np.int64)
    inside = (pointers >= superblock.first_data_block) & (pointers < superblock.blocks_count) & (pointers > 0)
    plain = ((columns.mode & S_IFMT) == S_IFDIR) & ((columns.rows["i_flags"] & NO_MAP) == 0) & ~columns.bad
    plain &= (rest == 0) & (counts > 0) & (counts <= DIRECT_BLOCKS)
    plain &= (inside | (np.arange(DIRECT_BLOCKS) >= counts[:, None])).all(axis=1)
    if not superblock.has_filetype:
        plain[:] = False
    return plain, np.where(plain, counts, 0)


def _read_blocks(device: BlockDevice, blocks: Numbers, size: int) -> bytes:
    """Return the blocks end to end, followed by the zeros that ``read_dirent_columns`` needs."""
    breaks = (np.flatnonzero(np.diff(blocks) != 1) + 1).tolist()
    runs = zip([0, *breaks], [*breaks, len(blocks)], strict=True) if len(blocks) else ()
    pieces = [device.read(int(blocks[low]) * size, (high - low) * size) for low, high in runs]
    return b"".join([*pieces, bytes(MIN_REC_LEN)])
