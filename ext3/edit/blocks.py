"""Blocks of a filesystem being edited: the protocol that maps, directories and attributes are edited through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

__all__ = ["Blocks", "Run"]

Run = tuple[int, int]
"""(first block, count) of consecutive blocks."""


class Blocks(Protocol):
    """Blocks of a filesystem being edited. Numbers are block numbers from the filesystem's start."""

    @property
    def block_size(self) -> int:
        """Size of a block in bytes."""
        ...

    def read(self, block: int) -> bytes:
        """Return a block as it is now, uncommitted changes included."""
        ...

    def write(self, block: int, data: bytes) -> None:
        """Change a whole block of metadata. ``read`` returns it at once; it reaches its place after the commit."""
        ...

    def allocate(self, count: int, goal: int) -> list[Run]:
        """Take ``count`` free blocks, near ``goal`` and in as few runs as possible. NoSpaceError: none were taken."""
        ...

    def free(self, runs: Iterable[Run], *, metadata: bool) -> None:
        """Free blocks. ``metadata``: they held a directory, pointers or attributes, which the journal must revoke."""
        ...
