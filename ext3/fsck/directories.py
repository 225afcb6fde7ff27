"""Pass 2: the blocks of all directories, with what their entries lead to, and the indexes.

Before: the census knows the inodes in use, ``directory_blocks`` lists the blocks of their directories (holes as block 0),
``bad_inodes`` and ``indexed`` are known. After: ``census.names`` counts every entry and each ``.``, but no ``..``; ``parent``
names the first directory that holds each directory, ``dotdot`` what its ``..`` leads to (0: unknown, to be set in pass 3);
``to_rebuild`` has the directories whose index was dropped or that hold a name twice.

Blocks are read in batches in the order in which e2fsck reads them, as the first of several links to a directory is the one
that stays. Plainly sound ones are judged by columns; the others go to ``directory_entries``. Both agree. Source: e2fsprogs
``e2fsck/pass2.c`` (e2fsck_pass2, allocate_dir_block).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..check.block_maps import read_blocks
from ..constants import S_IFDIR, Compat, RoCompat
from ..errors import DeviceError
from ..format.dirent import MIN_REC_LEN
from .context import Context
from .directory_columns import Batch
from .directory_content import has_name_twice
from .directory_entries import BlockPlace, check_block, load_block
from .directory_holes import close_many_holes, fill_hole
from .directory_index import IndexChecks
from .problem import Place
from .problems import directories as problems

__all__ = ["check_directories"]

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BATCH_BYTES = 4 << 20
"""Directory blocks in memory at once."""
DIRECTORY = S_IFDIR >> 12
KEY_FACTOR = 0x9E3779B97F4A7C15
"""Odd factor by which equal names in different directories get different keys."""
FIRST_INO_REVISION_0, INODE_SIZE_REVISION_0 = 11, 128


def check_directories(context: Context) -> None:
    """Check all directories."""
    _Pass(context).run()
    _check_large_file(context)


class _Pass:
    """State of the pass: the indexes, and a key of each name with its directory."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._size = context.block_size
        ino, logical, block = context.directory_blocks.columns()
        used = (context.census.mode[ino] >> 12) == DIRECTORY
        if not used.all():
            ino, logical, block = ino[used], logical[used], block[used]
        ino, logical, block = close_many_holes(context, (ino, logical, block))
        self._indexes = IndexChecks(context, _lengths(context.indexed, ino, logical))
        later = logical != 0 if context.superblock.compat & Compat.DIR_INDEX else np.zeros(len(ino), np.bool_)
        order = np.lexsort((logical, ino, block, later))
        self._rows = ino[order], logical[order], block[order]
        self._keys: list[tuple[npt.NDArray[np.uint64], Numbers]] = []

    def run(self) -> None:
        ino, logical, block = self._rows
        step = max(1, BATCH_BYTES // self._size)
        for low in range(0, len(ino), step):
            some = slice(low, low + step)
            self._check(ino[some], logical[some], block[some])
            self._context.flush_if_large()
            if self._context.progress is not None:
                self._context.progress(2, min(low + step, len(ino)), len(ino))
        self._indexes.finish()
        self._find_names_twice()

    def _check(self, ino: Numbers, logical: Numbers, block: Numbers) -> None:
        """Check the blocks of a batch."""
        raw, unread = self._read(block)
        batch = Batch(self._context, ino, logical, raw)
        careful = batch.doubtful() | unread
        row, count = 0, len(ino)
        while row < count:
            if careful[row]:
                self._check_one(BlockPlace(int(ino[row]), int(logical[row]), int(block[row])))
                row += 1
                continue
            ahead = int(careful[row:].argmax())
            stop = batch.stop_before_second_link(row, row + ahead if ahead else count)
            if stop == row:
                careful[row] = True
                continue
            batch.accept(row, stop, self._indexes, self._add_names)
            row = stop

    def _read(self, block: Numbers) -> tuple[bytes, Flags]:
        """Return the blocks end to end, with room behind them, and which of them are holes or cannot be read."""
        storage = self._context.storage
        unread = block == 0
        wanted = np.flatnonzero(~unread)
        whole = np.zeros((len(block), self._size), np.uint8)
        try:
            data = read_blocks(storage.read, block[wanted], self._size)
            if len(wanted) == len(block):
                whole = data
            else:
                whole[wanted] = data
        except DeviceError:
            for row in wanted.tolist():
                try:
                    whole[row] = np.frombuffer(storage.read_block(int(block[row])), np.uint8)
                except DeviceError:
                    unread[row] = True
        return whole.tobytes() + bytes(MIN_REC_LEN), unread

    def _check_one(self, place: BlockPlace) -> None:
        context = self._context
        if not place.block:
            allocated = fill_hole(context, place.ino, place.logical)
            if not allocated:
                return
            place = place._replace(block=allocated)
        data = load_block(context, place)
        if data is None:
            return
        data, names = check_block(context, place, data)
        self._indexes.add_block(place.ino, place.logical, data, names)
        self._add_names(np.full(len(names), place.ino, np.int64), names)

    def _add_names(self, ino: Numbers, names: list[bytes]) -> None:
        """Note names with their directories."""
        if names:
            keys = np.fromiter(map(hash, names), np.int64, len(names)).view(np.uint64)
            self._keys.append((keys ^ (ino.astype(np.uint64) * np.uint64(KEY_FACTOR)), ino))

    def _find_names_twice(self) -> None:
        """Send the directories that hold a name twice to pass 3A."""
        context = self._context
        if not self._keys:
            return
        keys = np.concatenate([key for key, _ in self._keys])
        ordered = np.sort(keys)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if not len(twice):
            return
        ino = np.concatenate([numbers for _, numbers in self._keys])
        for found in np.unique(ino[np.isin(keys, twice)]).tolist():
            if has_name_twice(context, found):
                context.fix(problems.NAME_TWICE, Place(ino=found))
                context.to_rebuild.add(found)


def _lengths(indexed: set[int], ino: Numbers, logical: Numbers) -> dict[int, int]:
    """Return the number of blocks of each indexed directory. ``ino`` ascends, and ``logical`` of each."""
    wanted = np.array(sorted(indexed), np.int64)
    ends = np.searchsorted(ino, wanted, side="right")
    there = (ends > 0) & (ino[ends - 1] == wanted) if len(ino) else np.zeros(len(wanted), np.bool_)
    return dict(zip(wanted[there].tolist(), (logical[ends[there] - 1] + 1).tolist(), strict=True))


def _check_large_file(context: Context) -> None:
    """Set the feature for files of 2 GiB or more, if there is one."""
    superblock = context.superblock
    if not context.large_file:
        return
    if not superblock.ro_compat & RoCompat.LARGE_FILE and context.fix(problems.LARGE_FILE_FEATURE):
        context.set_superblock(s_feature_ro_compat=superblock.ro_compat | RoCompat.LARGE_FILE)
        context.write_backups = True
    if not superblock.revision and context.fix(problems.REVISION_LARGE_FILE):
        context.set_superblock(s_rev_level=1, s_first_ino=FIRST_INO_REVISION_0, s_inode_size=INODE_SIZE_REVISION_0)
