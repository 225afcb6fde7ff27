"""One inode while it is being edited: its fields as plain numbers, to and from the bytes of the inode table.

Bytes that have no field here (and fields an inode is too small for) stay as they were. Source: Linux ``fs/ext4/ext4.h``
(struct ext4_inode, EXT4_INODE_SET_XTIME), ``include/linux/kdev_t.h`` (new_encode_dev, old_encode_dev).
"""

from __future__ import annotations

from ..constants import EXTRA_ISIZE, GOOD_INODE_SIZE, N_BLOCKS, S_IFDIR, S_IFMT, S_IFREG
from ..errors import CorruptError
from ..format.schema import INODE_CORE, INODE_EXTRA

__all__ = ["InodeRecord", "check_owner", "device_words"]

NS = 1_000_000_000
MASK16 = 0xFFFF
MASK32 = 0xFFFFFFFF
TIME_MIN = -(2**31)
TIME_MAX = 2**34 - 2**31 - 1
"""What 32 bits and two epoch bits hold: 1901 to 2446."""
TIME_MAX_CORE = 2**31 - 1
"""What 32 bits hold: 2038."""
ID_MAX = 0xFFFFFFFE
"""The highest owner: the number above it means none."""

_core_unpack = INODE_CORE.packer.unpack_from
_core_pack = INODE_CORE.packer.pack
_extra_unpack = INODE_EXTRA.packer.unpack
_extra_pack = INODE_EXTRA.packer.pack
assert INODE_EXTRA.dtype.fields is not None
_TIMES_END = int(INODE_EXTRA.dtype.fields["i_crtime"][1])
"""i_extra_isize from which all three times have their nanoseconds and epoch."""
_NO_REST = (0,) * 6
_NO_EXTRA = (0,) * len(INODE_EXTRA.dtype.fields)
_CRTIME_END = int(INODE_EXTRA.dtype.fields["i_version_hi"][1])
_EXTRA_ISIZE_END = int(INODE_EXTRA.dtype.fields["i_checksum_hi"][1])


class InodeRecord:
    """The fields of one inode. Times are nanoseconds since 1970, ``size`` bytes, ``sectors`` 512 bytes each (i_blocks).

    ``area`` is what follows the fields, for attributes; it keeps its length.
    """

    __slots__ = (
        "_extra",
        "_rest",
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
        """Decode a whole record (inode size bytes). CorruptError if its extra area leaves it."""
        fields = _core_unpack(raw)
        mode, uid, size, atime, ctime, mtime, self.dtime, gid, self.links, self.sectors, self.flags, version = fields[:12]
        self.mode = mode
        self.i_block: tuple[int, ...] = fields[12 : 12 + N_BLOCKS]
        self.generation, self.file_acl, size_high, faddr, blocks_high, acl_high, uid_high, gid_high, reserved = fields[27:]
        self.uid = uid | uid_high << 16
        self.gid = gid | gid_high << 16
        self.size = size | size_high << 32 if mode & S_IFMT == S_IFREG else size
        self._rest = version, size_high, faddr, blocks_high, acl_high, reserved
        self.extra_isize = 0
        self.area = b""
        self._extra = _NO_EXTRA
        if len(raw) > GOOD_INODE_SIZE:
            self._take_extra(raw, ino)
        _, _, ctime_extra, mtime_extra, atime_extra, crtime, crtime_extra, _, _ = self._extra
        self.atime = _joined(atime, atime_extra)
        self.ctime = _joined(ctime, ctime_extra)
        self.mtime = _joined(mtime, mtime_extra)
        self.crtime = _joined(crtime, crtime_extra)

    def _take_extra(self, raw: bytes, ino: int) -> None:
        behind = raw[GOOD_INODE_SIZE:]
        length = int.from_bytes(behind[:_EXTRA_ISIZE_END], "little")
        if length % 4 or length > len(behind):
            raise CorruptError(f"inode {ino}", "i_extra_isize", length, f"a multiple of 4, <= {len(behind)}")
        self.extra_isize = length
        if length:
            self._extra = _extra_unpack(behind[: min(length, INODE_EXTRA.size)].ljust(INODE_EXTRA.size, b"\0"))
            self.area = behind[length:]

    @classmethod
    def new(cls, inode_size: int, *, mode: int, uid: int, gid: int, now: int, generation: int) -> InodeRecord:
        """An inode without links, blocks and attributes, made at ``now`` (nanoseconds)."""
        found = cls.__new__(cls)
        found.mode, found.uid, found.gid = mode, uid, gid
        found.links = found.sectors = found.size = found.flags = found.dtime = found.file_acl = 0
        found.atime = found.mtime = found.ctime = found.crtime = now
        found.generation = generation & MASK32
        found.i_block = (0,) * N_BLOCKS
        found.extra_isize = min(EXTRA_ISIZE, inode_size - GOOD_INODE_SIZE)
        found.area = bytes(inode_size - GOOD_INODE_SIZE - found.extra_isize)
        found._rest = _NO_REST
        found._extra = _NO_EXTRA
        return found

    @property
    def is_dir(self) -> bool:
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.mode & S_IFMT == S_IFREG

    def pack(self) -> bytes:
        """The record as it has to stand in the inode table."""
        version, size_high, faddr, blocks_high, acl_high, reserved = self._rest
        if self.mode & S_IFMT == S_IFREG:
            size_high = self.size >> 32
        wide = self.extra_isize >= _TIMES_END
        ctime, ctime_extra = _split(self.ctime, wide)
        same = ctime, ctime_extra
        mtime, mtime_extra = same if self.mtime == self.ctime else _split(self.mtime, wide)
        atime, atime_extra = same if self.atime == self.ctime else _split(self.atime, wide)
        uid, gid = self.uid, self.gid
        core = _core_pack(
            self.mode, uid & MASK16, self.size & MASK32, atime, ctime, mtime, self.dtime, gid & MASK16, self.links,
            self.sectors, self.flags, version, *self.i_block, self.generation, self.file_acl, size_high, faddr,
            blocks_high, acl_high, uid >> 16, gid >> 16, reserved,
        )  # fmt: skip
        length = self.extra_isize
        if not length:
            return core
        _, checksum, _, _, _, crtime, crtime_extra, version_high, project = self._extra
        if length >= _CRTIME_END:
            crtime, crtime_extra = same if wide and self.crtime == self.ctime else _split(self.crtime, True)
        extra = _extra_pack(
            length, checksum, ctime_extra, mtime_extra, atime_extra, crtime, crtime_extra, version_high, project
        )  # fmt: skip
        return core + extra[:length].ljust(length, b"\0") + self.area


def _joined(low: int, extra: int) -> int:
    return (low - (low >> 31 << 32) + ((extra & 3) << 32)) * NS + (extra >> 2)


def _split(time: int, wide: bool) -> tuple[int, int]:
    """(32 bits of seconds, epoch bits and nanoseconds), the nearest time that can be stored."""
    seconds, nano = divmod(time, NS)
    if not TIME_MIN <= seconds <= (TIME_MAX if wide else TIME_MAX_CORE):
        seconds, nano = min(max(seconds, TIME_MIN), TIME_MAX if wide else TIME_MAX_CORE), 0
    low = seconds & MASK32
    if not wide:
        return low, 0
    return low, (seconds - (low - (low >> 31 << 32))) >> 32 & 3 | nano << 2


def check_owner(uid: int, gid: int) -> None:
    """ValueError for what is no user or group."""
    if not (0 <= uid <= ID_MAX and 0 <= gid <= ID_MAX):
        raise ValueError(f"{uid}, {gid} are no user and group: those are from 0 to {ID_MAX}")


def device_words(major: int, minor: int) -> tuple[int, int]:
    """The first two words of i_block of a device. ValueError for numbers that do not fit 12 and 20 bits."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ValueError(f"device numbers {major}, {minor} do not fit 12 and 20 bits")
    if major < 256 and minor < 256:
        return major << 8 | minor, 0
    return 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
