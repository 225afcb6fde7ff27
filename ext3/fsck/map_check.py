"""Walk of the block map of one inode that may be damaged: illegal pointers, what it claims, and what its size should be.

Tables of pointers are judged as arrays; only one with something illegal is looked at pointer by pointer. Nothing is claimed,
and no pointer block is changed, before the whole map is known: what another file owns may only look like pointers. Source of
the rules: e2fsprogs ``e2fsck/pass1.c`` (process_block, check_blocks).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..check.block_maps import TABLES_BYTES, read_blocks
from ..constants import DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, POINTER_SIZE, RESIZE_INO
from ..errors import DeviceError
from ..format.block_map import PointerBounds, table_name
from ..format.block_map_columns import inside
from .context import Context
from .problem import Place, Problem
from .problems import inodes as problems

__all__ = ["MapCheck", "PointerTables"]

Numbers = npt.NDArray[np.int64]
Pointers = npt.NDArray[np.uint32]

RESIZE_LEVEL = 2
"""Level of the only pointer block of the resize inode that it owns."""
MANY_BLOCKS = 16
"""Pointer blocks from which on a look for a hole of the image saves time."""
MOST_HOLES = 1 << 16
"""Holes of all directories that are filled."""
BAD_BETWEEN_QUESTIONS = 12
"""Illegal pointers of an inode after which clearing it is offered, again and again."""


class PointerTables:
    """Pointer blocks that were entered, by any inode.

    One that is entered again is walked again, so that each map gets a copy of its own; but only as often as there could be
    copies, because few blocks can make a map of any length.
    """

    def __init__(self, context: Context) -> None:
        self._seen = np.zeros(len(context.census.used), np.bool_)
        per_block = context.block_size // POINTER_SIZE
        self._again = len(self._seen) // per_block * 2 + 1024
        self.holes = MOST_HOLES
        """Holes of directories that may still be filled."""

    def enter(self, blocks: Numbers) -> npt.NDArray[np.bool_]:
        """Note that blocks are entered. Return which may be."""
        again = self._seen[blocks]
        order = np.argsort(blocks, kind="stable")
        again[order[1:][blocks[order][1:] == blocks[order][:-1]]] = True
        self._seen[blocks] = True
        if again.any():
            over = np.cumsum(again) > self._again
            self._again -= min(int(again.sum()), self._again)
            return np.asarray(~(again & over))
        return np.ones(len(blocks), np.bool_)


class _Abandoned(Exception):
    """The inode is to be cleared."""


class MapCheck:
    """Check of one map; ``run`` makes it. ``words``: the 15 words, corrected in place.

    ``blocks``: blocks claimed, pointer blocks included. ``last``: last logical block of data, -1 if there is none.
    ``clear``: the inode is to be cleared. ``corrected``: new content of pointer blocks, not written yet. ``end``: pointers to
    logical blocks from there on are dropped.
    """

    def __init__(
        self,
        context: Context,
        tables: PointerTables,
        ino: int,
        words: list[int],
        *,
        is_dir: bool,
        is_file: bool,
        end: int | None = None,
        corrected: dict[int, bytes] | None = None,
    ) -> None:
        self.ino = ino
        self.words = words
        self.blocks = 0
        self.last = -1
        self.clear = False
        self.fragmented = False
        self.corrected = corrected or {}
        self._cut = end
        self._claims: list[Pointers] = []
        self._context = context
        self._tables = tables
        self._is_dir = is_dir
        self._is_file = is_file
        self._bounds = PointerBounds.of(context.superblock, f"inode {ino}")
        self._per_block = context.block_size // POINTER_SIZE
        log = context.superblock.geometry.log_block_size
        self._most_blocks = 1 << (31 - log)
        self._last_allowed = 1 << (21 - log) if is_dir else None if is_file else 0
        self._bad = 0
        self._quiet = False
        self._previous = 0
        self._rows: list[tuple[Numbers, Numbers]] = []
        """(logical, block) of a directory's data; block 0 where a pointer was cleared."""

    def run(self) -> None:
        """Walk the map."""
        words = np.array(self.words, np.uint32)
        try:
            self._data(words[:DIRECT_BLOCKS], 0, 0)
            start = DIRECT_BLOCKS
            for slot in range(IND_SLOT, N_BLOCKS):
                level = slot - IND_SLOT + 1
                if words[slot]:
                    self._pointers(words[slot : slot + 1], slot, start, level, 0)
                start += self._per_block**level
        except _Abandoned:
            self.clear = True
        self.words[:] = words.tolist()

    def claims(self) -> Numbers:
        """Return the blocks that the map claims."""
        return np.concatenate([np.zeros(0, np.int64), *self._claims])

    @property
    def directory_holes(self) -> int:
        """Number of holes before the last block of a directory."""
        rows = [logical for logical, _ in self._rows]
        return max((int(logical[-1]) for logical in rows), default=-1) + 1 - sum(map(len, rows))

    def end_before_holes(self, allowed: int) -> int:
        """Return where a directory has to end so that it has at most ``allowed`` holes."""
        logical, block = self.directory_rows()
        many = np.flatnonzero(np.cumsum(block == 0) > allowed)
        mapped = np.flatnonzero(block[: int(many[0])] if len(many) else block)
        return int(logical[mapped[-1]]) + 1 if len(mapped) else 0

    def directory_rows(self) -> tuple[Numbers, Numbers]:
        """Return (logical, block) of every block up to the last, block 0 for holes; there is always logical block 0."""
        top = max((int(logical[-1]) for logical, _ in self._rows), default=0)
        found = np.zeros(top + 1, np.int64)
        for logical, block in self._rows:
            found[logical] = block
        return np.arange(top + 1), found

    # One table

    def _data(self, table: Pointers, start: int, block: int) -> None:
        """Judge a table of pointers to data, that of the inode if ``block`` is 0. Bad pointers in it are cleared."""
        if self._cut is not None:
            table[max(self._cut - start, 0) :] = 0
        index = np.flatnonzero(table)
        if not len(index):
            return
        blocks = table[index].astype(np.int64)
        logical = start + index
        bad = ~inside(self._bounds, blocks)
        if self._last_allowed is not None:
            bad |= logical > self._last_allowed
        if bad.any() or self._full(len(blocks)):
            for at in range(len(index)):
                if bad[at] or self._full(1):
                    self._judge(table, int(index[at]), int(logical[at]), block)
                else:
                    self._take(logical[at : at + 1], blocks[at : at + 1])
            return
        self._take(logical, blocks)

    def _full(self, more: int) -> bool:
        """Return whether i_blocks could not count so many more blocks."""
        return self.blocks + more >= self._most_blocks and (self._is_dir or self._is_file)

    def _take(self, logical: Numbers, blocks: Numbers) -> None:
        if self.ino != RESIZE_INO:
            self._claims.append(blocks.astype(np.uint32))
        self.blocks += len(blocks)
        self.last = int(logical[-1])
        if (self._previous and int(blocks[0]) != self._previous + 1) or (len(blocks) > 1 and (np.diff(blocks) != 1).any()):
            self.fragmented = True
        self._previous = int(blocks[-1])
        if self._is_dir:
            self._rows.append((logical, blocks))

    def _judge(self, table: Pointers, index: int, logical: int, block: int) -> None:
        """Report an illegal pointer to data, and clear it."""
        pointer = int(table[index])
        if not self._bounds.holds(pointer):
            problem = problems.ILLEGAL_BLOCK
        elif self._is_dir:
            problem = problems.TOO_BIG_DIRECTORY
        elif self._is_file:
            problem = problems.TOO_BIG_FILE
        else:
            problem = problems.TOO_BIG_SYMLINK
        self._report(problem, table, index, logical, f"{table_name(block)}[{index}]")
        if self._is_dir and not table[index]:
            self._rows.append((np.array([logical]), np.zeros(1, np.int64)))

    def _report(self, problem: Problem, table: Pointers, index: int, logical: int, name: str, got: str = "") -> None:
        """Report the pointer ``table[index]``, and clear it. Every twelfth time clearing the inode is offered."""
        context, pointer = self._context, int(table[index])
        self._bad += 1
        if self._bad % BAD_BETWEEN_QUESTIONS == 0 and not self._quiet:
            if context.fix(problems.TOO_MANY_ILLEGAL, Place(ino=self.ino), got=self._bad):
                raise _Abandoned
            self._quiet = True
        place = Place(ino=self.ino, block=pointer, logical=logical)
        if context.fix(problem, place, got=got or pointer, want=name):
            table[index] = 0

    # Tables of tables

    def _pointers(self, table: Pointers, slot: int, start: int, level: int, block: int) -> None:
        """Walk below a table of pointers to pointer blocks of ``level``: table 0 is at index ``slot`` of its block."""
        span = self._per_block**level
        index = np.flatnonzero(table)
        blocks = table[index].astype(np.int64)
        good = inside(self._bounds, blocks)
        self._report_rows(problems.ILLEGAL_BLOCK, table, index[~good], slot, start, span, block)
        index, blocks = index[good], blocks[good]
        enter = self._tables.enter(blocks)
        self._report_rows(problems.POINTER_BLOCK_REUSED, table, index[~enter], slot, start, span, block)
        index, blocks = index[enter], blocks[enter]
        most = max(1, TABLES_BYTES // self._context.block_size)
        for low in range(0, len(index), most):
            part = slice(low, low + most)
            rows, contents = index[part], self._contents(blocks[part])
            filled = np.array([not isinstance(content, np.ndarray) or content.any() for content in contents])
            self._claim_pointer_blocks(blocks[part][~filled], level)
            for at in np.flatnonzero(filled).tolist():
                content, row = contents[at], int(rows[at])
                pointer, logical = int(table[row]), start + row * span
                name = f"{table_name(block)}[{slot + row}]"
                if isinstance(content, str):
                    self._report(problems.POINTER_BLOCK_UNREADABLE, table, row, logical, name, content)
                    continue
                if self._context.census.system[pointer] and self.ino != RESIZE_INO:
                    place = Place(ino=self.ino, block=pointer, logical=logical)
                    self._context.fix(problems.POINTER_BLOCK_ON_METADATA, place, got=pointer, want=name)
                self._claim_pointer_blocks(blocks[part][at : at + 1], level)
                below = content.copy()
                if level == 1:
                    self._data(below, logical, pointer)
                else:
                    self._pointers(below, 0, logical, level - 1, pointer)
                if not np.array_equal(below, content):
                    self.corrected[pointer] = below.tobytes()

    def _report_rows(
        self, problem: Problem, table: Pointers, index: Numbers, slot: int, start: int, span: int, block: int
    ) -> None:
        for row in index.tolist():
            self._report(problem, table, row, start + row * span, f"{table_name(block)}[{slot + row}]")

    def _claim_pointer_blocks(self, blocks: Numbers, level: int) -> None:
        if not len(blocks):
            return
        if self.ino != RESIZE_INO or level == RESIZE_LEVEL:
            # All others of the resize inode are among the system blocks.
            self._claims.append(blocks.astype(np.uint32))
        self.blocks += len(blocks)
        if self._previous and int(blocks[0]) != self._previous + 1:
            self.fragmented = True
        self._previous = int(blocks[-1])

    def _contents(self, blocks: Numbers) -> list[Pointers | str]:
        """Return the pointers in pointer blocks; the error for one that cannot be read."""
        context = self._context
        found: list[Pointers | str]
        if len(blocks) >= MANY_BLOCKS and self._in_hole(blocks):
            return [np.zeros(self._per_block, np.uint32)] * len(blocks)
        try:
            found = list(read_blocks(context.storage.read, blocks, context.block_size).view("<u4"))
        except DeviceError:
            found = [self._content(block) for block in blocks.tolist()]
        if context.corrected or self.corrected:
            for at, block in enumerate(blocks.tolist()):
                better = self.corrected.get(block) or context.corrected.get(block)
                if better is not None:
                    found[at] = np.frombuffer(better, "<u4")
        return found

    def _in_hole(self, blocks: Numbers) -> bool:
        """Return whether blocks are consecutive, and all of them lie in a hole of the image."""
        size, storage = self._context.block_size, self._context.storage
        if int(blocks[-1]) - int(blocks[0]) != len(blocks) - 1 or (np.diff(blocks) != 1).any():
            return False
        return not any(True for _ in storage.data_ranges(int(blocks[0]) * size, len(blocks) * size))

    def _content(self, block: int) -> Pointers | str:
        try:
            return np.frombuffer(self._context.read(block), "<u4")
        except DeviceError as error:
            return error.message
