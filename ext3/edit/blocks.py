"""What an edit sees of the filesystem's blocks: their present content, and a way to change, take and give back some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

__all__ = ["Blocks", "Run"]

Run = tuple[int, int]
"""(first block, count) of blocks that follow each other."""


class Blocks(Protocol):
    """The blocks of a filesystem that is being edited. Numbers are block numbers from the filesystem's start."""

    @property
    def block_size(self) -> int:
        """In bytes."""
        ...

    def read(self, block: int) -> bytes:
        """A block as it is now, with what was changed and is not yet in place."""
        ...

    def write(self, block: int, data: bytes) -> None:
        """Change a whole block of metadata. ``read`` gives it at once; it is in place when the changes are committed."""
        ...

    def allocate(self, count: int, goal: int) -> list[Run]:
        """Take ``count`` free blocks, near ``goal`` if possible, in as few runs as possible. NoSpaceError: none were taken."""
        ...

    def free(self, runs: Iterable[Run], *, metadata: bool) -> None:
        """Give blocks back. ``metadata``: they held a directory, pointers or attributes (the journal must forget them)."""
        ...
