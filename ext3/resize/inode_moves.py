"""Moves of inodes to lower numbers, in batches of which each is one transaction.

Everything that names an inode changes with it: the entries in directories, ``.`` in its own first block, and ``..`` in those of
its subdirectories. An index stays as it is: hashes are those of names. Times stay, too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..check.block_maps import read_blocks
from ..constants import S_IFDIR, S_IFMT
from ..errors import JournalFullError
from ..format.dirent import MIN_REC_LEN
from ..format.dirent_columns import read_dirent_columns
from ..format.inode_table_columns import inode_offsets
from ..format.schema import DIRENT, INODE_CORE
from .block_moves import Moves
from .references import DirectoryBlocks
from .transactions import Transactions

__all__ = ["InodeMover", "Names", "read_names"]

Numbers = npt.NDArray[np.int64]

AT_ONCE_BYTES = 8 << 20


class Names(NamedTuple):
    """Directory entries of inodes that move: the byte ``at`` which the number of the inode lies, and the number."""

    at: Numbers
    ino: Numbers


def read_names(changes: Transactions, directories: DirectoryBlocks, limit: int) -> Names:
    """Read the entries of all inodes above ``limit``."""
    size, inodes = changes.block_size, changes.superblock.inodes_count
    places, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    order = np.argsort(directories.block, kind="stable")
    most = max(1, AT_ONCE_BYTES // size)
    for low in range(0, len(order), most):
        rows = order[low : low + most]
        block, first = directories.block[rows], directories.first[rows]
        data = read_blocks(changes.device.read, block, size)
        columns = read_dirent_columns(data.tobytes() + bytes(MIN_REC_LEN), first, block_size=size, inodes=inodes)
        at, ino = columns.at, columns.inodes.astype(np.int64)
        heads = np.flatnonzero(first) * size
        flat = data.reshape(-1)
        lengths = flat[heads[:, None] + np.arange(DIRENT.size)].view(DIRENT.dtype)[:, 0]["rec_len"]
        dots = np.concatenate([heads, heads + lengths])
        at = np.concatenate([at, dots])
        ino = np.concatenate([ino, flat.view("<u4")[dots >> 2]]).astype(np.int64)
        moved = ino > limit
        at, ino = at[moved], ino[moved]
        row, start = np.divmod(at, size)
        places.append(block[row] * size + start)
        numbers.append(ino)
    return Names(np.concatenate(places), np.concatenate(numbers))


class InodeMover:
    """Moves of the inodes ``moves``, which have these ``names``. All batches are planned before anything is written."""

    def __init__(self, changes: Transactions, names: Names, moves: Moves) -> None:
        """Raise JournalFullError if a single step does not fit the journal."""
        self._changes = changes
        self._moves = moves
        order = np.lexsort((names.at, names.ino))
        self._names = Names(names.at[order], names.ino[order])
        low = np.searchsorted(self._names.ino, moves.old)
        high = np.searchsorted(self._names.ino, moves.old, side="right")
        self._low, self._high = low, high
        superblock, groups = changes.superblock, changes.groups
        self._from = inode_offsets(superblock, groups, moves.old)
        self._to = inode_offsets(superblock, groups, moves.new)
        self._batches = self._plan()

    def _plan(self) -> list[Numbers]:
        """Return the rows of ``moves`` of each batch: those whose names lie side by side together."""
        changes, size = self._changes, self._changes.block_size
        rows = np.argsort(self._names.at[self._low], kind="stable") if len(self._moves.old) else np.zeros(0, np.int64)
        per_group = changes.superblock.inodes_per_group
        tables = (self._from // size).tolist(), (self._to // size).tolist()
        groups = ((self._moves.old - 1) // per_group).tolist(), ((self._moves.new - 1) // per_group).tolist()
        names = (self._names.at // size).tolist()
        low, high = self._low.tolist(), self._high.tolist()
        batches: list[list[int]] = [[]]
        blocks, touched = set[int](), set[int]()
        for row in rows.tolist():
            own = {tables[0][row], tables[1][row], *names[low[row] : high[row]]}
            of = {groups[0][row], groups[1][row]}
            more = len(own - blocks)
            if changes.blocks_needed(len(blocks) + more + len(touched | of), touched | of) > changes.batch_capacity:
                needed = changes.blocks_needed(len(own) + len(of), of)
                if needed > changes.capacity:
                    raise JournalFullError(needed, changes.capacity)
                batches.append([])
                blocks, touched = set(), set()
            batches[-1].append(row)
            blocks |= own
            touched |= of
        return [np.array(batch, np.int64) for batch in batches if batch]

    def run(self) -> None:
        """Move everything."""
        for rows in self._batches:
            self._move(rows)

    def _move(self, rows: Numbers) -> None:
        changes, size = self._changes, self._changes.superblock.inode_size
        old, new = self._moves.old[rows], self._moves.new[rows]
        directories = []
        for number, source, target in zip(new.tolist(), self._from[rows].tolist(), self._to[rows].tolist(), strict=True):
            block, start = divmod(source, changes.block_size)
            record = changes.read(block)[start : start + size]
            if int(INODE_CORE.view(record)[0]["i_mode"]) & S_IFMT == S_IFDIR:
                directories.append(number)
            changes.patch(target, record)
            changes.patch(source, bytes(size))
        for row, number in zip(rows.tolist(), new.tolist(), strict=True):
            data = number.to_bytes(4, "little")
            for at in self._names.at[self._low[row] : self._high[row]].tolist():
                changes.patch(at, data)
        made = np.array(directories, np.int64)
        changes.take_inodes(new, directories=made)
        changes.free_inodes(old, directories=old[np.isin(new, made)])
        changes.commit()
