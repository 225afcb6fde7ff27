"""Pointers to the blocks that move, and the blocks of directories, read from all inodes and pointer blocks.

A pointer is known by the byte where it lies, in an inode table or in a pointer block. The filesystem agrees with its census
(``preconditions``): maps are sound, and each pointer block has one owner.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..check.block_maps import read_blocks
from ..check.inode_tables import read_tables
from ..constants import (
    DIRECT_BLOCKS,
    IND_SLOT,
    N_BLOCKS,
    POINTER_SIZE,
    ROOT_INO,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    SECTOR,
)
from ..format.inode_table_columns import core_rows
from ..format.schema import INODE_CORE
from ..read.volume import Volume

__all__ = ["DirectoryBlocks", "Pointers", "References", "read_references"]

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

AT_ONCE_BYTES = 8 << 20
"""Most bytes of pointer blocks in memory at once."""
I_BLOCK_AT = INODE_CORE.offset_of("i_block")
FILE_ACL_AT = INODE_CORE.offset_of("i_file_acl")


class Pointers(NamedTuple):
    """Pointers: the byte ``at`` which each lies, and the ``block`` it names. ``attributes``: it names an attribute block, which
    several inodes may share."""

    at: Numbers
    block: Numbers
    attributes: Flags


class DirectoryBlocks(NamedTuple):
    """Blocks of directories; ``first``: the block is the directory's first one."""

    first: Flags
    block: Numbers


class References(NamedTuple):
    """``pointers`` to blocks of files from the new end on; ``journal``: those of the journal's map; all ``directories``."""

    pointers: Pointers
    journal: Pointers
    directories: DirectoryBlocks


def read_references(volume: Volume, end: int) -> References:
    """Read what leads to blocks from ``end`` on. Raises DeviceError."""
    walk = _Walk(volume, end)
    for part in read_tables(volume.device, volume.superblock, volume.groups):
        if part.error is not None:
            raise part.error
        rows = core_rows(part.records)
        offsets = part.offset + np.arange(len(rows), dtype=np.int64) * part.records.shape[1]
        numbers = part.first + np.arange(len(rows))
        walk.take_inodes(rows, numbers, offsets)
    return walk.finish()


class _Found:
    """Pointers found so far."""

    def __init__(self) -> None:
        self._parts: list[Pointers] = []

    def add(self, at: Numbers, block: Numbers, *, attributes: bool = False) -> None:
        self._parts.append(Pointers(at, block, np.full(len(at), attributes)))

    def finish(self) -> Pointers:
        none = np.zeros(0, np.int64)
        columns = zip(Pointers(none, none, none.astype(np.bool_)), *self._parts, strict=True)
        at, block, attributes = (np.concatenate(column) for column in columns)
        order = np.argsort(at, kind="stable")
        return Pointers(at[order], block[order], attributes[order])


class _Walk:
    def __init__(self, volume: Volume, end: int) -> None:
        self._read = volume.device.read
        self._size = volume.superblock.block_size
        self._first_ino = volume.superblock.first_ino
        self._journal_ino = volume.superblock.journal_ino if volume.superblock.has_journal else 0
        self._end = end
        self._files, self._journal = _Found(), _Found()
        self._directories: list[tuple[Flags, Numbers]] = [(np.zeros(0, np.bool_), np.zeros(0, np.int64))]

    def take_inodes(self, rows: npt.NDArray[np.void], numbers: Numbers, offsets: Numbers) -> None:
        """Take the pointers of inodes that lie at these bytes."""
        form = rows["i_mode"] & S_IFMT
        used = (rows["i_links_count"] > 0) & (rows["i_dtime"] == 0)
        used &= (numbers >= self._first_ino) | (numbers == ROOT_INO) | (numbers == self._journal_ino)
        acl = rows["i_file_acl"].astype(np.int64)
        moved = used & (acl >= self._end)
        self._files.add(offsets[moved] + FILE_ACL_AT, acl[moved], attributes=True)
        own = np.where(acl != 0, self._size // SECTOR, 0)
        mapped = used & ((form == S_IFREG) | (form == S_IFDIR) | ((form == S_IFLNK) & (rows["i_blocks"] > own)))
        for found, chosen in (
            (self._files, mapped & (numbers != self._journal_ino)),
            (self._journal, mapped & (numbers == self._journal_ino)),
        ):
            some = np.flatnonzero(chosen)
            if len(some):
                self._take_maps(found, rows["i_block"][some], offsets[some] + I_BLOCK_AT, form[some] == S_IFDIR)

    def _take_maps(self, found: _Found, words: npt.NDArray[np.uint32], offsets: Numbers, is_dir: Flags) -> None:
        row, word = np.nonzero(words[:, :DIRECT_BLOCKS])
        block = words[row, word].astype(np.int64)
        self._take_data(found, offsets[row] + word * POINTER_SIZE, block, is_dir[row], first=word == 0)
        for slot in range(IND_SLOT, N_BLOCKS):
            some = np.flatnonzero(words[:, slot])
            if len(some):
                at, block = offsets[some] + slot * POINTER_SIZE, words[some, slot].astype(np.int64)
                self._take_tables(found, at, block, is_dir[some], slot - IND_SLOT + 1)

    def _take_tables(self, found: _Found, at: Numbers, block: Numbers, is_dir: Flags, level: int) -> None:
        moved = block >= self._end
        found.add(at[moved], block[moved])
        most = max(1, AT_ONCE_BYTES // self._size)
        for low in range(0, len(block), most):
            part = block[low : low + most]
            tables = read_blocks(self._read, part, self._size).view("<u4")
            row, index = np.nonzero(tables)
            below = tables[row, index].astype(np.int64)
            places = part[row] * self._size + index * POINTER_SIZE
            of = is_dir[low : low + most][row]
            if level == 1:
                self._take_data(found, places, below, of, first=np.zeros(len(below), np.bool_))
            elif len(below):
                self._take_tables(found, places, below, of, level - 1)

    def _take_data(self, found: _Found, at: Numbers, block: Numbers, is_dir: Flags, *, first: Flags) -> None:
        moved = block >= self._end
        found.add(at[moved], block[moved])
        if is_dir.any():
            self._directories.append((first[is_dir], block[is_dir]))

    def finish(self) -> References:
        first, block = (np.concatenate(column) for column in zip(*self._directories, strict=True))
        return References(self._files.finish(), self._journal.finish(), DirectoryBlocks(first, block))
