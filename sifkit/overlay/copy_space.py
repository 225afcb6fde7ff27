"""Room for a copy: what it surely takes of an image, counted before anything is written, and whether there is so much.

Counted are data without holes, the pointers to it, new directories and inodes. What is replaced is given back. Attributes that
need a block, and directories that get longer, are not: where it is close the copy may end for want of space all the same.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, TypeVar

from ext3.constants import DIRECT_BLOCKS, FAST_SYMLINK_MAX
from ext3.errors import Ext3Error

from ..errors import SifkitError, counted, human
from .copy_in import CopyOptions
from .copy_source import FileFacts, Source
from .upper_edit import OverlayEditor

if TYPE_CHECKING:
    from .options import Progress

__all__ = ["NoRoomError", "Room"]

H = TypeVar("H")
ASK_BYTES = 1 << 20
"""Files from this size on are asked for holes even if as much is stored for them as they are long."""
DOTS_BYTES = 24
"""What "." and ".." take of a directory."""


class NoRoomError(SifkitError):
    """A copy needs more than the image has. ``needed``, ``available``: inodes."""

    kind = "no-space"

    def __init__(self, message: str, *, needed_bytes: int, available_bytes: int, needed: int, available: int) -> None:
        hint = "remove files from it, or copy into a larger image"
        super().__init__(message, hint=hint)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.needed = needed
        self.available = available


class Room:
    """Adds up copies to one image. ``data_bytes``: what is going to be copied; ``blocks`` and ``inodes``: what that takes."""

    def __init__(self, editor: OverlayEditor, options: CopyOptions, progress: Progress) -> None:
        self.editor = editor
        self.options = options
        self.data_bytes = self.blocks = self.inodes = 0
        self._progress = progress
        self._block_size = editor.filesystem.superblock.block_size
        self._linked: set[tuple[int, tuple[int, int]]] = set()
        self._replaced: set[int] = set()

    def add(self, source: Source[H], handle: H, there: int | None) -> None:
        """Count a copy to a place where the inode ``there`` is. What cannot be read is left out: the copy tells of it."""
        try:
            facts = source.facts(handle)
            if not stat.S_ISDIR(facts.mode):
                self._file(source, handle, facts, there)
            elif self.options.recursive:
                self._tree(source, handle, facts, there)
        except (Ext3Error, OSError):
            return

    def _tree(self, source: Source[H], handle: H, facts: FileFacts, there: int | None) -> None:
        pending = [(handle, facts, there)]
        seen: set[tuple[int, int]] = set()
        while pending:
            handle, facts, there = pending.pop()
            if facts.key in seen or (there is not None and not self.editor.stat(there).is_dir):
                continue
            seen.add(facts.key)
            names = DOTS_BYTES
            count = 0
            for name, below, inside in source.scan(handle):
                count += 1
                names += 8 + (len(name) + 3 & ~3)
                old = None if there is None else self.editor.find_visible(there, name)
                if stat.S_ISDIR(inside.mode):
                    pending.append((below, inside, old))
                else:
                    self._file(source, below, inside, old)
            if there is None:
                self.inodes += 1
                self.blocks += -(-names // self._block_size)
            self._progress.advance(count)

    def _file(self, source: Source[H], handle: H, facts: FileFacts, there: int | None) -> None:
        if facts.links > 1 and "links" in self.options.preserve:
            key = id(source), facts.key
            if key in self._linked:
                return
            self._linked.add(key)
        if there is not None and not self._replaces(there):
            return
        self.inodes += there is None
        if stat.S_ISREG(facts.mode):
            self._data(source, handle, facts)
        elif stat.S_ISLNK(facts.mode):
            self.blocks += facts.size > FAST_SYMLINK_MAX

    def _replaces(self, there: int) -> bool:
        """Whether a file that is there is going to be replaced, so that its blocks become free; once for all its names."""
        old = self.editor.stat(there)
        if old.is_dir or old.is_symlink or not self.options.replace:  # what a link leads to is not looked for
            return False
        if there in self._replaced:
            return False
        self._replaced.add(there)
        self.blocks -= old.blocks * 512 // self._block_size
        return True

    def _data(self, source: Source[H], handle: H, facts: FileFacts) -> None:
        size, unit = facts.size, self._block_size
        if facts.allocated >= size and size < ASK_BYTES:
            blocks = -(-size // unit)
            self.data_bytes += size
            self.blocks += blocks + (blocks > DIRECT_BLOCKS)
            return
        blocks = end = 0
        for low, high in source.segments(handle):
            self.data_bytes += high - low
            first, last = max(low // unit, end), -(-high // unit)
            blocks += max(0, last - first)
            end = max(end, last)
        self.blocks += blocks
        if blocks > DIRECT_BLOCKS:
            self.blocks += -(-(blocks - DIRECT_BLOCKS) // (unit // 4))

    def check(self, image: str) -> None:
        """Raise NoRoomError if the image has less than what was counted."""
        found = self.editor.filesystem.superblock
        blocks, inodes = max(0, self.blocks), self.inodes
        if blocks <= found.free_blocks and inodes <= found.free_inodes:
            return
        needed, free = blocks * self._block_size, found.free_blocks * self._block_size
        raise NoRoomError(
            f"{image}: the copy needs {human(needed)} and {counted(inodes, 'inode')}, the image has {human(free)} and"
            f" {counted(found.free_inodes, 'inode')} free",
            needed_bytes=needed,
            available_bytes=free,
            needed=inodes,
            available=found.free_inodes,
        )
