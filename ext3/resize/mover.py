"""Moves of all that lies beyond a new end, in transactions under the old geometry: the list of bad blocks, the journal, blocks,
inodes."""

from __future__ import annotations

import numpy as np

from ..errors import NeedsCheckError
from ..format.geometry import Geometry
from ..progress import Progress
from .bad_blocks import check_bad_blocks, write_bad_blocks
from .block_moves import BlockMover, Moves
from .full_census import tables_of
from .inode_moves import InodeMover, read_names
from .journal_relocation import move_journal
from .move_plan import PlannedMoves
from .references import read_references
from .transactions import Transactions

__all__ = ["Mover"]


class Mover:
    """Moves of a plan, all of them planned in steps that fit the journal before anything is written."""

    def __init__(self, changes: Transactions, plan: PlannedMoves, new: Geometry) -> None:
        """Raise NeedsCheckError if the filesystem is not the one that was planned for, JournalFullError if a step does not
        fit the journal."""
        self._changes = changes
        self._plan = plan
        self._blocks: BlockMover | None = None
        self._inodes: InodeMover | None = None
        if plan.any:
            self._plan_steps(new)
        if plan.bad_blocks is not None:
            check_bad_blocks(changes, plan.bad_blocks)

    def _plan_steps(self, new: Geometry) -> None:
        plan, changes, size = self._plan, self._changes, self._changes.block_size
        moves, numbers = Moves(plan.block_from, plan.block_to), Moves(plan.inode_from, plan.inode_to)
        found = read_references(tables_of(changes.device, changes.superblock, changes.groups), new.blocks)
        self._journal_pointers = found.journal
        if len(np.unique(found.pointers.block)) != len(moves.old):
            raise NeedsCheckError("is not the one that was planned for")
        self._blocks = BlockMover(changes, found.pointers, moves)
        if len(numbers.old):
            names = read_names(changes, found.directories, new.inodes)
            if not np.array_equal(np.unique(names.ino), numbers.old):
                raise NeedsCheckError("is not the one that was planned for")
            block, start = np.divmod(names.at, size)
            at = moves.moved(block) * size + start
            self._inodes = InodeMover(changes, names._replace(at=at), numbers)

    def run(self, progress: Progress) -> None:
        """Move everything."""
        plan, changes = self._plan, self._changes
        if plan.bad_blocks is not None:
            write_bad_blocks(changes, plan.bad_blocks)
        if self._blocks is None:
            return
        progress.phase("moving", plan.blocks * changes.block_size, "bytes")
        if len(plan.journal_from):
            move_journal(changes, self._journal_pointers, Moves(plan.journal_from, plan.journal_to))
            progress.advance(len(plan.journal_from) * changes.block_size)
        self._blocks.run(progress)
        if self._inodes is not None:
            self._inodes.run()
        progress.done()
