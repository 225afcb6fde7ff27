"""Salvage of damaged records of a directory block: what follows them is kept where that can be told. Pure.

A record is damaged if it is shorter than 12 bytes or than its name, not a multiple of 4 bytes long, or leaves the block.
Source: e2fsprogs ``e2fsck/pass2.c`` (salvage_directory).
"""

from __future__ import annotations

from ..format.dirent import MIN_REC_LEN, length_fault
from ..format.schema import DIRENT

__all__ = ["is_damaged", "salvage_record"]

HEAD = DIRENT.size
_unpack = DIRENT.packer.unpack_from
_pack_into = DIRENT.packer.pack_into


def is_damaged(data: bytes | bytearray, offset: int) -> bool:
    """Return whether the record at ``offset`` is one that a directory cannot have."""
    return length_fault(data, offset) is not None


def salvage_record(data: bytearray, offset: int, before: int, *, inodes: int) -> int:
    """Repair the damaged record at ``offset``. Return where to go on: at ``offset``, to be judged again, or behind it.

    ``offset`` is a multiple of 4. ``before``: the record before it, which may take its bytes; -1 if none may, and then 12 bytes
    are left or more. ``inodes``: the filesystem's count.

    Repeated calls end: each makes the record valid, goes on behind it, or takes 8 bytes out of what is left of the block.
    """
    size = len(data)
    left = size - offset
    if left < HEAD:
        _lengthen(data, before, left)
        return size
    ino, rec_len, name_len, _ = _unpack(data, offset)
    if rec_len == HEAD and left - rec_len >= MIN_REC_LEN:
        # A head without a name, before a record that may be sound.
        data[offset:] = data[offset + HEAD :] + bytes(HEAD)
        return offset
    name_end = offset + HEAD + name_len
    if rec_len > left > HEAD and HEAD + name_len <= left and ino <= inodes and 0 not in data[offset + HEAD : name_end]:
        _set_length(data, offset, left)
        return offset
    if before >= 0 and rec_len and not rec_len & 3 and rec_len <= left:
        _lengthen(data, before, rec_len)
        return offset + int(rec_len)
    if before < 0 and MIN_REC_LEN <= rec_len <= left and not rec_len & 3:
        # Only the length of the name is wrong: what follows need not be lost.
        _pack_into(data, offset, 0, rec_len, 0, 0)
        return offset
    if before >= 0:
        _lengthen(data, before, left)
        return size
    _pack_into(data, offset, 0, left, 0, 0)
    return offset


def _set_length(data: bytearray, offset: int, rec_len: int) -> None:
    ino, _, name_len, file_type = _unpack(data, offset)
    _pack_into(data, offset, ino, rec_len, name_len, file_type)


def _lengthen(data: bytearray, offset: int, count: int) -> None:
    ino, rec_len, name_len, file_type = _unpack(data, offset)
    _pack_into(data, offset, ino, rec_len + count, name_len, file_type)
