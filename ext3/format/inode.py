"""Inodes: one decoded with all its facts, or a whole table as numpy rows.

Source: Linux ``fs/ext4/ext4.h`` (struct ext4_inode, the epoch bits of times, ext4_inode_is_fast_symlink) and
``include/linux/kdev_t.h`` (device numbers).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..constants import (
    FAST_SYMLINK_MAX,
    FILE_TYPE_OF_FORMAT,
    GOOD_INODE_SIZE,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    SECTOR,
    FileType,
)
from ..errors import CorruptError
from .layout import Table
from .schema import INODE_CORE, INODE_EXTRA

__all__ = ["Inode", "Stat", "fast_symlink", "file_type_of", "parse_inode", "table_view"]

SECOND = 1_000_000_000
_I_BLOCK = struct.Struct("<15I")
_EXTRA_ISIZE = struct.Struct("<H")
assert INODE_EXTRA.dtype.fields is not None
_CRTIME_END = int(INODE_EXTRA.dtype.fields["i_crtime_extra"][1])
"""i_extra_isize from which an inode has a creation time."""


class Stat(NamedTuple):
    """What stat tells of one inode; a tuple, since listings make one for each of very many names.

    Times are nanoseconds since 1970, ``crtime`` None where the inode has no room for it.
    ``blocks`` counts 512 bytes, indirect and attribute blocks included. ``major`` and ``minor`` are 0 but for devices.
    """

    ino: int
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    crtime: int | None
    major: int
    minor: int
    flags: int
    generation: int
    file_acl: int

    @property
    def file_type(self) -> FileType:
        return file_type_of(self.mode)

    @property
    def is_dir(self) -> bool:
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.mode & S_IFMT == S_IFREG

    @property
    def is_symlink(self) -> bool:
        return self.mode & S_IFMT == S_IFLNK


@dataclass(frozen=True, slots=True)
class Inode:
    """A decoded inode: its facts, its block map's 15 numbers, deletion time, and the bytes of its attribute area."""

    stat: Stat
    i_block: tuple[int, ...]
    dtime: int
    extra_isize: int
    area: bytes


def file_type_of(mode: int) -> FileType:
    """The directory entry's type for a mode; UNKNOWN for format bits that mean nothing."""
    return FILE_TYPE_OF_FORMAT.get((mode & S_IFMT) >> 12, FileType.UNKNOWN)


def parse_inode(raw: bytes, ino: int) -> Inode:
    """Decode ``raw``, the whole record (inode size bytes) of inode ``ino``. CorruptError if its extra area leaves it."""
    (
        mode, uid, size, atime, ctime, mtime, dtime, gid, links, blocks, flags, _version, *i_block,
        generation, file_acl, size_high, _faddr, _blocks_high, _acl_high, uid_high, gid_high, _reserved,
    ) = INODE_CORE.packer.unpack_from(raw)  # fmt: skip
    extra_isize = 0
    area = b""
    atime_extra = mtime_extra = ctime_extra = crtime_low = crtime_extra = 0
    crtime = None
    if len(raw) > GOOD_INODE_SIZE:
        (extra_isize,) = _EXTRA_ISIZE.unpack_from(raw, GOOD_INODE_SIZE)
        room = len(raw) - GOOD_INODE_SIZE
        if extra_isize % 4 or extra_isize > room:
            raise CorruptError(f"inode {ino}", "i_extra_isize", extra_isize, f"a multiple of 4, <= {room}")
        if extra_isize:  # the fields it does not reach are not there, and none of the area is if it is 0
            fields = raw[GOOD_INODE_SIZE : GOOD_INODE_SIZE + extra_isize]
            fields = fields[: INODE_EXTRA.size].ljust(INODE_EXTRA.size, b"\0")
            _, _, ctime_extra, mtime_extra, atime_extra, crtime_low, crtime_extra, _, _ = INODE_EXTRA.packer.unpack(fields)
            if extra_isize >= _CRTIME_END:
                crtime = _time(crtime_low, crtime_extra)
            area = raw[GOOD_INODE_SIZE + extra_isize :]
    form = mode & S_IFMT
    if form == S_IFREG:  # in a directory the word once held an ACL's block
        size |= size_high << 32
    major, minor = _device(i_block[0], i_block[1]) if form in (S_IFCHR, S_IFBLK) else (0, 0)
    stat = Stat(
        ino,
        mode,
        uid | uid_high << 16,
        gid | gid_high << 16,
        size,
        links,
        blocks,
        _time(atime, atime_extra),
        _time(mtime, mtime_extra),
        _time(ctime, ctime_extra),
        crtime,
        major,
        minor,
        flags,
        generation,
        file_acl,
    )
    return Inode(stat, tuple(i_block), dtime, extra_isize, area)


def _time(low: int, extra: int) -> int:
    """Nanoseconds since 1970: 32 signed bits, 2 bits of epoch that count 2**32 seconds each, 30 bits of nanoseconds."""
    seconds = low - (low >> 31 << 32) + ((extra & 3) << 32)
    return seconds * SECOND + (extra >> 2)


def _device(old: int, new: int) -> tuple[int, int]:
    """(major, minor) from the first two words of the block map: 8 + 8 bits in the first, or 12 + 20 in the second."""
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


def fast_symlink(inode: Inode, block_size: int) -> bytes | None:
    """The target if it lies in the inode (no blocks but perhaps an attribute block), None if in a block.

    CorruptError if the length is none a target can have there.
    """
    attribute_blocks = block_size // SECTOR if inode.stat.file_acl else 0
    if inode.stat.blocks > attribute_blocks:
        return None
    size = inode.stat.size
    if not 0 < size <= FAST_SYMLINK_MAX:
        raise CorruptError(f"inode {inode.stat.ino}", "i_size", size, f"a target of 1 to {FAST_SYMLINK_MAX} bytes")
    return checked_target(_I_BLOCK.pack(*inode.i_block)[:size], inode.stat.ino)


def checked_target(target: bytes, ino: int) -> bytes:
    """A symlink's target, which may not hold a NUL."""
    if b"\0" in target:
        raise CorruptError(f"inode {ino}", "i_size", len(target), f"{target.index(0)}, where the target ends")
    return target


def table_view(raw: bytes, count: int, inode_size: int) -> Table:
    """``count`` inode records of ``inode_size`` bytes as INODE_CORE rows, without a copy; shape (count,)."""
    return np.ndarray((count,), INODE_CORE.dtype, raw, 0, (inode_size,))
