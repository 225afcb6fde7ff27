"""Directory entries: the chain of records in each block of a directory, checked and decoded.

There is one judge, of a block alone: a block that it refuses is one that e2fsck would change whatever else is in the image.
It comes in forms that agree: ``read_dirents`` walks one block up to a fault, ``dirent_violations`` goes on behind it,
``read_dirent_columns`` (in ``dirent_columns``) walks many blocks side by side. The inode a name leads to has to exist; whether
it may have a name (in use, not reserved, of that type) is not judged here. An indexed directory reads the same way: the index
hides in records that look unused. Source: Linux ``fs/ext4/dir.c`` (ext4_check_dir_entry), e2fsprogs ``e2fsck/pass2.c``
(check_dir_block).
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
from .violation import Violation

__all__ = [
    "BYTES_LIMIT",
    "DOTS",
    "DOT_REC_LEN_MAX",
    "MIN_REC_LEN",
    "Dirent",
    "DirentFields",
    "Entry",
    "directory_block_count",
    "directory_blocks",
    "dirent_violations",
    "length_fault",
    "make_entry",
    "read_dirents",
    "read_entries",
    "walk_records",
]

MIN_REC_LEN = 12
DOTS = (b".", b"..")
DOT_REC_LEN_MAX = 24
"""Longest record of ``.`` that e2fsck does not split."""
READ_BLOCKS = 256
"""Most blocks of a directory in one read."""
BYTES_LIMIT = 1 << 31
"""Size limit of a directory (e2fsprogs ``e2fsck/pass1.c``)."""

_HEAD = DIRENT.size
_NO_NAMES = frozenset((b"", *DOTS))


class Entry(NamedTuple):
    """Name in a directory, and its inode."""

    name: bytes
    ino: int
    file_type: FileType


make_entry = partial(tuple.__new__, Entry)
"""Create an Entry without the check of the number of fields, for speed."""


class Dirent(NamedTuple):
    """Used record of a block: ``offset`` and ``rec_len`` in bytes, ``file_type`` as stored."""

    offset: int
    ino: int
    rec_len: int
    file_type: int
    name: bytes


DirentFields = tuple[int, int, int, int, bytes]
"""Fields of a Dirent as a plain tuple, which takes half the time to create."""

_Fault = tuple[str, object, str]
"""(field, actual value, expected value)."""


# -- blocks of a directory -----------------------------------------------------------------------------------------


def directory_block_count(length: int, block_size: int, where: str) -> int:
    """Return the number of blocks of a directory of ``length`` bytes. Raise CorruptError for an invalid size."""
    if not 0 < length <= BYTES_LIMIT or length % block_size:
        raise CorruptError(where, "i_size", length, f"a multiple of {block_size}, from {block_size} to {BYTES_LIMIT}")
    return length // block_size


def directory_blocks(
    device: BlockDevice, extents: Extents, count: int, *, block_size: int, where: str
) -> Iterator[tuple[int, bytes]]:
    """Yield (logical block, data) of a directory's ``count`` blocks, mapped by ``extents``. Raise CorruptError at a hole."""
    expected = 0
    for logical, physical, run in extents:
        if logical != expected:
            break
        expected += run
        for start in range(0, run, READ_BLOCKS):
            part = min(READ_BLOCKS, run - start)
            data = device.read((physical + start) * block_size, part * block_size)
            for index in range(part):
                yield logical + start + index, data[index * block_size : (index + 1) * block_size]
    if expected != count:
        raise CorruptError(where, "directory", f"a hole at block {expected}", "a block")


# -- one block -----------------------------------------------------------------------------------------------------


def read_dirents(block: bytes, logical: int, into: list[DirentFields], *, inodes: int, where: str) -> None:
    """Append the used records of a directory's block ``logical``, ``.`` and ``..`` too. ``inodes``: the filesystem's count.

    CorruptError for a block that is damaged: records that do not tile it, names that leave their record, inodes that do not
    exist, names no directory can hold, block 0 without ``.`` and ``..`` in front, or those elsewhere. The records before the
    damage are in ``into``. ``where`` names the directory.
    """
    stop = walk_records(block, 0, len(block), 0 if logical else len(DOTS), into, inodes)
    for violation in _violations_at(block, stop, logical, inodes, where) if stop else ():
        raise violation.error


def dirent_violations(block: bytes, logical: int, *, inodes: int, where: str) -> Iterator[Violation]:
    """Yield all that is wrong with a directory's block ``logical``: the first is what ``read_dirents`` raises.

    Ends at a record that cannot be stepped over.
    """
    stop = walk_records(block, 0, len(block), 0 if logical else len(DOTS), [], inodes)
    while stop:
        yield from _violations_at(block, stop, logical, inodes, where)
        offset, dots = stop
        fault = length_fault(block, offset) if offset < len(block) else None
        if offset == len(block) or (fault and fault[0] != "name_len"):
            return
        offset += DIRENT.packer.unpack_from(block, offset)[1]
        stop = walk_records(block, offset, len(block), max(dots - 1, 0), [], inodes)


def walk_records(
    data: bytes, offset: int, end: int, dots: int, into: list[DirentFields], inodes: int
) -> tuple[int, int] | None:
    """Append the used records from ``offset`` to ``end``; the first ``dots`` are ``.`` and ``..``, or ``..`` alone.

    Return where the first record with a fault is, and how many of ``.`` and ``..`` were to come from there; None if all are
    sound. Every record is at least 12 bytes, so this ends.
    """
    last = end - MIN_REC_LEN
    unpack = DIRENT.packer.unpack_from
    append = into.append
    head, no_names = _HEAD, _NO_NAMES
    slash = data.find(b"/", offset, end) >= 0  # hardly ever: then names need not be searched one by one
    while offset < end:
        if offset > last:
            return offset, dots
        ino, rec_len, name_len, file_type = unpack(data, offset)
        if rec_len < MIN_REC_LEN or rec_len & 3 or offset + rec_len > end or head + name_len > rec_len:
            return offset, dots
        if ino or dots:
            name = data[offset + head : offset + head + name_len]
            if dots:
                if name != DOTS[-dots] or data[offset + head + name_len] or not 0 < ino <= inodes:
                    return offset, dots
                if dots == 2 and rec_len > DOT_REC_LEN_MAX:
                    return offset, dots
                dots -= 1
            elif ino > inodes or b"\0" in name or (name_len < 3 and name in no_names) or (slash and b"/" in name):
                return offset, dots
            append((offset, ino, rec_len, file_type, name))
        offset += rec_len
    return (end, dots) if dots else None


def _violations_at(block: bytes, stop: tuple[int, int], logical: int, inodes: int, where: str) -> Iterator[Violation]:
    """Yield what is wrong with the record at which ``walk_records`` stopped."""
    offset, dots = stop
    for field, got, want in _record_faults(block, offset, dots, inodes):
        yield Violation(f"{where}, block {logical} at byte {offset}", field, got, want)


def _record_faults(data: bytes, offset: int, dots: int, inodes: int) -> Iterator[_Fault]:
    if offset == len(data):
        yield from (("record", "missing", show(name)) for name in DOTS[-dots:])
        return
    fault = length_fault(data, offset)
    if fault:
        yield fault
        return
    ino, rec_len, name_len, _ = DIRENT.packer.unpack_from(data, offset)
    name = data[offset + _HEAD : offset + _HEAD + name_len]
    if dots:
        yield from _dot_faults(data, offset, ino, rec_len, name, DOTS[-dots], inodes)
    else:
        yield from _entry_faults(ino, rec_len, name, inodes)


def length_fault(data: bytes | bytearray, offset: int) -> _Fault | None:
    """Return what is wrong with the lengths of a block's record, (field, actual value, expected value), None if nothing is.

    Only a record whose ``name_len`` is wrong can be stepped over.
    """
    left = len(data) - offset
    if left < MIN_REC_LEN:
        return "record", f"{left} bytes", f">= {MIN_REC_LEN}"
    _, rec_len, name_len, _ = DIRENT.packer.unpack_from(data, offset)
    if rec_len < MIN_REC_LEN or rec_len & 3 or rec_len > left:
        return "rec_len", rec_len, f"a multiple of 4 from {MIN_REC_LEN} to {left}"
    return ("name_len", name_len, f"<= {rec_len - _HEAD}") if _HEAD + name_len > rec_len else None


def _dot_faults(data: bytes, offset: int, ino: int, rec_len: int, name: bytes, want: bytes, inodes: int) -> Iterator[_Fault]:
    """Yield the faults of a record that should be ``.`` or ``..``."""
    if not ino:
        yield "inode", 0, f"that of {show(want)}"
        return
    if ino > inodes:
        yield "inode", ino, f"<= {inodes}"
    end = offset + _HEAD + len(name)
    if name != want:
        yield "name", repr(show(name)), repr(show(want))
    elif data[end]:
        yield "name", repr(show(data[end - len(name) : end + 1])), f"{show(want)!r} and a NUL"
    if want == b"." and rec_len > DOT_REC_LEN_MAX:
        yield "rec_len", rec_len, f"from {MIN_REC_LEN} to {DOT_REC_LEN_MAX}"


def _entry_faults(ino: int, rec_len: int, name: bytes, inodes: int) -> Iterator[_Fault]:
    """Yield the faults of another record in use."""
    if not name:
        yield "name_len", 0, f"from 1 to {rec_len - _HEAD}"
    if ino > inodes:
        yield "inode", ino, f"<= {inodes}"
    if name in DOTS:
        yield "name", repr(show(name)), "one of the first two names of block 0, or another name"
    elif b"/" in name or b"\0" in name:
        yield "name", repr(show(name)), "a name without slash or NUL"


def read_entries(
    block: bytes,
    logical: int,
    *,
    inodes: int,
    where: str,
    known: Mapping[int, FileType],
    type_of: Callable[[int], FileType],
) -> tuple[list[Entry], Ext3Error | None]:
    """Return the entries of one block without ``.`` and ``..``; of a damaged one those before the damage, and the error.

    ``known``: the file type for each number a record may hold; for others ``type_of`` is asked, with the inode.
    """
    records: list[DirentFields] = []
    found: list[Entry] = []
    append, entry = found.append, make_entry
    damage: Ext3Error | None = None
    try:
        read_dirents(block, logical, records, inodes=inodes, where=where)
    except CorruptError as error:
        damage = error
    if not logical:
        del records[: len(DOTS)]
    try:
        for _, ino, _, number, name in records:
            append(entry((name, ino, known.get(number) or type_of(ino))))
    except Ext3Error as error:
        damage = error
    return found, damage
