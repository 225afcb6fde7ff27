"""Inode: one decoded, judged, changed and packed.

``parse_inode`` decodes an inode for readers; an ``InodeRecord`` can be changed and packed again, and preserves all other
bytes. Source: Linux ``fs/ext4/ext4.h`` (struct ext4_inode) and ``fs/ext4/inode.c`` (ext4_inode_is_fast_symlink). For many
inodes at once see ``inode_table_columns``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..constants import (
    FAST_SYMLINK_MAX,
    FILE_TYPE_OF_FORMAT,
    GOOD_INODE_SIZE,
    N_BLOCKS,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    SECTOR,
    FileType,
    InodeFlag,
)
from .inode_fields import (
    CRTIME_END,
    CRTIME_EXTRA_END,
    MASK32,
    SECOND,
    TIME_MAX,
    TIME_MIN,
    TIMES_END,
    decode_device,
    decode_owner,
    decode_size,
    decode_time,
    encode_owner,
    encode_time,
    extra_size_violations,
    new_extra_size,
)
from .schema import INODE_CORE, INODE_EXTRA
from .violation import Violation

__all__ = [
    "NO_MAP",
    "Inode",
    "InodeRecord",
    "Stat",
    "check_map_flags",
    "checked_target",
    "fast_symlink",
    "file_type_of",
    "has_block_map",
    "inode_violations",
    "map_flag_violations",
    "parse_inode",
    "patch_inode",
    "target_violations",
]

NO_MAP = int(InodeFlag.EXTENTS | InodeFlag.INLINE_DATA)
"""Flags of inodes that have something in the place of the block map that ext3 does not know."""

_I_BLOCK = struct.Struct("<15I")
_EXTRA_ISIZE = struct.Struct("<H")
_core_unpack = INODE_CORE.packer.unpack_from
_core_pack = INODE_CORE.packer.pack
_extra_unpack = INODE_EXTRA.packer.unpack
_extra_pack = INODE_EXTRA.packer.pack
_NO_REST = (0,) * 6
_NO_EXTRA = INODE_EXTRA.packer.unpack(bytes(INODE_EXTRA.size))


class Stat(NamedTuple):
    """Result of stat for one inode; a tuple, because listings make very many.

    Times are nanoseconds since 1970, ``crtime`` None if the inode has no field for it.
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
    def dev(self) -> int:
        """0: all files of an image are on one device."""
        return 0

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


class Inode(NamedTuple):
    """Decoded inode: stat, the 15 words of the block map, deletion time, and the bytes of the attribute area."""

    stat: Stat
    i_block: tuple[int, ...]
    dtime: int
    extra_isize: int
    area: bytes


def file_type_of(mode: int) -> FileType:
    """Return the file type of a directory entry for a mode; UNKNOWN for format bits that mean nothing."""
    return FILE_TYPE_OF_FORMAT.get((mode & S_IFMT) >> 12, FileType.UNKNOWN)


class InodeRecord:
    """Fields of one inode, to be changed. Times are nanoseconds since 1970, ``size`` bytes, ``sectors`` 512 bytes each
    (i_blocks). ``area`` is what follows the fields, for attributes; it keeps its length.
    """

    __slots__ = (
        "_extra",
        "_rest",
        "_unknown",
        "area",
        "atime",
        "crtime",
        "ctime",
        "dtime",
        "extra_isize",
        "file_acl",
        "flags",
        "generation",
        "gid",
        "i_block",
        "links",
        "mode",
        "mtime",
        "sectors",
        "size",
        "uid",
    )

    mode: int
    links: int
    sectors: int
    size: int
    flags: int
    dtime: int
    generation: int
    file_acl: int

    def __init__(self, raw: bytes, ino: int) -> None:
        """Decode a whole record (inode size bytes). Raises CorruptError if its extra area leaves it."""
        fields = _core_unpack(raw)
        mode, uid, size, atime, ctime, mtime, self.dtime, gid, self.links, self.sectors, self.flags, version = fields[:12]
        self.mode = mode
        self.i_block: tuple[int, ...] = fields[12 : 12 + N_BLOCKS]
        self.generation, self.file_acl, size_high, faddr, blocks_high, acl_high, uid_high, gid_high, reserved = fields[27:]
        self.uid = decode_owner(uid, uid_high)
        self.gid = decode_owner(gid, gid_high)
        self.size = decode_size(mode, size, size_high)
        self._rest = version, size_high, faddr, blocks_high, acl_high, reserved
        self.extra_isize, self._extra, self._unknown, self.area = _split_extra(raw, ino)
        _, _, ctime_extra, mtime_extra, atime_extra, crtime, crtime_extra, _, _ = self._extra
        self.atime = decode_time(atime, atime_extra)
        self.ctime = decode_time(ctime, ctime_extra)
        self.mtime = decode_time(mtime, mtime_extra)
        self.crtime = decode_time(crtime, crtime_extra)

    @classmethod
    def new(cls, inode_size: int, *, mode: int, uid: int, gid: int, now: int, generation: int) -> InodeRecord:
        """Return an inode without links, blocks and attributes, made at ``now`` (nanoseconds)."""
        found = cls.__new__(cls)
        found.mode, found.uid, found.gid = mode, uid, gid
        found.links = found.sectors = found.size = found.flags = found.dtime = found.file_acl = 0
        found.atime = found.mtime = found.ctime = found.crtime = now
        found.generation = generation & MASK32
        found.i_block = (0,) * N_BLOCKS
        found.extra_isize = new_extra_size(inode_size)
        found.area = bytes(inode_size - GOOD_INODE_SIZE - found.extra_isize)
        found._rest = _NO_REST
        found._extra = _NO_EXTRA
        found._unknown = b""
        return found

    @property
    def is_dir(self) -> bool:
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.mode & S_IFMT == S_IFREG

    def round_times(self) -> None:
        """Round the times to those that ``pack`` stores: the nearest that the inode can hold."""
        times = self.atime, self.mtime, self.ctime, self.crtime
        wide = self.extra_isize >= TIMES_END
        if not (wide and TIME_MIN * SECOND <= min(times) <= max(times) <= TIME_MAX * SECOND):
            rounded = (decode_time(*encode_time(time, wide=wide)) for time in times)
            self.atime, self.mtime, self.ctime, self.crtime = rounded

    def freeze(self, ino: int) -> Inode:
        """Return it as readers see it, as inode ``ino``."""
        major, minor = decode_device(self.mode, self.i_block[0], self.i_block[1])
        stat = Stat(
            ino,
            self.mode,
            self.uid,
            self.gid,
            self.size,
            self.links,
            self.sectors,
            self.atime,
            self.mtime,
            self.ctime,
            self.crtime if self.extra_isize >= CRTIME_END else None,
            major,
            minor,
            self.flags,
            self.generation,
            self.file_acl,
        )
        return Inode(stat, self.i_block, self.dtime, self.extra_isize, self.area)

    def pack(self) -> bytes:
        """Return the record for the inode table."""
        version, size_high, faddr, blocks_high, acl_high, reserved = self._rest
        if self.mode & S_IFMT == S_IFREG:
            size_high = self.size >> 32
        wide = self.extra_isize >= TIMES_END
        ctime, ctime_extra = encode_time(self.ctime, wide=wide)
        same = ctime, ctime_extra
        mtime, mtime_extra = same if self.mtime == self.ctime else encode_time(self.mtime, wide=wide)
        atime, atime_extra = same if self.atime == self.ctime else encode_time(self.atime, wide=wide)
        uid, uid_high = encode_owner(self.uid)
        gid, gid_high = encode_owner(self.gid)
        core = _core_pack(
            self.mode, uid, self.size & MASK32, atime, ctime, mtime, self.dtime, gid, self.links, self.sectors, self.flags,
            version, *self.i_block, self.generation, self.file_acl, size_high, faddr, blocks_high, acl_high, uid_high,
            gid_high, reserved,
        )  # fmt: skip
        length = self.extra_isize
        if not length:
            return core
        _, checksum, _, _, _, crtime, crtime_extra, version_high, project = self._extra
        if length >= CRTIME_EXTRA_END:
            crtime, crtime_extra = same if wide and self.crtime == self.ctime else encode_time(self.crtime, wide=True)
        extra = _extra_pack(
            length, checksum, ctime_extra, mtime_extra, atime_extra, crtime, crtime_extra, version_high, project
        )  # fmt: skip
        return core + extra[:length] + self._unknown + self.area


def _split_extra(raw: bytes, ino: int) -> tuple[int, tuple[int, ...], bytes, bytes]:
    """Return (i_extra_isize, fields of INODE_EXTRA, bytes of fields not in INODE_EXTRA, the area behind them).

    Fields that it does not reach are 0; if it is 0 there is no area either. Raises CorruptError if it leaves the inode.
    """
    if len(raw) == GOOD_INODE_SIZE:
        return 0, _NO_EXTRA, b"", b""
    (length,) = _EXTRA_ISIZE.unpack_from(raw, GOOD_INODE_SIZE)
    for violation in extra_size_violations(length, len(raw) - GOOD_INODE_SIZE, ino):
        raise violation.error
    if not length:
        return 0, _NO_EXTRA, b"", b""
    end, known = GOOD_INODE_SIZE + length, GOOD_INODE_SIZE + INODE_EXTRA.size
    fields = raw[GOOD_INODE_SIZE : min(end, known)].ljust(INODE_EXTRA.size, b"\0")
    return length, _extra_unpack(fields), raw[known:end], raw[end:]


def parse_inode(raw: bytes, ino: int) -> Inode:
    """Decode ``raw``, the whole record (inode size bytes) of inode ``ino``. Raises CorruptError if its extra area leaves it."""
    return InodeRecord(raw, ino).freeze(ino)


def patch_inode(raw: bytes, **fields: Any) -> bytes:
    """Return the record with these fields of INODE_CORE changed, and every other byte as it was."""
    changed = bytearray(raw)
    row = INODE_CORE.at(changed)
    for name, value in fields.items():
        row[name] = value
    return bytes(changed)


def map_flag_violations(flags: int, where: str) -> Iterator[Violation]:
    """Yield the violation of flags by which there is something else in the place of the block map."""
    strange = flags & NO_MAP
    if strange:
        yield Violation(where, "i_flags", f"{flags:#x}", f"without {strange:#x}, which ext3 does not have")


def check_map_flags(flags: int, where: str) -> None:
    """Raise CorruptError for flags by which there is something else in the place of the block map."""
    for violation in map_flag_violations(flags, where):
        raise violation.error


def has_block_map(inode: Inode, block_size: int) -> bool:
    """Return whether the 15 words are a block map: not of a device, nor of a symlink whose target lies there."""
    if inode.stat.is_symlink:
        return fast_symlink(inode, block_size) is None
    return inode.stat.file_type in (FileType.REGULAR, FileType.DIRECTORY)


def fast_symlink(inode: Inode, block_size: int) -> bytes | None:
    """Return the target if it lies in the inode (which has no blocks but an attribute block), None if in a block.

    Raises CorruptError for a length that no target can have there.
    """
    if not _has_fast_target(inode, block_size):
        return None
    for violation in _fast_target_violations(inode):
        raise violation.error
    return _fast_target(inode)


def _has_fast_target(inode: Inode, block_size: int) -> bool:
    return inode.stat.blocks <= (block_size // SECTOR if inode.stat.file_acl else 0)


def _fast_target(inode: Inode) -> bytes:
    return _I_BLOCK.pack(*inode.i_block)[: inode.stat.size]


def _fast_target_violations(inode: Inode) -> Iterator[Violation]:
    size = inode.stat.size
    if 0 < size <= FAST_SYMLINK_MAX:
        yield from target_violations(_fast_target(inode), inode.stat.ino)
    else:
        yield Violation(f"inode {inode.stat.ino}", "i_size", size, f"a target of 1 to {FAST_SYMLINK_MAX} bytes")


def target_violations(target: bytes, ino: int) -> Iterator[Violation]:
    """Yield the violation of a symlink's target that holds a NUL."""
    if b"\0" in target:
        yield Violation(f"inode {ino}", "i_size", len(target), f"{target.index(0)}, where the target ends")


def checked_target(target: bytes, ino: int) -> bytes:
    """Return a symlink's target. Raises CorruptError if it holds a NUL."""
    for violation in target_violations(target, ino):
        raise violation.error
    return target


def inode_violations(raw: bytes, ino: int, *, block_size: int) -> Iterator[Violation]:
    """Yield all for which the readers of an inode raise CorruptError by its record alone.

    That is ``parse_inode``, then what reads the 15 words: ``fast_symlink``, or ``check_map_flags`` before a block map is read.
    """
    if len(raw) > GOOD_INODE_SIZE:
        (length,) = _EXTRA_ISIZE.unpack_from(raw, GOOD_INODE_SIZE)
        yield from extra_size_violations(length, len(raw) - GOOD_INODE_SIZE, ino)
    inode = parse_inode(raw[:GOOD_INODE_SIZE], ino)
    if inode.stat.is_symlink and _has_fast_target(inode, block_size):
        yield from _fast_target_violations(inode)
    elif has_block_map(inode, block_size):
        yield from map_flag_violations(inode.stat.flags, f"inode {ino}")
