"""Space estimate of a copy: the blocks and inodes it needs at least, counted before anything is written.

Counted are data without holes, its indirect blocks, new directories and inodes; replaced files are subtracted. Xattr blocks
and growing directories are not counted, so a copy that barely fits may still run out of space.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, TypeVar

from ext3.constants import DIRECT_BLOCKS, FAST_SYMLINK_MAX

from ...errors import SifkitError, counted, human, shell_quote, show
from ...vfs.file_tree import FileTree, Stat, is_directory
from ...vfs.walk import WalkedDirectory
from ..edit.upper_edit import OverlayEditor
from .copy_options import CopyOptions
from .copy_source import CopySource, identity_of

if TYPE_CHECKING:
    from ..options import Progress

__all__ = ["CopySpaceError", "SpaceEstimate"]

N = TypeVar("N")
MAY_BE_SPARSE_BYTES = 1 << 20
"""Files of this size or more are searched for holes even if their allocation covers their size."""
SECTOR = 512
DOTS_BYTES = 24
"""Bytes of the entries "." and ".." in a directory."""
MIB = 1 << 20
_IN_THE_WAY = -1
"""Inode, in place of a directory's, of a file that the directory cannot replace: nothing of it is copied."""


class CopySpaceError(SifkitError):
    """Copy that needs more space than the image has. ``needed``, ``available``: inodes."""

    kind = "no-space"

    def __init__(
        self, message: str, *, needed_bytes: int, available_bytes: int, needed: int, available: int, hint: str
    ) -> None:
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
        self._linked: set[tuple[int, int, int]] = set()
        self._replaced: set[int] = set()

    def add(self, source: CopySource[N], existing: int | None) -> None:
        """Add a copy that replaces the inode ``existing``, and list its directories in ``source``.

        Files that cannot be read are left out: the copy reports them.
        """
        if not stat.S_ISDIR(source.stat.mode):
            self._add_file(source.tree, source.node, source.stat, existing)
        elif self.options.recursive:
            targets = {b"": self._directory_target(existing)}
            for walked in source.walk():
                self._add_directory(source.tree, walked, targets)

    def _directory_target(self, existing: int | None) -> int | None:
        return existing if existing is None or self.editor.stat(existing).is_dir else _IN_THE_WAY

    def _add_directory(self, tree: FileTree[N], walked: WalkedDirectory[N], targets: dict[bytes, int | None]) -> None:
        """Add a directory and the files in it. ``targets``: by path, the directories of the image it and others go to."""
        existing = targets.pop(walked.path)
        directory_bytes = DOTS_BYTES
        for row in walked.listing.rows:
            directory_bytes += 8 + (len(row.name) + 3 & ~3)
            old: int | None = existing
            if existing not in (None, _IN_THE_WAY):
                old = self.editor.tree.find_name(existing, row.name)
            if is_directory(row):
                path = walked.path + b"/" + row.name if walked.path else row.name
                targets[path] = old if existing == _IN_THE_WAY else self._directory_target(old)
            elif existing != _IN_THE_WAY and row.stat is not None and not isinstance(row.stat, OSError):
                self._add_file(tree, row.node, row.stat, old)
        if existing is None or (existing != _IN_THE_WAY and self.editor.upper_inode(existing) is None):
            self.inodes += 1
            self.blocks += -(-directory_bytes // self._block_size)
        self._progress.advance(len(walked.listing.rows))

    def _add_file(self, tree: FileTree[N], node: N, found: Stat, existing: int | None) -> None:
        if found.links > 1 and "links" in self.options.preserve:
            key = identity_of(tree, found)
            if key in self._linked:
                return
            self._linked.add(key)
        if existing is not None and not self._subtract_replaced(existing):
            return
        self.inodes += existing is None
        if stat.S_ISREG(found.mode):
            self._add_data(tree, node, found)
        elif stat.S_ISLNK(found.mode):
            self.blocks += found.size > FAST_SYMLINK_MAX

    def _subtract_replaced(self, ino: int) -> bool:
        """Subtract the blocks of a file that is replaced, once for all its names; return False if it is not replaced."""
        old = self.editor.stat(ino)
        if old.is_dir or old.is_symlink or not self.options.replace:  # the target of a symlink is not looked up
            return False
        if ino in self._replaced:
            return False
        self._replaced.add(ino)
        if self.editor.upper_inode(ino) is None:  # of a lower layer: nothing is freed
            self.inodes += 1
            return True
        self.blocks -= old.blocks * SECTOR // self._block_size
        return True

    def _add_data(self, tree: FileTree[N], node: N, found: Stat) -> None:
        size, block_size = found.size, self._block_size
        if found.blocks * SECTOR >= size and size < MAY_BE_SPARSE_BYTES:
            blocks = -(-size // block_size)
            self.data_bytes += size
            self.blocks += blocks + (blocks > DIRECT_BLOCKS)
            return
        try:
            with tree.open_file(node) as file:
                ranges = file.data_ranges()
        except OSError:  # reported by the copy
            return
        blocks = end = 0
        for offset, length in ranges:
            self.data_bytes += length
            first, last = max(offset // block_size, end), -(-(offset + length) // block_size)
            blocks += max(0, last - first)
            end = max(end, last)
        self.blocks += blocks
        if blocks > DIRECT_BLOCKS:
            self.blocks += -(-(blocks - DIRECT_BLOCKS) // (block_size // 4))

    def check(self, image: str) -> None:
        """Raise CopySpaceError if the ``image``, a file, has too few free blocks or inodes."""
        found = self.editor.filesystem.superblock
        blocks, inodes = max(0, self.blocks), self.inodes
        if blocks <= found.free_blocks and inodes <= found.free_inodes:
            return
        needed, free = blocks * self._block_size, found.free_blocks * self._block_size
        if inodes > found.free_inodes:
            enough = 2 * (found.inodes_count - found.free_inodes + inodes)
            way = f"give it more inodes: sifkit overlay rebuild -N {enough}"
        else:
            way = f"enlarge it: sifkit overlay resize --size +{-(-(needed - free) * 5 // 4 // MIB) + 1}M"
        raise CopySpaceError(
            f"{show(image)}: the copy needs {human(needed)} and {counted(inodes, 'inode')}, the image has {human(free)} and"
            f" {counted(found.free_inodes, 'inode')} free",
            needed_bytes=needed,
            available_bytes=free,
            needed=inodes,
            available=found.free_inodes,
            hint=f"remove files from it, or {way} {shell_quote(image)}",
        )
