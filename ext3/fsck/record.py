"""Record of one inode while it is checked: its fields, changed in place, and written back once."""

from __future__ import annotations

from typing import Any

from ..constants import GOOD_INODE_SIZE, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from ..format.schema import INODE_CORE, INODE_EXTRA
from .context import Context

__all__ = ["Record"]


class Record:
    """``core``: a row of INODE_CORE; ``extra``: of INODE_EXTRA, None if inodes have no room for it."""

    def __init__(self, ino: int, raw: bytes) -> None:
        self.ino = ino
        self.raw = bytearray(raw)
        self.core: Any = INODE_CORE.view(self.raw)[0]
        self.extra: Any = INODE_EXTRA.view(self.raw, 1, GOOD_INODE_SIZE)[0] if len(raw) > GOOD_INODE_SIZE else None
        self._before = bytes(raw)

    def get(self, name: str) -> int:
        """Return an integer field of INODE_CORE."""
        return int(self.core[name])

    @property
    def mode(self) -> int:
        return int(self.core["i_mode"])

    @property
    def form(self) -> int:
        """Format bits of the mode."""
        return self.mode & S_IFMT

    @property
    def is_dir(self) -> bool:
        return self.form == S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.form == S_IFREG

    @property
    def is_symlink(self) -> bool:
        return self.form == S_IFLNK

    @property
    def links(self) -> int:
        return int(self.core["i_links_count"])

    @property
    def flags(self) -> int:
        return int(self.core["i_flags"])

    def clear_flags(self, flags: int) -> None:
        self.core["i_flags"] = self.flags & ~int(flags) & 0xFFFFFFFF

    @property
    def size(self) -> int:
        """Size in bytes, with the high word whatever the inode is."""
        return self.get("i_size") | self.get("i_size_high") << 32

    @size.setter
    def size(self, value: int) -> None:
        self.core["i_size"], self.core["i_size_high"] = value & 0xFFFFFFFF, value >> 32

    @property
    def words(self) -> list[int]:
        """The 15 words of the block map."""
        words: list[int] = self.core["i_block"].tolist()
        return words

    @words.setter
    def words(self, words: list[int]) -> None:
        self.core["i_block"] = words

    @property
    def inline(self) -> bytes:
        """The bytes of i_block."""
        return bytes(self.core["i_block"].tobytes())

    def delete(self, now: int) -> None:
        """Make it the record of a deleted inode."""
        self.core["i_flags"] = self.core["i_links_count"] = 0
        self.core["i_dtime"] = now

    def zero(self) -> None:
        self.raw[:] = bytes(len(self.raw))

    def save(self, context: Context) -> None:
        """Write it if it was changed."""
        now = bytes(self.raw)
        if now != self._before:
            context.write_inode(self.ino, now)
            self._before = now
