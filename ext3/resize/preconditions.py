"""Preconditions of a resize: what is checked in a filesystem before anything is planned.

Whatever moves or frees blocks trusts the tables: a wrong bitmap would cost a file. A growth inside the reserve moves nothing;
it needs only the descriptors, the resize inode, and the last group, which gets longer.
"""

from __future__ import annotations

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
from ..format.block_map import Pointers, parse_pointers
from ..format.group_desc import LOCATIONS, Groups
from ..format.inode_table import inode_offset
from ..format.resize_inode import resize_blocks
from ..format.schema import INODE_CORE
from ..format.superblock import Superblock, limit_violations, read_superblock
from ..journal.log import read_journal

__all__ = [
    "check_descriptors",
    "check_last_group",
    "check_limits",
    "check_state",
    "open_for_resize",
    "open_tables",
    "resize_map_block",
]


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


def check_descriptors(superblock: Superblock, groups: Groups) -> None:
    """Raise CorruptError or NeedsCheckError unless the metadata of each group lies in it, and apart from the rest."""
    geometry = superblock.geometry
    fields = [(field, groups[field], geometry.inode_table_blocks if field == "bg_inode_table" else 1) for field in LOCATIONS]
    overlap = False
    for group in range(geometry.groups):
        start = geometry.first_block(group)
        end = start + geometry.block_count(group)
        behind = start + geometry.head_count(group)
        for field, places, count in fields:
            if not start <= places[group] <= end - count:
                raise CorruptError(f"group {group}", field, places[group], "a block of the group")
        for first, count in sorted((places[group], count) for _, places, count in fields):
            overlap |= first < behind
            behind = first + count
    if overlap:
        raise NeedsCheckError("has metadata of groups that overlaps")


def open_tables(device: BlockDevice, superblock: Superblock) -> Opened:
    """Return the tables of a filesystem that may be resized. Nothing is written, and no journal replayed.

    Raise NeedsCheckError or CorruptError for descriptors or a resize inode that are wrong, and a journal that is not empty;
    UnsupportedError, DeviceError.
    """
    check_limits(device, superblock)
    opened = open_for_changes(device)
    check_descriptors(superblock, opened.groups)
    if opened.journal is not None and read_journal(device, superblock, opened.groups).start:
        raise NeedsCheckError("has a journal that is not empty")
    resize_map_block(device, superblock, opened.groups)
    return opened


def open_for_resize(device: BlockDevice) -> Opened:
    """Return the tables of a filesystem to be resized. Raises as ``check_state`` and ``open_tables`` do, and NotExt3Error."""
    superblock = read_superblock(device)
    check_state(superblock)
    return open_tables(device, superblock)


def resize_map_block(device: BlockDevice, superblock: Superblock, groups: Groups) -> int | None:
    """Return the block with the map of the resize inode, every pointer of which is as it should be; None without one.

    Raises CorruptError.
    """
    geometry, size = superblock.geometry, superblock.block_size
    core = INODE_CORE.at(device.read(inode_offset(superblock, groups, RESIZE_INO), superblock.inode_size))
    words = core["i_block"]
    where = f"inode {RESIZE_INO}"
    map_at = words[DIND_SLOT] if geometry.resize_inode else 0
    for slot, word in enumerate(words):
        if word and (slot != DIND_SLOT or not geometry.resize_inode):
            raise CorruptError(where, f"i_block[{slot}]", word, 0)
    if not geometry.resize_inode:
        return None
    if core["i_mode"] & S_IFMT != S_IFREG or not core["i_links_count"]:
        raise CorruptError(where, "i_mode", oct(core["i_mode"]), "that of a regular file in use")
    if not superblock.first_data_block < map_at < superblock.blocks_count:
        raise CorruptError(where, f"i_block[{DIND_SLOT}]", map_at, f"< {superblock.blocks_count}")
    for first, tables in resize_blocks(geometry, map_at):
        if first + len(tables) > superblock.blocks_count:
            raise CorruptError(where, "reserved descriptor block", first + len(tables) - 1, f"< {superblock.blocks_count}")
        data = device.read(first * size, len(tables) * size)
        for number, want in enumerate(tables):
            _compare_pointers(where, first + number, parse_pointers(data[number * size : (number + 1) * size]), want, map_at)
    return map_at


def _compare_pointers(where: str, block: int, found: Pointers, want: Pointers, map_at: int) -> None:
    """Raise CorruptError unless the pointers in a block of the resize inode are those that are wanted."""
    if found == want:
        return
    for slot, (one, other) in enumerate(zip(found, want, strict=True)):
        # As in a check, slots that lead nowhere do not matter but in the map itself.
        if one != other and (other or block == map_at):
            raise CorruptError(where, f"pointers in block {block}[{slot}]", one, other)


def check_last_group(device: BlockDevice, superblock: Superblock, groups: Groups) -> None:
    """Check the bitmaps of the last group against its counts, their padding, and its metadata. Raises CorruptError."""
    geometry, size = superblock.geometry, superblock.block_size
    last = geometry.groups - 1
    where = f"group {last}"
    for column, counts, count in (
        ("bg_block_bitmap", "bg_free_blocks_count", geometry.block_count(last)),
        ("bg_inode_bitmap", "bg_free_inodes_count", geometry.inodes_per_group),
    ):
        raw = device.read(groups[column][last] * size, size)
        bitmap = GroupBitmap(raw, count, where)
        if bitmap.free != groups[counts][last]:
            raise CorruptError(where, counts, groups[counts][last], bitmap.free)
        if bitmap.pack() != raw:
            raise CorruptError(where, column, "padding that is not set", "set bits behind the last one")
        if column == "bg_block_bitmap":
            start = geometry.first_block(last)
            head = (start, geometry.head_count(last))
            places = [head, *((groups[field][last], 1) for field in LOCATIONS[:2])]
            places.append((groups["bg_inode_table"][last], geometry.inode_table_blocks))
            for first, length in places:
                if FREE in bitmap.cells[first - start : first - start + length]:
                    raise CorruptError(where, column, f"blocks from {first} on free", "in use: metadata")
