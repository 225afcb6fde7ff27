"""Directory blocks: find, insert and delete records, split blocks, pack new ones. Many at once: ``dirent_block_columns``.

Functions from block to block, over plain bytes. Blocks come from here or passed ``read_dirents``: their records tile them,
so walking ends. Source: Linux ``fs/ext4/namei.c`` (ext4_search_dir, add_dirent_to_buf, ext4_generic_delete_entry,
dx_pack_dirents, do_split).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..constants import NAME_MAX, FileType
from .dirent import MIN_REC_LEN, DirentFields
from .schema import DIRENT

__all__ = [
    "DOTS_SIZE",
    "DOT_REC_LEN",
    "Record",
    "delete_record",
    "empty_block",
    "find_record",
    "first_gap",
    "fits_packed",
    "insert_record",
    "is_name",
    "new_directory_block",
    "pack_block",
    "pack_dots",
    "record_size",
    "set_inode",
    "split_records",
]

DOT_REC_LEN = 12
"""Bytes of the record of ``.``, and of ``..`` if others follow."""
DOTS_SIZE = 2 * DOT_REC_LEN
HEAD = DIRENT.size
_NAME = re.compile(rb"[^/\0]{1,%d}" % NAME_MAX)
PACK_PERCENT = 75
"""Use of a full block, in percent, up to which it is packed instead of split."""

Record = tuple[int, int, bytes]
"""(inode, file type, name)."""

_pack = DIRENT.packer.pack
_pack_into = DIRENT.packer.pack_into
_unpack = DIRENT.packer.unpack_from


def is_name(name: bytes) -> bool:
    """Return True if the name is valid in a directory."""
    return _NAME.fullmatch(name) is not None


def record_size(length: int) -> int:
    """Return the bytes of a record with a name of ``length`` bytes."""
    return (length + HEAD + 3) & ~3


# -- search --------------------------------------------------------------------------------------------------------


def find_record(block: bytes, name: bytes) -> tuple[int, int] | None:
    """Return (offset of the record with this name, offset of the previous one or -1), None if there is none."""
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


def first_gap(dirents: Iterable[DirentFields]) -> int:
    """Offset of the first record behind which something fits, in a block with these records; the block's size if there is none.

    The gap behind ``.`` does not count: ``..`` has to follow.
    """
    end = 0
    for offset, _, rec_len, _, name in dirents:
        if offset > end:
            return end  # an unused record
        if rec_len - ((len(name) + HEAD + 3) & ~3) >= MIN_REC_LEN and name != b".":
            return offset
        end = offset + rec_len
    return end


# -- change --------------------------------------------------------------------------------------------------------


def insert_record(block: bytes, gap: int, name: bytes, ino: int, file_type: int) -> tuple[bytes, int] | None:
    """Return the block with a record added in the first gap from ``gap`` on, and the new first gap; None if none fits."""
    need = record_size(len(name))
    offset, size = gap, len(block)
    while offset < size:
        other, rec_len, name_len, other_type = _unpack(block, offset)
        taken = (name_len + HEAD + 3) & ~3 if other else 0
        if rec_len - taken >= need:
            break
        offset += rec_len
    else:
        return None
    changed = bytearray(block)
    at = offset + taken
    if taken:
        _pack_into(changed, offset, other, taken, name_len, other_type)
    _pack_into(changed, at, ino, rec_len - taken, len(name), file_type)
    changed[at + HEAD : at + need] = name.ljust(need - HEAD, b"\0")
    return bytes(changed), at if offset == gap else gap


def delete_record(block: bytes, offset: int, before: int) -> bytes:
    """Return the block without the record at ``offset``: the previous one takes its bytes, else it becomes unused."""
    changed = bytearray(block)
    _, rec_len, _, _ = _unpack(block, offset)
    changed[offset : offset + rec_len] = bytes(rec_len)
    if before < 0:
        _pack_into(changed, offset, 0, rec_len, 0, 0)
    else:
        ino, length, name_len, file_type = _unpack(block, before)
        _pack_into(changed, before, ino, length + rec_len, name_len, file_type)
    return bytes(changed)


def set_inode(block: bytes, offset: int, ino: int, file_type: int) -> bytes:
    """Return the block with another inode in the record at ``offset``."""
    changed = bytearray(block)
    _, rec_len, name_len, _ = _unpack(block, offset)
    _pack_into(changed, offset, ino, rec_len, name_len, file_type)
    return bytes(changed)


def fits_packed(records: Iterable[Record], block_size: int) -> bool:
    """Return True if the packed records use at most PACK_PERCENT of a block, so that it need not be split."""
    return sum(record_size(len(name)) for _, _, name in records) <= block_size * PACK_PERCENT // 100


def split_records(records: Sequence[Record], hashes: Sequence[int]) -> tuple[list[Record], list[Record], int]:
    """Records by hash, cut where half of the bytes are; and the first hash of the upper half, its lowest bit set where
    the lower half ends with the same one."""
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    sizes = [record_size(len(records[at][2])) for at in order]
    half = sum(sizes) // 2
    size = 0
    cut = len(order)
    while cut > 1 and size + sizes[cut - 1] // 2 <= half:
        cut -= 1
        size += sizes[cut]
    cut = min(cut, len(order) - 1)
    border = hashes[order[cut]]
    border |= border == hashes[order[cut - 1]]
    return [records[at] for at in order[:cut]], [records[at] for at in order[cut:]], border


# -- new blocks ----------------------------------------------------------------------------------------------------


def pack_block(records: Iterable[Record], block_size: int) -> tuple[bytes, int]:
    """Pack records that fit a block, the last one up to its end. Return the block and its first gap."""
    pieces = []
    last, end = -1, 0
    for ino, file_type, name in records:
        need = (len(name) + HEAD + 3) & ~3
        pieces.append(_pack(ino, need, len(name), file_type) + name.ljust(need - HEAD, b"\0"))
        last, end = end, end + need
    if last < 0:
        return empty_block(block_size), 0
    block = bytearray(b"".join(pieces))
    block += bytes(block_size - end)
    ino, _, name_len, file_type = _unpack(block, last)
    _pack_into(block, last, ino, block_size - last, name_len, file_type)
    return bytes(block), last


def empty_block(block_size: int) -> bytes:
    """Return a block without names."""
    return _pack(0, block_size, 0, 0).ljust(block_size, b"\0")


def pack_dots(ino: int, parent: int, block_size: int, file_type: int) -> bytes:
    """Return the records of ``.`` and ``..`` for a block 0 without other names."""
    head = _pack(ino, DOT_REC_LEN, 1, file_type) + b".".ljust(DOT_REC_LEN - HEAD, b"\0")
    return head + _pack(parent, block_size - DOT_REC_LEN, 2, file_type) + b"..".ljust(DOT_REC_LEN - HEAD, b"\0")


def new_directory_block(ino: int, parent: int, *, block_size: int, filetype: bool = True) -> bytes:
    """Return the block of a new directory: ``.`` and ``..``. ``filetype``: the filesystem's feature."""
    return pack_dots(ino, parent, block_size, FileType.DIRECTORY if filetype else 0).ljust(block_size, b"\0")
