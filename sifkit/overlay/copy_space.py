"""Space estimate of a copy: the blocks and inodes it needs at least, counted before anything is written.

Counted are data without holes, its indirect blocks, new directories and inodes; replaced files are subtracted. Xattr blocks
and growing directories are not counted, so a copy that barely fits may still run out of space.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, TypeVar

from ext3.constants import DIRECT_BLOCKS, FAST_SYMLINK_MAX
from ext3.errors import Ext3Error

from ..errors import SifkitError, counted, human
from .copy_in import CopyOptions
from .copy_source import CopySource, SourceStat
from .upper_edit import OverlayEditor

if TYPE_CHECKING:
    from .options import Progress

__all__ = ["CopySpaceError", "SpaceEstimate"]

N = TypeVar("N")
MAY_BE_SPARSE_BYTES = 1 << 20
"""Files of this size or more are searched for holes even if their allocation covers their size."""
DOTS_BYTES = 24
"""Bytes of the entries "." and ".." in a directory."""


class CopySpaceError(SifkitError):
    """Copy that needs more space than the image has. ``needed``, ``available``: inodes."""

    kind = "no-space"

    def __init__(self, message: str, *, needed_bytes: int, available_bytes: int, needed: int, available: int) -> None:
        hint = "remove files from it, or copy into a larger image"
        super().__init__(message, hint=hint)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.needed = needed
        self.available = available


class SpaceEstimate:
    """Sum of copies to one image. ``data_bytes``: data to copy; ``blocks`` and ``inodes``: what the image needs for it."""

    def __init__(self, editor: OverlayEditor, options: CopyOptions, progress: Progress) -> None:
        self.editor = editor
        self.options = options
        self.data_bytes = self.blocks = self.inodes = 0
        self._progress = progress
        self._block_size = editor.filesystem.superblock.block_size
        self._linked: set[tuple[int, tuple[int, int]]] = set()
        self._replaced: set[int] = set()

    def add(self, source: CopySource[N], node: N, existing: int | None) -> None:
        """Add a copy that replaces the inode ``existing``. Unreadable files are skipped: the copy reports them."""
        try:
            st = source.stat(node)
            if not stat.S_ISDIR(st.mode):
                self._add_file(source, node, st, existing)
            elif self.options.recursive:
                self._add_tree(source, node, st, existing)
        except (Ext3Error, OSError):
            return

    def _add_tree(self, source: CopySource[N], node: N, st: SourceStat, existing: int | None) -> None:
        pending = [(node, st, existing)]
        seen: set[tuple[int, int]] = set()
        while pending:
            node, st, existing = pending.pop()
            if st.identity in seen or (existing is not None and not self.editor.stat(existing).is_dir):
                continue
            seen.add(st.identity)
            directory_bytes = DOTS_BYTES
            count = 0
            for name, child, child_st in source.scan(node):
                count += 1
                directory_bytes += 8 + (len(name) + 3 & ~3)
                old = None if existing is None else self.editor.tree.find_name(existing, name)
                if stat.S_ISDIR(child_st.mode):
                    pending.append((child, child_st, old))
                else:
                    self._add_file(source, child, child_st, old)
            if existing is None:
                self.inodes += 1
                self.blocks += -(-directory_bytes // self._block_size)
            self._progress.advance(count)

    def _add_file(self, source: CopySource[N], node: N, st: SourceStat, existing: int | None) -> None:
        if st.links > 1 and "links" in self.options.preserve:
            key = id(source), st.identity
            if key in self._linked:
                return
            self._linked.add(key)
        if existing is not None and not self._subtract_replaced(existing):
            return
        self.inodes += existing is None
        if stat.S_ISREG(st.mode):
            self._add_data(source, node, st)
        elif stat.S_ISLNK(st.mode):
            self.blocks += st.size > FAST_SYMLINK_MAX

    def _subtract_replaced(self, ino: int) -> bool:
        """Subtract the blocks of a file that is replaced, once for all its names; return False if it is not replaced."""
        old = self.editor.stat(ino)
        if old.is_dir or old.is_symlink or not self.options.replace:  # the target of a symlink is not looked up
            return False
        if ino in self._replaced:
            return False
        self._replaced.add(ino)
        self.blocks -= old.blocks * 512 // self._block_size
        return True

    def _add_data(self, source: CopySource[N], node: N, st: SourceStat) -> None:
        size, block_size = st.size, self._block_size
        if st.allocated >= size and size < MAY_BE_SPARSE_BYTES:
            blocks = -(-size // block_size)
            self.data_bytes += size
            self.blocks += blocks + (blocks > DIRECT_BLOCKS)
            return
        blocks = end = 0
        for low, high in source.data_ranges(node):
            self.data_bytes += high - low
            first, last = max(low // block_size, end), -(-high // block_size)
            blocks += max(0, last - first)
            end = max(end, last)
        self.blocks += blocks
        if blocks > DIRECT_BLOCKS:
            self.blocks += -(-(blocks - DIRECT_BLOCKS) // (block_size // 4))

    def check(self, image: str) -> None:
        """Raise CopySpaceError if the image has too few free blocks or inodes."""
        found = self.editor.filesystem.superblock
        blocks, inodes = max(0, self.blocks), self.inodes
        if blocks <= found.free_blocks and inodes <= found.free_inodes:
            return
        needed, free = blocks * self._block_size, found.free_blocks * self._block_size
        raise CopySpaceError(
            f"{image}: the copy needs {human(needed)} and {counted(inodes, 'inode')}, the image has {human(free)} and"
            f" {counted(found.free_inodes, 'inode')} free",
            needed_bytes=needed,
            available_bytes=free,
            needed=inodes,
            available=found.free_inodes,
        )
