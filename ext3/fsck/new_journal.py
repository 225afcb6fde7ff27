"""New journal in place of one that was dropped.

Contract: comes before pass 5, which writes the bitmaps and counts of what is allocated here.
Source: e2fsprogs ``lib/ext2fs/mkjournal.c`` (ext2fs_add_journal_inode).
"""

from __future__ import annotations

import numpy as np

from ..constants import JOURNAL_BACKUP_BLOCKS, JOURNAL_INO, POINTER_SIZE, S_IFREG, SECTOR, Compat
from ..defaults import default_journal_blocks
from ..edit.blocks import Run
from ..errors import NoSpaceError
from ..format.block_map import Extent
from ..format.indirect_blocks import dense_count
from ..format.indirect_blocks_columns import IndirectBlocks
from ..format.inode import InodeRecord
from .context import Context
from .journal_check import empty_journal_superblock
from .problem import Place
from .problems.journal import JOURNAL_MISSING, JOURNAL_NO_ROOM, JOURNAL_OLD_INODE

__all__ = ["make_journal"]

NS = 1_000_000_000
CHUNK = 1 << 20
PLACE = Place(ino=JOURNAL_INO)


def make_journal(context: Context) -> None:
    """Make a journal of the default size, if it was dropped. A filesystem that is too small for one does without."""
    if not context.make_journal or not context.policy.writes:
        return
    count = default_journal_blocks(context.superblock.blocks_count)
    context.make_journal = False
    if not count or not context.fix(JOURNAL_MISSING, PLACE, want=count):
        return
    if context.census.mode[JOURNAL_INO]:
        context.leave(JOURNAL_OLD_INODE, PLACE)
        return
    pointers = context.block_size // POINTER_SIZE
    indirect = dense_count(count, pointers)
    try:
        runs = context.allocate(count + indirect, _goal(context, count + indirect))
    except NoSpaceError:
        context.leave(JOURNAL_NO_ROOM, PLACE, want=count)
        return
    numbers, extents = _split(runs, indirect)
    _zero(context, extents)
    blocks = IndirectBlocks(extents, pointers)
    place = 0
    for rows in blocks.pack(numbers):
        for row in rows:
            context.write(int(numbers[place]), row.astype("<u4").tobytes())
            place += 1
    context.write(extents[0][1], empty_journal_superblock(context, count))
    words = blocks.pack_inode(numbers).tolist()
    _write_inode(context, words, count, indirect)
    size = count * context.block_size
    context.set_superblock(
        s_feature_compat=context.superblock.compat | Compat.HAS_JOURNAL,
        s_journal_inum=JOURNAL_INO,
        s_journal_dev=0,
        s_jnl_backup_type=JOURNAL_BACKUP_BLOCKS,
        s_jnl_blocks=[*words, size >> 32, size & 0xFFFFFFFF],
    )
    context.write_backups = True


def _goal(context: Context, count: int) -> int:
    """Return where to look for the blocks: the first run of free ones behind the middle that is long enough, or the longest."""
    used = context.census.used
    middle = len(used) // 2
    best, longest = 0, 0
    for low, high in ((middle, len(used)), (context.superblock.first_data_block, middle)):
        start, length = low, 0
        for at in range(low, high, CHUNK):
            part = used[at : min(at + CHUNK, high)]
            edges = np.flatnonzero(np.diff(np.concatenate([[True], part, [True]]).astype(np.int8)))
            for begin, end in zip((edges[::2] + at).tolist(), (edges[1::2] + at).tolist(), strict=True):
                if length and begin == start + length:
                    length += end - begin
                else:
                    start, length = begin, end - begin
                if length > longest:
                    best, longest = start, length
                if longest >= count:
                    return best
    return best


def _split(runs: list[Run], indirect: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[Extent]]:
    """Return the blocks for pointers, the first ones, and the extents of the others."""
    numbers: list[int] = []
    extents: list[Extent] = []
    logical = 0
    for start, length in runs:
        taken = min(length, indirect - len(numbers))
        numbers += range(start, start + taken)
        if length > taken:
            extents.append((logical, start + taken, length - taken))
            logical += length - taken
    return np.array(numbers, np.int64), extents


def _zero(context: Context, extents: list[Extent]) -> None:
    """Make the journal's blocks read as zero, on the image itself: they may be more than memory should hold.

    Nothing on storage may still use them: what the repairs cleared, storage learns first.
    """
    storage, size = context.storage, context.block_size
    storage.flush(final=False)
    for _, block, count in extents:
        storage.base.make_zero(block * size, count * size)
    storage.base.sync()


def _write_inode(context: Context, words: list[int], count: int, indirect: int) -> None:
    superblock = context.superblock
    now = context.now * NS
    record = InodeRecord.new(superblock.inode_size, mode=S_IFREG | 0o600, uid=0, gid=0, now=now, generation=0)
    record.links = 1
    record.i_block = tuple(words)
    record.size = count * context.block_size
    record.sectors = (count + indirect) * (context.block_size // SECTOR)
    context.write_inode(JOURNAL_INO, record.pack())
    context.census.mode[JOURNAL_INO], context.census.links[JOURNAL_INO] = record.mode, record.links
