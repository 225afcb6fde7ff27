"""Backups of the superblock and the descriptors: found, compared with the primary ones, and written.

Source: e2fsprogs ``e2fsck/unix.c`` (the places tried), ``e2fsck/super.c`` (check_backup_super_block), ``lib/ext2fs/closefs.c``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..constants import (
    EXT3_MAGIC,
    MAX_BLOCK_SIZE,
    MIN_BLOCK_SIZE,
    STATE_VALID,
    SUPERBLOCK_SIZE,
    Incompat,
    RoCompat,
)
from ..device.base import BlockDevice, data_ranges
from ..errors import CorruptError, DeviceError, Ext3Error, NotExt3Error
from ..format.geometry import SPARSE_GROUPS, first_data_block
from ..format.group_desc import LOCATIONS
from ..format.group_desc_columns import group_ranges_overlap, outside_group, read_group_columns
from ..format.layout_columns import Table
from ..format.schema import GROUP_DESC, SUPERBLOCK
from ..format.superblock import Superblock, limit_violations, parse_superblock, read_superblock, set_needs_recovery
from .context import Context
from .storage import Stage

__all__ = ["BackupSuperblock", "backup_at", "backups_differ", "descriptors_sound", "find_backup", "write_backups"]

CHUNK_BYTES = 1 << 20
BLOCK_SIZES = (1024, 2048, 4096)
IGNORED = {
    "s_feature_compat": 0,
    "s_feature_incompat": Incompat.NEEDS_RECOVERY.value,
    "s_feature_ro_compat": RoCompat.LARGE_FILE.value,
}
"""Features that the kernel sets in the primary superblock alone. It does so with ext_attr, too, but a backup without that would
cost the attributes if it were needed."""


class BackupSuperblock(NamedTuple):
    """Sound backup: ``raw`` as it lies in ``block``, the first of ``group``; ``groups`` are the descriptors beside it."""

    block: int
    group: int
    raw: bytes
    superblock: Superblock
    groups: Table


def backup_at(device: BlockDevice, block: int, block_size: int = 0) -> BackupSuperblock:
    """Return the backup in ``block``, in blocks of ``block_size``; 0: of the size that fits. Raise the error of a bad one."""
    if block_size:
        return _read(device, block, block_size)
    error: Ext3Error | None = None
    for size in BLOCK_SIZES:
        try:
            return _read(device, block, size)
        except Ext3Error as problem:
            if error is None or isinstance(error, NotExt3Error):
                error = problem
    assert error is not None
    raise error


def _read(device: BlockDevice, block: int, block_size: int) -> BackupSuperblock:
    superblock = read_superblock(device, block=block, block_size=block_size)
    raw = device.read(block * block_size, SUPERBLOCK_SIZE)
    for violation in limit_violations(raw):
        raise violation.error
    group, rest = divmod(block - superblock.first_data_block, superblock.blocks_per_group)
    geometry = superblock.geometry
    if rest or not 0 < group < geometry.groups or not geometry.has_super(group):
        raise CorruptError(f"superblock in block {block}", "place", block, "the first block of a group with a backup")
    return BackupSuperblock(block, group, raw, superblock, read_group_columns(device, superblock, copy=group))


def find_backup(device: BlockDevice) -> BackupSuperblock | None:
    """Return the first sound backup at a place where one should be. One that belongs to another filesystem is passed over."""
    for block, block_size in _places(device):
        try:
            found = _read(device, block, block_size)
        except Ext3Error:
            continue
        # Old versions of mke2fs left the number of the group at 0.
        own = found.superblock.group_number in (0, min(found.group, 0xFFFF))
        if own and not found.superblock.unsupported_features:
            return found
    return None


def _places(device: BlockDevice) -> Iterator[tuple[int, int]]:
    """Yield (block, block size) where backups may lie: by full groups, by those the primary superblock tells of, by looks."""
    group_sizes = [(size, 8 * size) for size in BLOCK_SIZES]
    if device.size >= 2 * SUPERBLOCK_SIZE:
        fields = SUPERBLOCK.record(device.read(SUPERBLOCK_SIZE, SUPERBLOCK_SIZE))
        size, per_group = MIN_BLOCK_SIZE << min(fields["s_log_block_size"], 6), fields["s_blocks_per_group"]
        if fields["s_magic"] == EXT3_MAGIC and size <= MAX_BLOCK_SIZE and 8 <= per_group < 8 * size:
            group_sizes.append((size, per_group))
    for group in sorted(SPARSE_GROUPS - {0}):
        for size, per_group in group_sizes:
            block = first_data_block(size) + group * per_group
            if (block + 1) * size <= device.size:
                yield block, size
    yield from _found(device)


def _found(device: BlockDevice) -> Iterator[tuple[int, int]]:
    """Yield (block, block size) of what looks like the backup of group 1, wherever that may begin."""
    most = MAX_BLOCK_SIZE * (8 * MAX_BLOCK_SIZE + 1)
    for start, length in data_ranges(device, 0, min(device.size, most)):
        low, end = start // SUPERBLOCK_SIZE * SUPERBLOCK_SIZE, min(device.size, start + length)
        for offset in range(low, end, CHUNK_BYTES):
            count = min(CHUNK_BYTES, end - offset) // SUPERBLOCK_SIZE
            rows = SUPERBLOCK.view(device.read(offset, count * SUPERBLOCK_SIZE), count)
            for index in np.flatnonzero((rows["s_magic"] == EXT3_MAGIC) & (rows["s_block_group_nr"] == 1)).tolist():
                size = MIN_BLOCK_SIZE << min(int(rows["s_log_block_size"][index]), 6)
                block, rest = divmod(offset + index * SUPERBLOCK_SIZE, size)
                if not rest and size <= MAX_BLOCK_SIZE:
                    yield block, size


def descriptors_sound(superblock: Superblock, groups: Table) -> bool:
    """Return whether the metadata of all groups lies inside them, and apart from each other."""
    if any(outside_group(superblock, groups, field).any() for field in LOCATIONS):
        return False
    return not group_ranges_overlap(superblock, groups)


def backups_differ(context: Context) -> bool:
    """Return whether the first readable backup has other features, counts or another UUID than the primary superblock.

    A superblock that has no UUID at all gets a new one, which is no reason to check.
    """
    size, geometry = context.block_size, context.superblock.geometry
    own = SUPERBLOCK.record(bytes(context.raw))
    for group in geometry.backup_groups:
        block = geometry.first_block(group)
        try:
            raw = context.storage.read(block * size, SUPERBLOCK_SIZE)
        except DeviceError:
            continue
        fields = SUPERBLOCK.record(raw)
        if fields["s_magic"] != EXT3_MAGIC:
            continue
        try:
            parse_superblock(raw, device_size=context.storage.size)
        except Ext3Error:
            continue
        if any((own[name] ^ fields[name]) & ~ignored for name, ignored in IGNORED.items()):
            return True
        if any(own["s_uuid"]) and own["s_uuid"] != fields["s_uuid"]:
            return True
        return any(own[name] != fields[name] for name in ("s_blocks_count", "s_inodes_count"))
    return False


def write_backups(context: Context) -> None:
    """Write the superblock and the descriptors to all their backups that differ."""
    storage, geometry, size = context.storage, context.superblock.geometry, context.block_size
    raw = bytearray(context.raw)
    row = SUPERBLOCK.at(raw)
    row["s_state"] &= ~STATE_VALID
    set_needs_recovery(row, False)
    for group in geometry.backup_groups:
        row["s_block_group_nr"] = min(group, 0xFFFF)
        _put(context, geometry.first_block(group), bytes(raw))
    descriptors = context.groups.tobytes()
    per_block = geometry.descriptors_per_block * GROUP_DESC.size
    for index in range(geometry.descriptor_blocks):
        part = descriptors[index * per_block : (index + 1) * per_block].ljust(size, b"\0")
        for block in geometry.descriptor_copies(index):
            if block < geometry.blocks:
                _put(context, block, part)
        if storage.large and context.policy.writes:
            storage.flush(final=False)


def _put(context: Context, block: int, data: bytes) -> None:
    try:
        old = context.storage.read_block(block)
    except DeviceError:
        old = bytes(context.block_size)
    if old[: len(data)] != data:
        context.storage.write_block(block, data + old[len(data) :], Stage.BACKUPS)


def locations_differ(first: Table, second: Table) -> bool:
    """Return whether two tables of descriptors place any metadata differently."""
    return any(bool(np.any(first[field] != second[field])) for field in LOCATIONS)
