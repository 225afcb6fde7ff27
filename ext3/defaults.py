"""Defaults of mke2fs by size, from its mke2fs.conf and ``lib/ext2fs/mkjournal.c``."""

from __future__ import annotations

__all__ = ["default_block_size", "default_inode_ratio", "default_journal_blocks"]

MIB, TIB = 1 << 20, 1 << 40

_TYPES = ((3 * MIB, 1024, 8192), (512 * MIB, 1024, 4096), (4 * TIB, 4096, 16384), (16 * TIB, 4096, 32768))
"""(size limit, block size, bytes per inode) in mke2fs.conf: floppy, small, default, big."""

_JOURNAL_SIZES = (
    (2048, 0),
    (32768, 1024),
    (256 * 1024, 4096),
    (512 * 1024, 8192),
    (4096 * 1024, 16384),
    (8192 * 1024, 32768),
    (16384 * 1024, 65536),
    (32768 * 1024, 131072),
)


def default_block_size(size_bytes: int) -> int:
    """Return the block size for a filesystem of ``size_bytes``: 1024 below 512 MiB, else 4096."""
    return next((block for limit, block, _ in _TYPES if size_bytes < limit), 4096)


def default_inode_ratio(size_bytes: int) -> int:
    """Return the bytes per inode for a filesystem of ``size_bytes``; an explicit block size does not change it."""
    return next((ratio for limit, _, ratio in _TYPES if size_bytes < limit), 65536)


def default_journal_blocks(blocks: int) -> int:
    """Return the journal size in blocks for a filesystem of ``blocks`` blocks; 0 if it is too small for one."""
    return next((count for limit, count in _JOURNAL_SIZES if blocks < limit), 262144)
