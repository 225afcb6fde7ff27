"""Rollback: changed blocks and revokes of the running transaction, with an undo log for operations that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["Rollback", "numbers_within"]

Content = bytes | bytearray


def numbers_within(blocks: Mapping[int, object], first: int, count: int) -> list[int]:
    """Return those of ``blocks`` among the ``count`` from ``first`` on."""
    if count > len(blocks):
        return [block for block in blocks if first <= block < first + count]
    return [block for block in range(first, first + count) if block in blocks]


class Rollback:
    """Changes of the running transaction, each with what undoes it.

    ``blocks``: number -> new content (a bytearray is changed in place). ``revoked``: blocks the journal must revoke.

    While ``depth`` is above 0 each change is logged with the function that undoes it.
    """

    def __init__(self) -> None:
        self.blocks: dict[int, Content] = {}
        self.revoked: set[int] = set()
        self.depth = 0
        self._undo: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    @property
    def mark(self) -> int:
        """The present point in the undo log, for ``roll_back``."""
        return len(self._undo)

    def remember(self, function: Callable[..., None], *arguments: Any) -> None:
        """Note that ``function(*arguments)`` undoes what was just done."""
        if self.depth:
            self._undo.append((function, arguments))

    def roll_back(self, mark: int) -> None:
        """Undo what was done since ``mark``, the last first."""
        while len(self._undo) > mark:
            function, arguments = self._undo.pop()
            function(*arguments)

    def clear_undo(self) -> None:
        """Empty the undo log: what was done stays."""
        self._undo.clear()

    def clear(self) -> None:
        """Forget all changes: they are committed."""
        self.blocks.clear()
        self.revoked.clear()

    def put(self, block: int, data: Content) -> bool:
        """Change a block and cancel its revoke. Return whether it was unchanged before."""
        old = self.blocks.get(block)
        self.remember(self._restore, block, old)
        self.blocks[block] = data
        if block in self.revoked:
            # Journaled again: its new content must be replayed.
            self.revoked.discard(block)
            self.remember(self.revoked.add, block)
        return old is None

    def drop(self, first: int, count: int, *, revoke: bool) -> None:
        """Drop the new content of freed blocks, and with ``revoke`` what older transactions hold of them."""
        for block in numbers_within(self.blocks, first, count):
            self._drop_block(block)
        if revoke:
            self.revoke(range(first, first + count))

    def revoke(self, blocks: Iterable[int]) -> None:
        """Revoke what older transactions hold of these blocks."""
        for block in blocks:
            if block not in self.revoked:
                self.revoked.add(block)
                self.remember(self.revoked.discard, block)

    def patch(self, block: int, offset: int, data: Content) -> None:
        """Change bytes of a block whose content is a bytearray."""
        found = self.blocks[block]
        assert isinstance(found, bytearray)
        self.remember(self._restore_bytes, found, offset, bytes(found[offset : offset + len(data)]))
        found[offset : offset + len(data)] = data

    def _drop_block(self, block: int) -> None:
        old = self.blocks.pop(block, None)
        if old is not None:
            self.remember(self._restore, block, old)

    def _restore(self, block: int, old: Content | None) -> None:
        if old is None:
            self.blocks.pop(block, None)
        else:
            self.blocks[block] = old

    def _restore_bytes(self, found: bytearray, offset: int, old: bytes) -> None:
        found[offset : offset + len(old)] = old
