"""Directory blocks taken apart for tests."""

from __future__ import annotations

from ext3.format.dirent import Dirent, DirentFields, read_dirents

__all__ = ["parse_block"]


def parse_block(block: bytes, logical: int, *, inodes: int, where: str = "test") -> list[Dirent]:
    """The records of a block. CorruptError as ``read_dirents``."""
    found: list[DirentFields] = []
    read_dirents(block, logical, found, inodes=inodes, where=where)
    return [Dirent(*fields) for fields in found]
