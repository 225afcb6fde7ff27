"""Paths of inodes in an image that may be damaged, for reports: found by one scan of all directories.

What cannot be read is left out. Names are as they are on storage, without repairs that were not written.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..check.block_maps import map_many, read_blocks
from ..check.inode_tables import read_tables
from ..constants import DIRECT_BLOCKS, ROOT_INO
from ..device.base import BlockDevice
from ..errors import DeviceError, Ext3Error
from ..format.dirent import DOTS, MIN_REC_LEN
from ..format.group_desc_columns import read_group_columns
from ..format.layout_columns import Table
from ..format.schema import DIRENT, INODE_CORE
from ..format.superblock import Superblock, read_superblock
from ..journal.replay import through_journal
from .problem import Place

__all__ = ["PathFinder"]

Numbers = npt.NDArray[np.int64]

MOST_BLOCKS = 1 << 28
"""Blocks of a filesystem above which paths are not looked for."""
MOST_LEVELS = 4096
BATCH_BLOCKS = 4096
"""Directory blocks in memory at once."""


class PathFinder:
    """Paths of the inodes on ``device``. The directories are scanned when the first path is asked for."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._view: BlockDevice = device
        self._scanned = False
        self._ino: Numbers = np.zeros(0, np.int64)
        self._parent: Numbers = np.zeros(0, np.int64)
        self._at: Numbers = np.zeros(0, np.int64)
        """Names by ascending inode: the directory of each, and the byte where its record lies."""

    def path_of(self, ino: int) -> bytes | None:
        """Return a path of an inode, None if no chain of names leads to it from the root."""
        self._scan()
        parts: list[bytes] = []
        seen: set[int] = set()
        while ino != ROOT_INO:
            if ino in seen or len(parts) > MOST_LEVELS:
                return None
            seen.add(ino)
            row = int(np.searchsorted(self._ino, ino))
            if row == len(self._ino) or self._ino[row] != ino:
                return None
            name = self._name(int(self._at[row]), ino)
            if name is None:
                return None
            parts.append(name)
            ino = int(self._parent[row])
        return b"/" + b"/".join(reversed(parts))

    def path_at(self, place: Place) -> bytes | None:
        """Return the path of what a finding is about: of its directory entry, else of its inode."""
        if place.name is None:
            return None if place.ino is None else self.path_of(place.ino)
        directory = place.ino if place.parent is None else place.parent
        above = None if directory is None else self.path_of(directory)
        return None if above is None else above.rstrip(b"/") + b"/" + place.name

    def _name(self, at: int, ino: int) -> bytes | None:
        """Return the name in the record at a byte, if that leads to this inode."""
        try:
            found, _, length, _ = DIRENT.packer.unpack(self._view.read(at, DIRENT.size))
            return self._view.read(at + DIRENT.size, length) if found == ino else None
        except DeviceError:
            return None

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        try:
            superblock = read_superblock(self._device)
            self._view, _ = through_journal(self._device, superblock)
            groups = read_group_columns(self._view, superblock)
        except Ext3Error:
            return
        if superblock.blocks_count > MOST_BLOCKS:
            return
        found = list(self._names(superblock, groups))
        if not found:
            return
        ino, parent, at = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(ino, kind="stable")
        self._ino, self._parent, self._at = ino[order], parent[order], at[order]

    def _names(self, superblock: Superblock, groups: Table) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
        """Yield (inode, its directory, byte of the record) of the names in all directories."""
        size = superblock.block_size
        for part in read_tables(self._view, superblock, groups):
            rows = part.records[:, : INODE_CORE.size].copy().view(INODE_CORE.dtype)[:, 0]
            mode = rows["i_mode"].astype(np.int64)
            (which,) = np.nonzero((mode & stat.S_IFMT(0xFFFF)) == stat.S_IFDIR)
            if not len(which):
                continue
            owner, blocks = self._blocks(superblock, rows["i_block"][which])
            directory = part.first + which[owner]
            for start in range(0, len(blocks), BATCH_BLOCKS):
                batch = blocks[start : start + BATCH_BLOCKS]
                try:
                    data = read_blocks(self._view.read, batch, size)
                except DeviceError:
                    continue
                yield _records(data, directory[start : start + BATCH_BLOCKS], batch * size)

    def _blocks(self, superblock: Superblock, i_block: npt.NDArray[np.uint32]) -> tuple[Numbers, Numbers]:
        """Return (row, block) of the blocks of directories; of a damaged map the direct ones that exist."""
        nothing = np.zeros(superblock.blocks_count, np.bool_)
        first = superblock.first_data_block
        try:
            maps = map_many(self._view.read, i_block, block_size=superblock.block_size, first=first, system=nothing)
        except DeviceError:
            sound = np.zeros(len(i_block), np.bool_)
            row, block = np.zeros(0, np.int64), np.zeros(0, np.int64)
        else:
            sound, row, block = maps.sound, maps.row, maps.block
        direct = i_block[:, :DIRECT_BLOCKS].astype(np.int64)
        good = (direct > first) & (direct < superblock.blocks_count) & ~sound[:, None]
        more, slot = np.nonzero(good)
        return np.concatenate([row, more]), np.concatenate([block, direct[more, slot]])


def _records(data: npt.NDArray[np.uint8], directory: Numbers, start: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return (inode, directory, byte) of the named records in these blocks, up to the first damaged one of each."""
    size = data.shape[1]
    flat = np.concatenate([data.reshape(-1), np.zeros(MIN_REC_LEN, np.uint8)])
    words, halves = flat.view("<u4"), flat.view("<u2")
    block = np.arange(len(data), dtype=np.int64)
    at = np.zeros(len(data), np.int64)
    inos, rows, places = [], [], []
    while len(block):
        here = block * size + at
        ino = words[here >> 2].astype(np.int64)
        length = halves[(here + 4) >> 1].astype(np.int64)
        name = flat[here + 6].astype(np.int64)
        good = (length >= MIN_REC_LEN) & (length & 3 == 0) & (at + length <= size) & (name + DIRENT.size <= length)
        named = good & (ino != 0) & (name != 0)
        dot = (name <= len(DOTS)) & (flat[here + 8] == ord(".")) & ((name == 1) | (flat[here + 9] == ord(".")))
        named &= ~dot
        inos.append(ino[named])
        rows.append(block[named])
        places.append(at[named])
        at = at + length
        on = good & (at <= size - MIN_REC_LEN)
        block, at = block[on], at[on]
    none = np.zeros(0, np.int64)
    row = np.concatenate([none, *rows])
    return np.concatenate([none, *inos]), directory[row], start[row] + np.concatenate([none, *places])
