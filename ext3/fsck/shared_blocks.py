"""Passes 1B to 1D: blocks that several inodes claim, or that are metadata too. Each owner gets a copy of its own.

In the order of their numbers, inodes get copies of what is claimed elsewhere too; the last owner keeps the blocks. Metadata of
the filesystem, and the list of bad blocks, always keep theirs. Where there is no room for copies, deleting the inode is
offered. Source of the rules: e2fsprogs ``e2fsck/pass1b.c``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..check.inode_tables import read_tables
from ..constants import BAD_INO, DIND_SLOT, DIRECT_BLOCKS, IND_SLOT, JOURNAL_INO, N_BLOCKS, RESIZE_INO
from ..edit.blocks import Run
from ..errors import DeviceError
from ..format.inode_table_columns import core_rows
from .context import Context
from .inode_forms import has_map
from .inodes import write_corrected
from .map_tables import MapTables, runs_of
from .problem import Place
from .problems import shared as problems
from .record import Record
from .release import release_inode
from .storage import Stage

__all__ = ["separate_shared_blocks"]

Numbers = npt.NDArray[np.int64]
Pointers = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]

LOOKED_UP = 16
"""Shared blocks, and claims of each, that are looked at for the other owners."""
SHOWN_OWNERS = 3
"""Other owners that a report names."""


def separate_shared_blocks(context: Context) -> None:
    """Give each inode blocks of its own."""
    if context.census.any_shared and context.census.shared.any():
        _Separation(context).run()
        context.corrected.clear()


class _Separation:
    """One run of the passes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tables = MapTables(context)
        self._claims: dict[int, Numbers] = {}
        """Shared blocks that each inode claims in its map; a block several times if it is there several times."""
        self._attribute_of: dict[int, int] = {}
        """Shared attribute block of each inode that has one."""
        self._attribute_owners: dict[int, list[int]] = {}
        """Inodes that refer to a shared attribute block."""
        self._goal = 0
        self._moved: dict[int, dict[int, int]] = {}
        """New blocks of directories, by inode and logical block."""
        self._deleted: list[int] = []

    def run(self) -> None:
        context = self._context
        self._find_owners()
        self._count_owners()
        write_corrected(context)
        self._free = self._count_free()
        for ino in sorted({*self._claims, *self._attribute_of}):
            if ino not in (BAD_INO, RESIZE_INO):
                self._separate(ino)
                context.flush_if_large()
        self._check_resize_inode()
        self._update_directories()

    def _count_free(self) -> int:
        """Count the blocks that copies can have."""
        context = self._context
        return int((~(context.census.used | context.held)).sum())

    # 1B: who claims what

    def _find_owners(self) -> None:
        """Find the inodes that claim shared blocks."""
        context, shared = self._context, self._context.census.shared
        first_ino = context.superblock.first_ino
        for part in read_tables(context.storage, context.superblock, context.groups):
            rows = core_rows(part.records)
            numbers = part.first + np.arange(len(rows))
            used = (context.census.mode[numbers] != 0) | (numbers < first_ino)
            words = rows["i_block"].astype(np.int64)
            inside = np.where(self._tables.inside(words), words, 0)
            candidates = used & (shared[inside].any(axis=1) | (words[:, IND_SLOT:] != 0).any(axis=1))
            acl = rows["i_file_acl"].astype(np.int64)
            acl_inside = self._tables.inside(acl)
            candidates |= used & acl_inside & shared[np.where(acl_inside, acl, 0)]
            for row in np.flatnonzero(candidates).tolist():
                self._find_claims(Record(int(numbers[row]), part.records[row].tobytes()))

    def _find_claims(self, record: Record) -> None:
        context, ino, shared = self._context, record.ino, self._context.census.shared
        if ino == BAD_INO or has_map(context, record):
            if ino == RESIZE_INO:
                own = np.array(record.words[DIND_SLOT : DIND_SLOT + 1], np.int64)
                pieces = [own[(own != 0) & self._tables.inside(own)]]
            else:
                pieces = list(self._tables.blocks(record.words))
            found = [piece[shared[piece]] for piece in pieces]
            claims = np.concatenate([np.zeros(0, np.int64), *found])
            if len(claims):
                self._claims[ino] = claims
        acl = record.get("i_file_acl")
        if acl in context.attribute_blocks and shared[acl]:
            self._attribute_owners.setdefault(acl, []).append(ino)
            self._attribute_of[ino] = acl

    def _count_owners(self) -> None:
        """Count how often each shared block is claimed; metadata and attributes claim it once."""
        census = self._context.census
        self._blocks = np.flatnonzero(census.shared)
        self._left = census.system[self._blocks].astype(np.int64)
        for claims in self._claims.values():
            np.add.at(self._left, np.searchsorted(self._blocks, claims), 1)
        for block in self._attribute_owners:
            self._left[np.searchsorted(self._blocks, block)] += 1
        all_claims = [*self._claims.values()]
        owners = [np.full(len(blocks), ino) for ino, blocks in self._claims.items()]
        claimed, claimants = (np.concatenate([np.zeros(0, np.int64), *column]) for column in (all_claims, owners))
        order = np.argsort(claimed, kind="stable")
        self._claimed, self._claimants = claimed[order], claimants[order]
        alone = self._left <= 1
        census.shared[self._blocks[alone]] = False

    def _others(self, ino: int, blocks: Numbers) -> str:
        """Return the names of other owners of blocks."""
        if self._context.census.system[blocks].any():
            return "the metadata of the filesystem"
        found: dict[int, None] = {}
        for block in blocks[:LOOKED_UP].tolist():
            low = int(np.searchsorted(self._claimed, block))
            high = min(int(np.searchsorted(self._claimed, block + 1)), low + LOOKED_UP)
            found.update(dict.fromkeys(self._claimants[low:high].tolist()))
            found.update(dict.fromkeys(self._attribute_owners.get(block, [])[:1]))
        found.pop(ino, None)
        if not found:
            return "the inode itself"
        more = ", ..." if len(found) > SHOWN_OWNERS else ""
        return "inode " + ", ".join(map(str, [*found][:SHOWN_OWNERS])) + more

    def _owner_count(self, block: int) -> int:
        return int(self._left[np.searchsorted(self._blocks, block)])

    def disown(self, blocks: Numbers) -> None:
        """Note that shared blocks have one owner less for each time that they are given."""
        at = np.searchsorted(self._blocks, blocks)
        np.subtract.at(self._left, at, 1)
        self._context.census.shared[blocks[self._left[at] <= 1]] = False

    def leave_last(self, blocks: Numbers) -> Flags:
        """Return which of the shared blocks are to be copied: all, but one where the inode is the only owner left."""
        order = np.argsort(blocks, kind="stable")
        ordered = blocks[order]
        first = np.searchsorted(ordered, ordered)
        rank = np.empty(len(blocks), np.int64)
        rank[order] = np.arange(len(blocks)) - first
        found: Flags = rank < self._left[np.searchsorted(self._blocks, blocks)] - 1
        return found

    # 1D: copies

    def _separate(self, ino: int) -> None:
        """Give one inode its own copies."""
        context = self._context
        claims = self._claims.get(ino, np.zeros(0, np.int64))
        blocks, counts = np.unique(claims, return_counts=True)
        left = self._left[np.searchsorted(self._blocks, blocks)]
        needed = int(np.minimum(counts, left - 1).sum())
        attributes = self._attribute_of.get(ino, 0)
        if attributes and (self._attribute_owners[attributes][0] != ino or self._owner_count(attributes) <= 1):
            attributes = 0
        total = needed + (attributes != 0)
        if not total:
            if len(claims):
                context.fix(problems.SHARED_DEALT, Place(ino=ino), got=len(claims))
            _Copies(context, self, ino, []).make(0)
            return
        busy = np.append(blocks[left > 1], np.array([attributes] if attributes else [], np.int64))
        others = self._others(ino, busy)
        if context.fix(problems.SHARED_BLOCKS, Place(ino=ino), got=len(busy), want=others):
            runs = self._allocate(total)
            if runs:
                _Copies(context, self, ino, runs).make(attributes)
                return
            context.fix(problems.COPY_FAILED, Place(ino=ino), got=total)
        if ino >= context.superblock.first_ino and context.fix(
            problems.DELETE_OWNER, Place(ino=ino), got=len(busy), want=others
        ):
            self._delete(ino, blocks, counts)

    def _allocate(self, count: int) -> list[Run]:
        """Return new blocks, none if there are not so many."""
        context = self._context
        if count > self._free and context.held.any():
            context.reuse_freed()
            self._free = self._count_free()
        if count > self._free:
            return []
        runs = context.allocate(count, self._goal)
        self._free -= count
        self._goal = sum(runs[-1])
        return runs

    def _delete(self, ino: int, blocks: Numbers, counts: Numbers) -> None:
        context = self._context
        attributes = self._attribute_of.pop(ino, 0)
        if attributes:
            self._attribute_owners[attributes].remove(ino)
            if not self._attribute_owners[attributes]:
                self.disown(np.array([attributes]))
        release_inode(context, ino)
        at = np.searchsorted(self._blocks, blocks)
        self._left[at] -= counts
        context.census.shared[blocks[self._left[at] <= 1]] = False
        context.free(runs_of(blocks[self._left[at] <= 0]))
        context.indexed.discard(ino)
        self._deleted.append(ino)

    def attributes_of(self, block: int) -> list[int]:
        """Return the inodes that refer to an attribute block."""
        return self._attribute_owners[block]

    def shared(self, block: int) -> bool:
        """Return whether a block has other owners yet."""
        return bool(self._context.census.shared[block])

    def moved(self, ino: int, logical: int, block: int) -> None:
        """Note a new block of a directory."""
        self._moved.setdefault(ino, {})[logical] = block

    # Afterwards

    def _check_resize_inode(self) -> None:
        """Have the resize inode made anew if its block belongs to something else too."""
        context = self._context
        for block in self._claims.get(RESIZE_INO, np.zeros(0, np.int64)).tolist():
            if self._owner_count(block) > 1 and context.fix(problems.RESIZE_INODE_SHARED, Place(ino=RESIZE_INO, block=block)):
                record = Record(RESIZE_INO, context.read_inode(RESIZE_INO))
                record.words = [0] * N_BLOCKS
                record.core["i_blocks"] = 0
                record.save(context)
                self.disown(np.array([block]))
                context.rebuild_resize_inode = True

    def _update_directories(self) -> None:
        """Enter the new blocks of directories, and leave out those of deleted ones."""
        if not self._moved and not self._deleted:
            return
        directories = self._context.directory_blocks
        ino, logical, block = directories.columns()
        block = block.copy()
        for number, moves in self._moved.items():
            low, high = np.searchsorted(ino, [number, number + 1])
            at = low + np.searchsorted(logical[low:high], np.array(list(moves)))
            block[at] = list(moves.values())
        keep = ~np.isin(ino, self._deleted)
        directories.parts = [(ino[keep], logical[keep], block[keep])]


class _Copies:
    """Copies of the shared blocks of one inode. ``runs``: as many new blocks as are needed."""

    def __init__(self, context: Context, owners: _Separation, ino: int, runs: list[Run]) -> None:
        self._context = context
        self._owners = owners
        pieces = [np.arange(first, first + count) for first, count in runs]
        self._numbers: Numbers = np.concatenate([np.zeros(0, np.int64), *pieces])
        self._taken = 0
        self._tables = MapTables(context)
        self._record = Record(ino, context.read_inode(ino))
        self._is_dir = self._record.is_dir
        self._contents = context.policy.writes or not self._record.is_file
        """Later passes do not read the data of files."""

    def make(self, attributes: int) -> None:
        """Make them. ``attributes``: the attribute block if it has to be copied. Correct pointer blocks that are its own."""
        context, record = self._context, self._record
        if has_map(context, record):
            words = np.array(record.words, np.uint32)
            self._data(words[:DIRECT_BLOCKS], 0)
            start = DIRECT_BLOCKS
            for slot in range(IND_SLOT, N_BLOCKS):
                level = slot - IND_SLOT + 1
                self._pointers(words[slot : slot + 1], start, level)
                start += self._tables.per_block**level
            record.words = words.tolist()
        if attributes:
            self._copy_attributes(attributes)
        record.save(context)
        kept = record.get("i_file_acl")
        if kept in context.corrected and not self._owners.shared(kept):
            context.write(kept, context.corrected.pop(kept))
        if record.ino == JOURNAL_INO and context.field("s_jnl_backup_type"):
            backup = [*record.words, record.get("i_size_high"), record.get("i_size")]
            context.set_superblock(s_jnl_blocks=backup)

    def _data(self, table: Pointers, start: int) -> None:
        """Copy the shared blocks of data in a table."""
        index = np.flatnonzero(table)
        blocks = table[index].astype(np.int64)
        index = index[self._tables.inside(blocks)]
        blocks = table[index].astype(np.int64)
        shared = self._context.census.shared[blocks]
        index, blocks = index[shared], blocks[shared]
        if not len(index):
            return
        copied = self._owners.leave_last(blocks)
        index, blocks = index[copied], blocks[copied]
        new = self._take(len(index))
        if not len(new):
            return
        if self._contents:
            for number, content in zip(new.tolist(), self._read_many(blocks), strict=True):
                self._context.storage.write_block(number, content, Stage.NEW)
        self._owners.disown(blocks)
        table[index] = new
        if self._is_dir:
            for at, number in zip(index.tolist(), new.tolist(), strict=True):
                self._owners.moved(self._record.ino, start + at, number)
        self._context.flush_if_large()

    def _take(self, count: int) -> Numbers:
        """Return that many of the new blocks, or none if there are not so many left."""
        if self._taken + count > len(self._numbers):
            return np.zeros(0, np.int64)
        self._taken += count
        return self._numbers[self._taken - count : self._taken]

    def _read_many(self, blocks: Numbers) -> Iterator[bytes]:
        """Yield the content of blocks; those that follow each other are read together."""
        size, storage = self._context.block_size, self._context.storage
        if self._context.census.system[blocks].any():
            yield from map(self._read, blocks.tolist())
            return
        breaks = (np.flatnonzero(np.diff(blocks) != 1) + 1).tolist()
        for low, high in pairwise([0, *breaks, len(blocks)]):
            first, count = int(blocks[low]), high - low
            try:
                data = storage.read(first * size, count * size)
            except DeviceError:
                yield from map(self._read, range(first, first + count))
            else:
                yield from (data[at : at + size] for at in range(0, count * size, size))

    def _read(self, block: int) -> bytes:
        """Return what the owner has in a block: in a system block, what was there before the repairs."""
        context = self._context
        try:
            if context.census.system[block]:
                return context.storage.base.read(block * context.block_size, context.block_size)
            return context.read(block)
        except DeviceError:
            self._context.fix(problems.COPY_UNREADABLE, Place(ino=self._record.ino, block=block))
            return bytes(self._context.block_size)

    def _pointers(self, table: Pointers, start: int, level: int) -> None:
        """Copy the shared pointer blocks of ``level`` in a table, and what is shared below."""
        context, span = self._context, self._tables.per_block**level
        index = np.flatnonzero(table)
        for at in index[self._tables.inside(table[index].astype(np.int64))].tolist():
            block = int(table[at])
            if not self._tables.enter(block):
                continue
            before = self._tables.content(block)
            below = before.copy()
            if level == 1:
                self._data(below, start + at * span)
            else:
                self._pointers(below, start + at * span, level - 1)
            new: list[int] = self._take(1).tolist() if self._owners.shared(block) else []
            if new:
                table[at] = new[0]
                context.storage.write_block(int(table[at]), below.tobytes(), Stage.NEW)
                self._owners.disown(np.array([block]))
            elif block in context.corrected or not np.array_equal(before, below):
                context.corrected.pop(block, b"")
                context.write(block, below.tobytes())

    def _copy_attributes(self, block: int) -> None:
        """Copy a shared attribute block, for all inodes that refer to it."""
        context = self._context
        (new,) = self._take(1).tolist()
        context.storage.write_block(new, context.corrected.get(block) or self._read(block), Stage.NEW)
        for ino in self._owners.attributes_of(block):
            record = self._record if ino == self._record.ino else Record(ino, context.read_inode(ino))
            record.core["i_file_acl"] = new
            record.save(context)
        context.corrected.pop(block, b"")
        context.attribute_blocks[new] = context.attribute_blocks.pop(block)
        self._owners.disown(np.array([block]))
