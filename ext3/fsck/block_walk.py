"""Walk of a block map that may be damaged: every pointer with its place, and pointers changed.

Readers and the editor judge pointers and stop at a bad one (``format.block_map``); here the caller judges. Source: e2fsprogs
``lib/ext2fs/block.c`` (ext2fs_block_iterate).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..constants import DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, POINTER_SIZE
from .context import Context

__all__ = ["MapWalk", "Pointer"]


class Pointer(NamedTuple):
    """Pointer of a map that is not a hole.

    ``level``: 0 for a block of data, else the height of the pointer block above the data (1 to 3). ``logical``: the first
    logical block below it. It lies in ``slot`` of the pointer block ``table``, of the inode if that is 0.
    """

    block: int
    level: int
    logical: int
    table: int
    slot: int

    @property
    def name(self) -> str:
        """The pointer's name for a report."""
        return f"pointers in block {self.table}[{self.slot}]" if self.table else f"i_block[{self.slot}]"


class MapWalk:
    """Walk of one map. ``set`` changes ``words``, the 15 words of the inode, in place, and pointer blocks in storage."""

    def __init__(self, context: Context, words: list[int]) -> None:
        self.words = words
        self.changed = False
        """A word of the inode was changed."""
        self._context = context
        self._per_block = context.block_size // POINTER_SIZE

    def pointers(self, enter: Callable[[Pointer], bool] = lambda pointer: True) -> Iterator[Pointer]:
        """Yield the pointers in the order of the file, a pointer block before what is below it.

        ``enter`` is asked, after a pointer block was yielded, whether to read it; it must say no to one that lies outside the
        image or that was entered before. A pointer that ``set`` has cleared by then is not entered.
        """
        for slot in range(DIRECT_BLOCKS):
            if self.words[slot]:
                yield Pointer(self.words[slot], 0, slot, 0, slot)
        start = DIRECT_BLOCKS
        for slot in range(IND_SLOT, N_BLOCKS):
            level = slot - IND_SLOT + 1
            if self.words[slot]:
                pointer = Pointer(self.words[slot], level, start, 0, slot)
                yield pointer
                if self.words[slot]:
                    yield from self._below(pointer._replace(block=self.words[slot]), enter)
            start += self._per_block**level

    def _below(self, above: Pointer, enter: Callable[[Pointer], bool]) -> Iterator[Pointer]:
        if not enter(above):
            return
        span = self._per_block ** (above.level - 1)
        table = np.frombuffer(self._context.read(above.block), "<u4")
        for index in np.flatnonzero(table).tolist():
            pointer = Pointer(int(table[index]), above.level - 1, above.logical + index * span, above.block, index)
            yield pointer
            if pointer.level:
                now = self.get(pointer)
                if now:
                    yield from self._below(pointer._replace(block=now), enter)

    def get(self, pointer: Pointer) -> int:
        """Return what a pointer's slot holds now."""
        if not pointer.table:
            return self.words[pointer.slot]
        raw = self._context.read(pointer.table)
        return int.from_bytes(raw[pointer.slot * POINTER_SIZE :][:POINTER_SIZE], "little")

    def set(self, pointer: Pointer, block: int) -> None:
        """Make a pointer lead to another block; 0: to none."""
        if not pointer.table:
            self.words[pointer.slot] = block
            self.changed = True
            return
        raw = bytearray(self._context.read(pointer.table))
        at = pointer.slot * POINTER_SIZE
        raw[at : at + POINTER_SIZE] = block.to_bytes(POINTER_SIZE, "little")
        self._context.write(pointer.table, bytes(raw))
