"""Verification of a new image: metadata is read back and compared with the plan, or with a checksum taken before.

Reads superblock, descriptors, bitmaps, inode tables and some directories through the device. A difference is a bug or a
broken device, and raises CorruptError.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np

from ..constants import SUPERBLOCK_OFFSET
from ..device.base import BlockDevice
from ..errors import CorruptError
from ..format.schema import GROUP_DESC, SUPERBLOCK
from .plan import Plan

__all__ = ["Written", "verify"]


class Written(NamedTuple):
    """Written range to read back: a description, byte offset and size, and the CRC-32 of its bytes."""

    what: str
    offset: int
    size: int
    checksum: int

    @classmethod
    def of(cls, what: str, offset: int, data: bytes) -> Self:
        return cls(what, offset, len(data), zlib.crc32(data))


def verify(plan: Plan, device: BlockDevice, written: Iterable[Written]) -> None:
    """Raise CorruptError if the image on ``device`` differs from the plan, or from what was ``written``."""
    geometry = plan.geometry
    size = geometry.block_size
    raw = device.read(SUPERBLOCK_OFFSET, SUPERBLOCK.size)
    found = SUPERBLOCK.record(raw)
    for name, want in (
        ("s_blocks_count", geometry.blocks),
        ("s_inodes_count", geometry.inodes),
        ("s_free_blocks_count", plan.free_blocks),
        ("s_free_inodes_count", plan.free_inodes),
    ):
        if found[name] != want:
            raise CorruptError("superblock", name, found[name], want)
    descriptors = device.read((geometry.first_data_block + 1) * size, geometry.groups * GROUP_DESC.size)
    table = GROUP_DESC.view(descriptors, geometry.groups)
    for name, total in (("bg_free_blocks_count", plan.free_blocks), ("bg_free_inodes_count", plan.free_inodes)):
        if int(table[name].sum(dtype=np.int64)) != total:
            raise CorruptError("group descriptors", name, int(table[name].sum(dtype=np.int64)), total)
    _bitmaps(plan, device)
    for piece in written:
        if zlib.crc32(device.read(piece.offset, piece.size)) != piece.checksum:
            raise CorruptError(f"{piece.what} at byte {piece.offset}", "contents", "other bytes", "what was written")


def _bitmaps(plan: Plan, device: BlockDevice) -> None:
    """Check the bitmaps of the groups in use (the others are equal and were written from one pattern)."""
    geometry = plan.geometry
    size = geometry.block_size
    used = plan.space.used_per_run(plan.used, geometry.columns.free_counts)
    last_inode_group = geometry.group_of_inode(plan.demand.inodes)[0]
    for group in range(geometry.groups):
        if used[group] == 0 and group > last_inode_group and group != geometry.groups - 1:
            continue
        bits = np.frombuffer(device.read(int(geometry.columns.block_bitmap[group]) * size, 2 * size), np.uint8)
        blocks = np.unpackbits(bits[:size], bitorder="little", count=geometry.block_count(group))
        gaps = plan.space.blocks(plan.gaps) if len(plan.gaps) else np.zeros(0, np.int64)
        first = geometry.first_block(group)
        inside = int(((gaps >= first) & (gaps < first + geometry.block_count(group))).sum())
        want = int(geometry.columns.group_overhead[group] + used[group]) - inside
        if int(blocks.sum()) != want:
            raise CorruptError(f"block bitmap of group {group}", "bits set", int(blocks.sum()), want)
