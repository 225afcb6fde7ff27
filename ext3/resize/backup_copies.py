"""Backups of the superblock and the descriptors, written after a resize.

The superblock of the first backup is marked before anything else is written, and written anew as the last thing: while it has
the mark, or other numbers than the primary one, the resize is not finished (``finish``). The mark is the error bit, with which
resize2fs marks the primary superblock. Source: e2fsprogs ``lib/ext2fs/closefs.c``, ``resize/main.c``.
"""

from __future__ import annotations

from ..constants import STATE_ERROR, STATE_VALID, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..format.geometry import Geometry
from ..format.group_desc import Groups
from ..format.schema import SUPERBLOCK
from ..format.superblock import set_needs_recovery
from .descriptors import pack_descriptors

__all__ = ["backup_superblock", "mark_first_backup", "write_backups"]

PIECE_BLOCKS = 1024
"""Most descriptor blocks in one write."""


def backup_superblock(raw: bytes, group: int) -> bytes:
    """Return the backup in ``group`` of the primary superblock ``raw``: without VALID, with its own group number."""
    copy = bytearray(raw)
    row = SUPERBLOCK.at(copy)
    row["s_state"] &= ~STATE_VALID
    set_needs_recovery(row, False)
    row["s_block_group_nr"] = min(group, 0xFFFF)
    return bytes(copy)


def mark_first_backup(device: BlockDevice, old: Geometry, new: Geometry, raw: bytes) -> None:
    """Mark the first backup of the superblock ``raw`` (1024 bytes), and sync. Nothing is done where neither geometry has one.

    If only ``new`` has one, it lies behind the old end, and has the old numbers.
    """
    for group in (old.backup_groups or new.backup_groups)[:1]:
        copy = bytearray(backup_superblock(raw, group))
        SUPERBLOCK.at(copy)["s_state"] |= STATE_ERROR
        device.write((old.first_data_block + group * old.blocks_per_group) * old.block_size, bytes(copy))
        device.sync()


def write_backups(device: BlockDevice, geometry: Geometry, raw: bytes, groups: Groups) -> None:
    """Write all backups of the superblock ``raw`` (1024 bytes) and of the descriptors, and sync."""
    size = geometry.block_size
    table = pack_descriptors(groups).ljust(geometry.descriptor_blocks * size, b"\0")
    leading = geometry.leading_descriptor_blocks
    for group in geometry.leading_backup_groups:
        for start in range(0, leading, PIECE_BLOCKS):
            part = table[start * size : min(leading, start + PIECE_BLOCKS) * size]
            device.write(geometry.descriptor_block(start, group) * size, part)
    for index in range(leading, geometry.descriptor_blocks):
        for block in geometry.descriptor_copies(index):
            device.write(block * size, table[index * size : (index + 1) * size])
    for group in geometry.backup_groups[1:]:
        device.write(geometry.first_block(group) * size, backup_superblock(raw, group))
    device.sync()
    for group in geometry.backup_groups[:1]:
        device.write(geometry.first_block(group) * size, backup_superblock(raw, group))
        device.sync()
    if not geometry.backup_groups:
        _erase_stale(device, geometry, raw)


def _erase_stale(device: BlockDevice, geometry: Geometry, raw: bytes) -> None:
    """Erase the backup in the first block behind a filesystem that was cut to one group: it must not look unfinished."""
    offset = (geometry.first_data_block + geometry.blocks_per_group) * geometry.block_size
    if geometry.has_super(1) and offset + SUPERBLOCK_SIZE <= device.size:
        found, own = SUPERBLOCK.record(device.read(offset, SUPERBLOCK_SIZE)), SUPERBLOCK.record(raw)
        if found["s_magic"] == own["s_magic"] and found["s_uuid"] == own["s_uuid"]:
            device.write(offset, bytes(SUPERBLOCK_SIZE))
            device.sync()
