"""Replay: an image read through its unreplayed journal, or with the journal replayed onto it.

Source: Linux ``fs/jbd2/recovery.c`` and ``fs/ext4/super.c`` (ext4_load_journal); e2fsprogs ``e2fsck/journal.c``.
"""

from __future__ import annotations

from ..constants import EXT3_MAGIC, STATE_ERROR, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..device.block_overlay import BlockOverlay
from ..errors import Ext3Error
from ..format.group_desc import read_groups
from ..format.jbd_schema import JOURNAL_SUPERBLOCK
from ..format.schema import SUPERBLOCK
from ..format.superblock import Superblock, read_superblock, set_needs_recovery, write_superblock
from .log import Journal, Replay, read_journal, scan_log

__all__ = ["played_back", "recover", "through_journal", "write_journal_superblock"]


def through_journal(device: BlockDevice, superblock: Superblock) -> tuple[BlockDevice, Ext3Error | None]:
    """Return ``device`` as a replay of its journal would leave it; if that is impossible, ``device`` and the reason.

    Nothing is written. An image that does not need recovery is returned as it is.
    """
    if not superblock.needs_recovery or not superblock.has_journal:
        return device, None
    try:
        journal = read_journal(device, superblock, read_groups(device, superblock))
        replay = scan_log(device, journal, blocks_count=superblock.blocks_count)
        if not replay.blocks:
            return device, None
        view = played_back(device, superblock, replay)
    except Ext3Error as error:
        return device, error
    return view, None


def played_back(device: BlockDevice, superblock: Superblock, replay: Replay) -> BlockOverlay:
    """Return the device with the blocks of the log in place. Raises Ext3Error if the result is no filesystem."""
    view = BlockOverlay(device, superblock.block_size, replay.blocks, lambda block: replay.load(device, block))
    read_groups(view, read_superblock(view))
    return view


def recover(device: BlockDevice, superblock: Superblock, journal: Journal, *, leave_out: bool = False) -> Replay:
    """Replay the journal of a filesystem that needs recovery, and empty it.

    The order makes an interruption at any point harmless: blocks, then the journal superblock, then the filesystem's flag. An
    error number that the kernel left in the journal sets the error bit of s_state. ``leave_out``: content for blocks outside of
    the filesystem is left out, and is no error. If the log cannot be read, or the result
    would be no filesystem, nothing is written: CorruptError, UnsupportedError, NotExt3Error.
    """
    replay = scan_log(device, journal, blocks_count=superblock.blocks_count, leave_out=leave_out)
    played_back(device, superblock, replay)
    size = superblock.block_size
    for block in sorted(replay.blocks):
        data = replay.load(device, block)
        if block == SUPERBLOCK_OFFSET // size:
            data = _still_in_recovery(data, SUPERBLOCK_OFFSET % size)
        device.write(block * size, data)
    device.sync()
    write_journal_superblock(device, journal, start=0, sequence=replay.next_sequence)
    device.sync()
    raw = bytearray(device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
    row = SUPERBLOCK.at(raw)
    set_needs_recovery(row, False)
    if journal.errno:
        row["s_state"] |= STATE_ERROR
    write_superblock(device, raw)
    device.sync()
    return replay


def _still_in_recovery(data: bytes, place: int) -> bytes:
    """Return a superblock's block with needs_recovery set: without it an interruption now would leave a log nobody replays."""
    changed = bytearray(data)
    row = SUPERBLOCK.at(changed, place)
    if row["s_magic"] == EXT3_MAGIC:
        set_needs_recovery(row, True)
    return bytes(changed)


def write_journal_superblock(
    device: BlockDevice, journal: Journal, *, start: int, sequence: int, incompat: int | None = None
) -> None:
    """Write start and sequence of the log. ``incompat``: feature bits to add (version 1 becomes 2)."""
    raw = bytearray(journal.raw)
    row = JOURNAL_SUPERBLOCK.at(raw)
    row["s_start"], row["s_sequence"] = start, sequence
    if not start:
        row["s_errno"] = 0
    if incompat is not None:
        if journal.version == 1:
            # Fields behind s_errno are undefined in version 1.
            for name in ("s_feature_compat", "s_feature_incompat", "s_feature_ro_compat", "s_nr_users"):
                row[name] = 0
            row["s_uuid"] = row["s_users"] = b""
            row["h_blocktype"], row["s_nr_users"] = 4, 1
        row["s_feature_incompat"] |= incompat
    device.write(journal.offset(0), bytes(raw))
