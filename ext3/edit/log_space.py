"""Space in the journal: how many of its blocks the running transaction can need, and when it is to be committed."""

from __future__ import annotations

from ..alloc.allocator import BlockAllocator, InodeAllocator
from ..errors import JournalFullError
from ..format.geometry import Geometry
from ..journal.transaction import LogWriter, log_blocks
from .rollback import Rollback

__all__ = ["LogSpace"]

UNLIMITED = 1 << 40
"""Blocks of a transaction without a journal."""


class LogSpace:
    """Space that the running transaction takes in the journal. ``log``: None without a journal."""

    def __init__(
        self, log: LogWriter | None, changes: Rollback, blocks: BlockAllocator, inodes: InodeAllocator, geometry: Geometry
    ) -> None:
        self._log = log
        self._changes = changes
        self._blocks = blocks
        self._inodes = inodes
        self._geometry = geometry

    @property
    def left(self) -> int:
        """Number of blocks that can still be changed before the transaction is full; huge without a journal."""
        return UNLIMITED if self._log is None else max(0, self._log.capacity - self._needed())

    @property
    def is_quarter_full(self) -> bool:
        """True if the transaction takes more than a quarter of the log."""
        return self._log is not None and 4 * self._needed() > self._log.capacity

    def check(self) -> None:
        """Raise JournalFullError if the running operation cannot be committed in one transaction."""
        if self._log is None or not self._changes.depth:
            return
        # Each needs less than two log blocks: usually this estimate is enough.
        changes = self._changes
        if 2 * (len(changes.blocks) + len(changes.revoked) + 2 * self._groups) + 8 > self._log.capacity:
            needed = self._needed()
            if needed > self._log.capacity:
                raise JournalFullError(needed, self._log.capacity)

    @property
    def _groups(self) -> int:
        return len(self._blocks.dirty) + len(self._inodes.dirty)

    def _needed(self) -> int:
        """Return the most log blocks that the running transaction can need."""
        groups = self._groups
        changed = len(self._changes.blocks) + groups + min(groups, self._geometry.descriptor_blocks) + 1
        return log_blocks(changed, len(self._changes.revoked), self._geometry.block_size)
