"""Opening for changes: features and state are checked, the journal is replayed, bitmaps are loaded on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..alloc.system_blocks import SystemBlocks
from ..constants import FIRST_INO, STATE_ERROR, STATE_VALID
from ..device.base import BlockDevice
from ..errors import CorruptError, NeedsCheckError, UnsupportedError
from ..format.bitmap import GroupBitmap
from ..format.group_desc import Groups, metadata_block, read_groups
from ..format.superblock import Superblock, read_superblock
from ..journal.log import Journal, read_journal, scan_log
from ..journal.replay import recover

__all__ = ["Opened", "block_bitmaps", "inode_bitmaps", "open_for_changes"]


class Opened(NamedTuple):
    """Image ready for changes. ``sequence``: of the next transaction of ``journal``. ``replayed``: transactions replayed."""

    superblock: Superblock
    groups: Groups
    journal: Journal | None
    sequence: int
    replayed: int


def open_for_changes(device: BlockDevice) -> Opened:
    """Replay the journal of the image on ``device`` if it is not empty. Return the image's tables.

    Raise NeedsCheckError, with nothing written, if the image is marked as damaged, UnsupportedError for features that
    cannot be written or a journal that cannot be read, CorruptError, DeviceError.
    """
    superblock = _writable(read_superblock(device))
    groups = read_groups(device, superblock)
    journal: Journal | None = None
    sequence = replayed = 0
    if superblock.has_journal:
        journal = read_journal(device, superblock, groups)
        if superblock.needs_recovery:
            replayed = recover(device, superblock, journal).transactions
            superblock = _writable(read_superblock(device))
            groups = read_groups(device, superblock)
            journal = read_journal(device, superblock, groups)
            sequence = journal.sequence
        elif journal.start:
            # Without needs_recovery the log is ignored, as by the kernel; its sequence numbers are not used again.
            sequence = scan_log(device, journal, blocks_count=superblock.blocks_count).next_sequence
        else:
            sequence = journal.sequence
    if not superblock.state & STATE_VALID:
        raise NeedsCheckError("was not unmounted cleanly")
    return Opened(superblock, groups, journal, sequence, replayed)


def _writable(superblock: Superblock) -> Superblock:
    if superblock.unsupported_features:
        raise UnsupportedError(superblock.unsupported_features, hint="the image can be read, but not changed")
    if superblock.state & STATE_ERROR:
        raise NeedsCheckError("has errors")
    if superblock.needs_recovery and not superblock.has_journal:
        raise NeedsCheckError("needs journal recovery but has no journal")
    if not FIRST_INO <= superblock.first_ino <= superblock.inodes_count:
        raise CorruptError("superblock", "s_first_ino", superblock.first_ino, f"from {FIRST_INO} to {superblock.inodes_count}")
    return superblock


def block_bitmaps(
    device: BlockDevice, superblock: Superblock, groups: Groups, system_blocks: SystemBlocks
) -> Callable[[int], GroupBitmap]:
    """Return the loader of a group's block bitmap. It raises CorruptError if the group's own metadata is marked as free."""

    def load(group: int) -> GroupBitmap:
        first, count = superblock.geometry.first_block(group), superblock.geometry.block_count(group)
        name = f"block bitmap of group {group}"
        bitmap = _bitmap(device, superblock, metadata_block(superblock, groups, group, "bg_block_bitmap"), count, name)
        for low, high in system_blocks.of_group(group):
            if bitmap.cells.find(0, max(0, low - first), max(0, high - first)) >= 0:
                raise CorruptError(name, f"blocks {low} to {high - 1}", "free", "in use: metadata")
        return bitmap

    return load


def inode_bitmaps(device: BlockDevice, superblock: Superblock, groups: Groups) -> Callable[[int], GroupBitmap]:
    """Return the loader of a group's inode bitmap."""

    def load(group: int) -> GroupBitmap:
        block = metadata_block(superblock, groups, group, "bg_inode_bitmap")
        return _bitmap(device, superblock, block, superblock.inodes_per_group, f"inode bitmap of group {group}")

    return load


def _bitmap(device: BlockDevice, superblock: Superblock, block: int, count: int, name: str) -> GroupBitmap:
    return GroupBitmap(device.read(block * superblock.block_size, superblock.block_size), count, name)
