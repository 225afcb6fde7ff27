"""Directory entries: the chain of records that tiles each block of a directory.

An indexed directory reads the same way: the index hides in records that look unused. Source: Linux ``fs/ext4/dir.c``
(ext4_check_dir_entry) and ``fs/ext4/ext4.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from ..constants import FileType
from ..device.base import BlockDevice
from ..errors import CorruptError, Ext3Error, show
from .block_map import Extents
from .schema import DIRENT

__all__ = [
    "Dirent",
    "DirentFacts",
    "Entry",
    "directory_block_count",
    "directory_blocks",
    "iter_dirents",
    "make_entry",
    "read_dirents",
    "read_entries",
]

MIN_REC_LEN = 12
DOTS = frozenset((b".", b".."))
READ_BLOCKS = 256
"""Blocks of a directory that are read at once at most."""
BYTES_LIMIT = 1 << 31
"""A directory is not larger than this (e2fsprogs ``e2fsck/pass1.c``)."""


class Entry(NamedTuple):
    """A name in a directory and the inode it leads to."""

    name: bytes
    ino: int
    file_type: FileType


make_entry = partial(tuple.__new__, Entry)
"""Without the check of the number of fields: entries are made of very many."""


class Dirent(NamedTuple):
    """One used record as it lies in its block: ``offset`` and ``rec_len`` in bytes, ``file_type`` as stored."""

    offset: int
    ino: int
    rec_len: int
    file_type: int
    name: bytes


DirentFacts = tuple[int, int, int, int, bytes]
"""The fields of a Dirent: of many, the tuples alone are made in half the time."""


def directory_block_count(length: int, block_size: int, where: str) -> int:
    """Blocks of a directory of ``length`` bytes; CorruptError if that is no size of one."""
    if not length or length % block_size or length > BYTES_LIMIT:
        raise CorruptError(where, "i_size", length, f"a multiple of {block_size}, from {block_size} to {BYTES_LIMIT}")
    return length // block_size


def directory_blocks(
    device: BlockDevice, extents: Extents, count: int, *, block_size: int, where: str
) -> Iterator[tuple[str, bytes]]:
    """(where, data) of each of a directory's ``count`` blocks, which ``extents`` maps; CorruptError at a hole."""
    expected = 0
    for logical, physical, run in extents.tolist():
        if logical != expected:
            break
        expected += run
        for start in range(0, run, READ_BLOCKS):
            part = min(READ_BLOCKS, run - start)
            data = device.read((physical + start) * block_size, part * block_size)
            for index in range(part):
                yield f"{where}, block {logical + start + index}", data[index * block_size : (index + 1) * block_size]
    if expected != count:
        raise CorruptError(where, "directory", f"a hole at block {expected}", "a block")


def iter_dirents(block: bytes, *, inodes: int, where: str) -> Iterator[Dirent]:
    """The used records of one directory block, ``.`` and ``..`` too, in the order they lie. Raises as ``read_dirents``,
    behind the records before the damaged one."""
    found: list[DirentFacts] = []
    damage: CorruptError | None = None
    try:
        read_dirents(block, found, inodes=inodes, where=where)
    except CorruptError as error:
        damage = error
    yield from map(Dirent._make, found)
    if damage is not None:
        raise damage


def read_dirents(block: bytes, into: list[DirentFacts], *, inodes: int, where: str) -> None:
    """Append the used records of one directory block, ``.`` and ``..`` too. ``inodes`` is the filesystem's count.

    CorruptError (``where``, field, ...) for records that do not tile the block, inodes that do not exist and names no
    directory can hold (empty, with a slash or a NUL); those before are in ``into``. Every record is at least 12 bytes, so
    this ends.
    """
    size = len(block)
    last = size - MIN_REC_LEN
    unpack = DIRENT.packer.unpack_from
    head = DIRENT.size
    append = into.append
    offset = 0
    while offset < size:
        if offset > last:
            raise CorruptError(f"{where} at byte {offset}", "record", f"{size - offset} bytes", f">= {MIN_REC_LEN}")
        ino, rec_len, name_len, file_type = unpack(block, offset)
        if rec_len < MIN_REC_LEN or rec_len & 3 or offset + rec_len > size:
            want = f"a multiple of 4 from {MIN_REC_LEN} to {size - offset}"
            raise CorruptError(f"{where} at byte {offset}", "rec_len", rec_len, want)
        if ino:
            start = offset + head
            if head + name_len > rec_len:
                raise CorruptError(f"{where} at byte {offset}", "name_len", name_len, f"<= {rec_len - head}")
            name = block[start : start + name_len]
            if ino > inodes:
                raise CorruptError(f"{where} at byte {offset}", "inode", ino, f"<= {inodes}")
            if not name or b"/" in name or b"\0" in name:
                raise CorruptError(f"{where} at byte {offset}", "name", repr(show(name)), "a name without slash or NUL")
            append((offset, ino, rec_len, file_type, name))
        offset += rec_len


def read_entries(
    block: bytes, *, inodes: int, where: str, known: Mapping[int, FileType], type_of: Callable[[int], FileType]
) -> tuple[list[Entry], Ext3Error | None]:
    """The entries of one directory block but ``.`` and ``..``; of a damaged one those before the damage, and what that is.

    ``known``: the file type for each number a record may hold; for others ``type_of`` is asked, with the inode.
    """
    records: list[DirentFacts] = []
    found: list[Entry] = []
    append, entry = found.append, make_entry
    damage: Ext3Error | None = None
    try:
        read_dirents(block, records, inodes=inodes, where=where)
    except CorruptError as error:
        damage = error
    try:
        for _, ino, _, number, name in records:
            if name not in DOTS:
                append(entry((name, ino, known.get(number) or type_of(ino))))
    except Ext3Error as error:
        damage = error
    return found, damage
