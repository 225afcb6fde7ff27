"""Directory entries: the chain of records that tiles each block of a directory.

An indexed directory reads the same way: the index hides in records that look unused. Source: Linux ``fs/ext4/dir.c``
(ext4_check_dir_entry) and ``fs/ext4/ext4.h``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .constants import FileType
from .errors import CorruptError, show
from .schema import DIRENT

__all__ = ["Dirent", "Entry", "iter_dirents", "pad4"]

MIN_REC_LEN = 12


class Entry(NamedTuple):
    """A name in a directory and the inode it leads to."""

    name: bytes
    ino: int
    file_type: FileType


class Dirent(NamedTuple):
    """One used record as it lies in its block: ``offset`` and ``rec_len`` in bytes, ``file_type`` as stored."""

    offset: int
    ino: int
    rec_len: int
    file_type: int
    name: bytes


def pad4(length: int) -> int:
    """``length`` rounded up to a multiple of 4."""
    return -(-length // 4) * 4


def iter_dirents(block: bytes, *, inodes: int, where: str) -> Iterator[Dirent]:
    """The used records of one directory block, ``.`` and ``..`` too. ``inodes`` is the filesystem's count.

    CorruptError (``where``, field, ...) for records that do not tile the block, inodes that do not exist and names no
    directory can hold (empty, with a slash or a NUL). Every record is at least 12 bytes, so this ends.
    """
    size = len(block)
    unpack = DIRENT.packer.unpack_from
    offset = 0
    while offset < size:
        if offset + MIN_REC_LEN > size:
            raise CorruptError(f"{where} at byte {offset}", "record", f"{size - offset} bytes", f">= {MIN_REC_LEN}")
        ino, rec_len, name_len, file_type = unpack(block, offset)
        if rec_len < MIN_REC_LEN or rec_len % 4 or offset + rec_len > size:
            want = f"a multiple of 4 from {MIN_REC_LEN} to {size - offset}"
            raise CorruptError(f"{where} at byte {offset}", "rec_len", rec_len, want)
        if ino:
            start = offset + DIRENT.size
            if DIRENT.size + name_len > rec_len:
                raise CorruptError(f"{where} at byte {offset}", "name_len", name_len, f"<= {rec_len - DIRENT.size}")
            name = block[start : start + name_len]
            if ino > inodes:
                raise CorruptError(f"{where} at byte {offset}", "inode", ino, f"<= {inodes}")
            if not name or b"/" in name or b"\0" in name:
                raise CorruptError(f"{where} at byte {offset}", "name", repr(show(name)), "a name without slash or NUL")
            yield Dirent(offset, ino, rec_len, file_type, name)
        offset += rec_len
