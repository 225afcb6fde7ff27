"""Move of those blocks of the journal that lie beyond the new end.

No log may change the journal's own map: the kernel reads it before it replays. So the new blocks are marked as used in a
transaction, and the log emptied; they are zeroed, and get the superblock of an empty journal if it moves. Pointer blocks that
stay are changed in place, a sector at a time: old and new blocks are both the journal's until the next transaction, which goes
to the journal in its new place and frees the old blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import N_BLOCKS, SECTOR
from ..format.inode_table import inode_offset
from ..format.jbd_schema import JOURNAL_SUPERBLOCK
from ..format.schema import INODE_CORE, SUPERBLOCK
from ..journal.log import read_journal
from .block_moves import Moves
from .references import Pointers
from .transactions import Transactions

__all__ = ["journal_backup", "move_journal"]

Numbers = npt.NDArray[np.int64]


def move_journal(changes: Transactions, pointers: Pointers, moves: Moves) -> None:
    """Move blocks of the journal; ``pointers``: those of its map that lead to them."""
    journal, device, size = changes.journal, changes.device, changes.block_size
    assert journal is not None
    superblock = changes.superblock
    changes.take_blocks(moves.new)
    changes.leaked = len(moves.new)
    changes.settle()
    tables = np.unique(pointers.at // size)
    moving, _ = moves.index(pointers.block)
    assert moving.all()
    container: Numbers = pointers.at // size
    target = moves.moved(pointers.block)
    contents = {block: bytearray(device.read(block * size, size)) for block in tables.tolist()}
    for block, start, to in zip(container.tolist(), (pointers.at % size).tolist(), target.tolist(), strict=True):
        contents[block][start : start + 4] = to.to_bytes(4, "little")
    first = journal.extents[0][1]
    raw = bytearray(device.read(first * size, size))
    row = JOURNAL_SUPERBLOCK.view(raw)
    row["s_start"], row["s_sequence"] = 0, changes.sequence
    inside, _ = moves.index(np.array(tables))
    moved_tables = dict(zip(tables[inside].tolist(), moves.moved(tables[inside]).tolist(), strict=True))
    _zero_runs(changes, moves.new)
    for old, new in moved_tables.items():
        device.write(new * size, bytes(contents[old]))
    to_first = int(moves.moved(np.array([first]))[0])
    if to_first != first:
        device.write(to_first * size, bytes(raw))
    device.sync()
    inode_at = inode_offset(superblock, changes.groups, superblock.journal_ino)
    for block in tables[~inside].tolist():
        if block != inode_at // size:
            device.write(block * size, bytes(contents[block]))
    device.sync()
    words = _switch_inode(changes, inode_at, contents.get(inode_at // size))
    changes.write_fields(s_jnl_blocks=journal_backup(changes, words))
    changes.restart_log(read_journal(device, changes.superblock, changes.groups))
    changes.free_blocks(moves.old)
    changes.leaked = 0
    changes.settle()


def journal_backup(changes: Transactions, words: list[int]) -> list[int]:
    """Return the copy of the journal's inode that the superblock holds: its ``words``, then its size."""
    return [*words, *SUPERBLOCK.view(changes.raw)[0]["s_jnl_blocks"][N_BLOCKS:].tolist()]


def _zero_runs(changes: Transactions, blocks: Numbers) -> None:
    """Make blocks read as zero: what they held before could be taken for a transaction."""
    size = changes.block_size
    breaks = np.flatnonzero(np.diff(blocks) != 1) + 1
    for run in np.split(blocks, breaks):
        changes.device.make_zero(int(run[0]) * size, len(run) * size)


def _switch_inode(changes: Transactions, at: int, block: bytearray | None) -> list[int]:
    """Write the journal's inode, if its words change, in one write of one sector. Return the words."""
    device, size = changes.device, changes.block_size
    if block is not None:
        start = at % size
        sector = start // SECTOR * SECTOR
        device.write(at - start + sector, bytes(block[sector : sector + SECTOR]))
        device.sync()
    words: list[int] = INODE_CORE.view(device.read(at, INODE_CORE.size))[0]["i_block"].tolist()
    return words
