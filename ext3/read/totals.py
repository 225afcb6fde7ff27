"""Totals of a filesystem: space and inodes, and what the filesystem takes for itself."""

from __future__ import annotations

from typing import NamedTuple

from ..constants import SECTOR
from ..format.superblock import Superblock

__all__ = ["StatFS", "totals"]


class StatFS(NamedTuple):
    """Totals in bytes and inodes. ``available_bytes``: free and not reserved; ``data_limit``: bytes that all files can hold.

    ``metadata_bytes``: superblocks, descriptors, bitmaps and inode tables; ``journal_bytes``: the journal, 0 if it cannot be
    read.
    """

    total_bytes: int
    free_bytes: int
    available_bytes: int
    inodes: int
    free_inodes: int
    data_limit: int
    metadata_bytes: int
    journal_bytes: int


def totals(superblock: Superblock, journal_sectors: int) -> StatFS:
    """Return the totals, clamped to possible values. ``journal_sectors``: of the journal and the blocks that map it."""
    size = superblock.block_size
    total = superblock.blocks_count * size
    free = min(superblock.free_blocks * size, total)
    reserved = min(superblock.reserved_blocks * size, free)
    return StatFS(
        total_bytes=total,
        free_bytes=free,
        available_bytes=free - reserved,
        inodes=superblock.inodes_count,
        free_inodes=min(superblock.free_inodes, superblock.inodes_count),
        data_limit=total,
        metadata_bytes=total - min(superblock.geometry.free_blocks * size, total),
        journal_bytes=min(journal_sectors * SECTOR, total),
    )
