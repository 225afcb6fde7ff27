"""What a filesystem must be like before it is resized.

Whatever moves or frees blocks trusts the tables: a wrong bitmap would cost a file. A growth inside the reserve moves nothing;
it needs only the descriptors, the resize inode, and the last group, which gets longer.
"""

from __future__ import annotations

import numpy as np

from ..check.census_taking import Inventory, take_census
from ..constants import (
    DIND_SLOT,
    JOURNAL_INO,
    RESIZE_INO,
    S_IFMT,
    S_IFREG,
    STATE_ERROR,
    STATE_VALID,
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
)
from ..device.base import BlockDevice
from ..edit.opening import Opened, open_for_changes
from ..errors import CorruptError, NeedsCheckError, UnsupportedError
from ..format.bitmap import FREE, GroupBitmap
from ..format.group_desc import LOCATIONS
from ..format.group_desc_columns import group_ranges_overlap, group_table, outside_group
from ..format.inode_table import inode_offset
from ..format.layout_columns import Table
from ..format.resize_inode import resize_blocks
from ..format.schema import INODE_CORE
from ..format.superblock import Superblock, limit_violations, read_superblock
from ..journal.log import read_journal
from ..read.volume import Volume

__all__ = [
    "check_descriptors",
    "check_last_group",
    "check_limits",
    "check_state",
    "check_whole",
    "open_for_resize",
    "open_tables",
    "resize_map_block",
]

SHOWN = 3


def check_state(superblock: Superblock, *, dirty: bool = False) -> None:
    """Raise NeedsCheckError for a filesystem that is marked as damaged or, unless it may be ``dirty``, has a journal to be
    replayed; UnsupportedError for features not ext3's."""
    if superblock.unsupported_features:
        raise UnsupportedError(superblock.unsupported_features, hint="the image can be read, but not resized")
    if superblock.state & STATE_ERROR:
        raise NeedsCheckError("has errors")
    if superblock.needs_recovery and not dirty:
        raise NeedsCheckError("has a journal to be replayed")
    if not superblock.state & STATE_VALID:
        raise NeedsCheckError("was not unmounted cleanly")
    if superblock.last_orphan:
        raise NeedsCheckError("has files that are to be deleted")
    if superblock.has_journal and superblock.journal_ino not in (0, JOURNAL_INO):
        raise NeedsCheckError("has a journal that is a visible file")
    geometry = superblock.geometry
    if geometry.resize_inode and geometry.first_meta_bg is not None:
        raise NeedsCheckError("has a resize inode together with meta_bg")
    if geometry.reserved_gdt_blocks and not geometry.resize_inode:
        raise NeedsCheckError("has reserved descriptor blocks without a resize inode")


def check_limits(device: BlockDevice, superblock: Superblock) -> None:
    """Raise CorruptError for numbers in the superblock beyond their limits."""
    for violation in limit_violations(device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)):
        raise violation.error
    if superblock.first_ino > superblock.inodes_count:
        raise CorruptError("superblock", "s_inodes_count", superblock.inodes_count, f"at least {superblock.first_ino}")


def check_descriptors(superblock: Superblock, groups: Table) -> None:
    """Raise CorruptError or NeedsCheckError unless the metadata of each group lies in it, and apart from the rest."""
    for field in LOCATIONS:
        outside = outside_group(superblock, groups, field)
        if outside.any():
            group = int(outside.argmax())
            raise CorruptError(f"group {group}", field, int(groups[field][group]), "a block of the group")
    if group_ranges_overlap(superblock, groups):
        raise NeedsCheckError("has metadata of groups that overlaps")


def open_tables(device: BlockDevice, superblock: Superblock) -> Opened:
    """Return the tables of a filesystem that may be resized. Nothing is written, and no journal replayed.

    Raise NeedsCheckError or CorruptError for descriptors or a resize inode that are wrong, and a journal that is not empty;
    UnsupportedError, DeviceError.
    """
    check_limits(device, superblock)
    opened = open_for_changes(device)
    groups = group_table(opened.groups)
    check_descriptors(superblock, groups)
    if opened.journal is not None and read_journal(device, superblock, groups).start:
        raise NeedsCheckError("has a journal that is not empty")
    resize_map_block(device, superblock, groups)
    return opened


def open_for_resize(device: BlockDevice) -> Opened:
    """Return the tables of a filesystem to be resized. Raises as ``check_state`` and ``open_tables`` do, and NotExt3Error."""
    superblock = read_superblock(device)
    check_state(superblock)
    return open_tables(device, superblock)


def resize_map_block(device: BlockDevice, superblock: Superblock, groups: Table) -> int | None:
    """Return the block with the map of the resize inode, every pointer of which is as it should be; None without one.

    Raises CorruptError.
    """
    geometry, size = superblock.geometry, superblock.block_size
    core = INODE_CORE.view(device.read(inode_offset(superblock, groups, RESIZE_INO), superblock.inode_size))[0]
    words = core["i_block"].tolist()
    where = f"inode {RESIZE_INO}"
    map_at = int(words[DIND_SLOT]) if geometry.resize_inode else 0
    for slot, word in enumerate(words):
        if word and (slot != DIND_SLOT or not geometry.resize_inode):
            raise CorruptError(where, f"i_block[{slot}]", word, 0)
    if not geometry.resize_inode:
        return None
    if int(core["i_mode"]) & S_IFMT != S_IFREG or not core["i_links_count"]:
        raise CorruptError(where, "i_mode", oct(core["i_mode"]), "that of a regular file in use")
    if not superblock.first_data_block < map_at < superblock.blocks_count:
        raise CorruptError(where, f"i_block[{DIND_SLOT}]", map_at, f"< {superblock.blocks_count}")
    for first, rows in resize_blocks(geometry, map_at):
        if first + len(rows) > superblock.blocks_count:
            raise CorruptError(where, "reserved descriptor block", first + len(rows) - 1, f"< {superblock.blocks_count}")
        found = np.frombuffer(device.read(first * size, len(rows) * size), "<u4").reshape(rows.shape)
        different = found != rows
        if first != map_at:
            different &= rows != 0  # as in a check, slots that lead nowhere do not matter
        if different.any():
            row, slot = (int(number) for number in np.argwhere(different)[0])
            name = f"pointers in block {first + row}[{slot}]"
            raise CorruptError(where, name, int(found[row, slot]), int(rows[row, slot]))
    return map_at


def check_last_group(device: BlockDevice, superblock: Superblock, groups: Table) -> None:
    """Check the bitmaps of the last group against its counts, their padding, and its metadata. Raises CorruptError."""
    geometry, size = superblock.geometry, superblock.block_size
    last = geometry.groups - 1
    where = f"group {last}"
    for column, counts, count in (
        ("bg_block_bitmap", "bg_free_blocks_count", geometry.block_count(last)),
        ("bg_inode_bitmap", "bg_free_inodes_count", geometry.inodes_per_group),
    ):
        raw = device.read(int(groups[column][last]) * size, size)
        bitmap = GroupBitmap(raw, count, where)
        if bitmap.free != groups[counts][last]:
            raise CorruptError(where, counts, int(groups[counts][last]), bitmap.free)
        if bitmap.pack() != raw:
            raise CorruptError(where, column, "padding that is not set", "set bits behind the last one")
        if column == "bg_block_bitmap":
            start = geometry.first_block(last)
            head = (start, geometry.head_count(last))
            places = [head, *((int(groups[field][last]), 1) for field in LOCATIONS[:2])]
            places.append((int(groups["bg_inode_table"][last]), geometry.inode_table_blocks))
            for first, length in places:
                if FREE in bitmap.cells[first - start : first - start + length]:
                    raise CorruptError(where, column, f"blocks from {first} on free", "in use: metadata")


def check_whole(volume: Volume) -> Inventory:
    """Return the census of a filesystem, with owners. Raise NeedsCheckError if anything disagrees with it, DeviceError."""
    inventory = take_census(volume, owners=True)
    if inventory.violations:
        shown = "; ".join(str(violation.error) for violation in inventory.violations[:SHOWN])
        more = len(inventory.violations) - SHOWN
        raise NeedsCheckError(f"is damaged ({shown}{f'; and {more} more' if more > 0 else ''})")
    return inventory
