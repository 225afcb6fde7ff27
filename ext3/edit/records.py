"""The records of one directory block: judge them, find a name, put one in, take one out, fill a block anew.

Functions from block to block, all over plain bytes. ``check`` is the gate: what passed it, and whatever the other
functions make of that, is a chain of records that tiles the block, so walking it ends. Source: Linux ``fs/ext4/namei.c``
(add_dirent_to_buf, ext4_generic_delete_entry, dx_pack_dirents) and ``fs/ext4/dir.c`` (ext4_check_dir_entry).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..constants import NAME_MAX
from ..errors import CorruptError
from ..format.dirent import MIN_REC_LEN
from ..format.htree import DOT_SIZE
from ..format.schema import DIRENT

__all__ = [
    "Record",
    "check",
    "cut_out",
    "dots",
    "empty",
    "fill",
    "good_name",
    "halves",
    "leads_to",
    "locate",
    "put_in",
    "record_size",
    "relink",
    "sparse",
    "used_records",
]

HEAD = DIRENT.size
_NAME = re.compile(rb"[^/\0]{1,%d}" % NAME_MAX)
SPARSE_PERCENT = 75
"""A full block with no more than this in use has gaps instead: it is packed, not split."""

Record = tuple[int, int, bytes]
"""(inode, file type, name)."""

_pack = DIRENT.packer.pack
_pack_into = DIRENT.packer.pack_into
_unpack = DIRENT.packer.unpack_from


def record_size(length: int) -> int:
    """Bytes a record with a name of ``length`` bytes needs."""
    return (length + HEAD + 3) & ~3


def check(block: bytes, *, inodes: int, where: str) -> int:
    """Judge all records; the offset of the first one behind which there is room, or the block's size.

    CorruptError for records that do not tile the block, names that leave their record, inodes that do not exist.
    """
    size = len(block)
    offset = 0
    room = size
    while offset < size:
        left = size - offset
        if left < MIN_REC_LEN:
            raise CorruptError(f"{where} at byte {offset}", "record", f"{left} bytes", f">= {MIN_REC_LEN}")
        ino, rec_len, name_len, _ = _unpack(block, offset)
        if rec_len < MIN_REC_LEN or rec_len & 3 or rec_len > left:
            want = f"a multiple of 4 from {MIN_REC_LEN} to {left}"
            raise CorruptError(f"{where} at byte {offset}", "rec_len", rec_len, want)
        if ino:
            if not 0 < name_len <= rec_len - HEAD:
                raise CorruptError(f"{where} at byte {offset}", "name_len", name_len, f"from 1 to {rec_len - HEAD}")
            if ino > inodes:
                raise CorruptError(f"{where} at byte {offset}", "inode", ino, f"<= {inodes}")
            if room == size and rec_len - ((name_len + HEAD + 3) & ~3) >= MIN_REC_LEN:
                room = offset
        elif room == size:
            room = offset
        offset += rec_len
    return room


def locate(block: bytes, name: bytes) -> tuple[int, int] | None:
    """(offset of the record with this name, offset of the one before or -1) in a block that passed ``check``."""
    length = len(name)
    first = block.find(name, HEAD)
    if first < 0:  # nearly all blocks of nearly all searches
        return None
    first -= HEAD
    offset, before, size = 0, -1, len(block)
    while offset < size:
        ino, rec_len, name_len, _ = _unpack(block, offset)
        if offset >= first and name_len == length and ino and block.startswith(name, offset + HEAD):
            return offset, before
        before = offset
        offset += rec_len
    return None


def leads_to(block: bytes, ino: int) -> bool:
    """Whether a name other than "." and ".." in a block that passed ``check`` leads to this inode."""
    return ino.to_bytes(4, "little") in block and any(
        found == ino and name not in (b".", b"..") for found, _, name in used_records(block)
    )


def put_in(block: bytes, room: int, name: bytes, ino: int, file_type: int) -> tuple[bytes, int] | None:
    """The block with one record more, in the first gap from offset ``room`` on, and the new ``room``; None if none fits."""
    need = record_size(len(name))
    offset, size = room, len(block)
    while offset < size:
        other, rec_len, name_len, _ = _unpack(block, offset)
        taken = (name_len + HEAD + 3) & ~3 if other else 0
        if rec_len - taken >= need:
            break
        offset += rec_len
    else:
        return None
    changed = bytearray(block)
    at = offset + taken
    if taken:
        _pack_into(changed, offset, other, taken, name_len, block[offset + HEAD - 1])
    _pack_into(changed, at, ino, rec_len - taken, len(name), file_type)
    changed[at + HEAD : at + need] = name.ljust(need - HEAD, b"\0")
    return bytes(changed), at if offset == room else room


def cut_out(block: bytes, offset: int, before: int) -> bytes:
    """The block without the record at ``offset``: the one ``before`` takes its bytes, or it becomes unused if there is none."""
    changed = bytearray(block)
    _, rec_len, _, _ = _unpack(block, offset)
    changed[offset : offset + rec_len] = bytes(rec_len)
    if before < 0:
        _pack_into(changed, offset, 0, rec_len, 0, 0)
    else:
        ino, length, name_len, file_type = _unpack(block, before)
        _pack_into(changed, before, ino, length + rec_len, name_len, file_type)
    return bytes(changed)


def relink(block: bytes, offset: int, ino: int, file_type: int) -> bytes:
    """The block with the record at ``offset`` leading to another inode."""
    changed = bytearray(block)
    _, rec_len, name_len, _ = _unpack(block, offset)
    _pack_into(changed, offset, ino, rec_len, name_len, file_type)
    return bytes(changed)


def used_records(block: bytes) -> list[Record]:
    """(inode, file type, name) of each used record of a block that passed ``check``."""
    found = []
    offset, size = 0, len(block)
    while offset < size:
        ino, rec_len, name_len, file_type = _unpack(block, offset)
        if ino:
            found.append((ino, file_type, block[offset + HEAD : offset + HEAD + name_len]))
        offset += rec_len
    return found


def fill(records: Iterable[Record], block_size: int) -> tuple[bytes, int]:
    """A block of these records, packed, the last one reaching to the end; and where there is room. They fit."""
    pieces = []
    last, end = -1, 0
    for ino, file_type, name in records:
        need = (len(name) + HEAD + 3) & ~3
        pieces.append(_pack(ino, need, len(name), file_type) + name.ljust(need - HEAD, b"\0"))
        last, end = end, end + need
    if last < 0:
        return empty(block_size), 0
    block = bytearray(b"".join(pieces))
    block += bytes(block_size - end)
    ino, _, name_len, file_type = _unpack(block, last)
    _pack_into(block, last, ino, block_size - last, name_len, file_type)
    return bytes(block), last


def empty(block_size: int) -> bytes:
    """A block without names."""
    return _pack(0, block_size, 0, 0).ljust(block_size, b"\0")


def dots(ino: int, parent: int, file_type: int, block_size: int) -> bytes:
    """The first block of a directory: "." and ".." alone. ``file_type`` is that of a directory, or 0 without filetype."""
    head = _pack(ino, DOT_SIZE, 1, file_type) + b".\0\0\0" + _pack(parent, block_size - DOT_SIZE, 2, file_type) + b".."
    return head.ljust(block_size, b"\0")


def good_name(name: bytes) -> bool:
    """Whether a directory can hold the name."""
    return _NAME.fullmatch(name) is not None


def sparse(everything: list[Record], block_size: int) -> bool:
    """Whether the records leave much of a block free once they are packed: then the block need not be split."""
    return sum(record_size(len(name)) for _, _, name in everything) <= block_size * SPARSE_PERCENT // 100


def halves(
    everything: list[Record],
    numbers: list[int],
) -> tuple[list[Record], list[Record], int]:
    """Records by hash, cut where half of the bytes are; and the first hash of the upper half, its lowest bit set where
    the lower half ends with the same one."""
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    sizes = [record_size(len(everything[at][2])) for at in order]
    half = sum(sizes) // 2
    size = 0
    cut = len(order)
    while cut > 1 and size + sizes[cut - 1] // 2 <= half:
        cut -= 1
        size += sizes[cut]
    cut = min(cut, len(order) - 1)
    border = numbers[order[cut]]
    border |= border == numbers[order[cut - 1]]
    return [everything[at] for at in order[:cut]], [everything[at] for at in order[cut:]], border
