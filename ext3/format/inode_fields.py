"""Inode fields stored in several words: times, owners, sizes, device numbers, the extra area.

Of one inode; of many: see ``inode_fields_columns``. Functions of ``N`` take both. Source: Linux ``fs/ext4/ext4.h``
(EXT4_INODE_SET_XTIME, EXT4_INODE_GET_XTIME, EXT4_FITS_IN_INODE, ext4_isize) and ``include/linux/kdev_t.h`` (new_encode_dev,
old_encode_dev).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from ..constants import EXTRA_ISIZE, GOOD_INODE_SIZE, S_IFBLK, S_IFCHR, S_IFMT, S_IFREG
from .schema import INODE_EXTRA
from .violation import Violation

if TYPE_CHECKING:
    from .inode_fields_columns import Numbers

__all__ = [
    "CRTIME_END",
    "CRTIME_EXTRA_END",
    "MASK16",
    "MASK32",
    "SECOND",
    "TIMES_END",
    "TIME_MAX",
    "TIME_MAX_CORE",
    "TIME_MIN",
    "area_size",
    "check_owner",
    "decode_device",
    "decode_owner",
    "decode_size",
    "decode_time",
    "encode_device",
    "encode_time",
    "extra_size_violations",
    "new_extra_size",
]

N = TypeVar("N", int, "Numbers")

SECOND = 1_000_000_000
MASK16 = 0xFFFF
MASK32 = 0xFFFFFFFF
TIME_MIN = -(2**31)
TIME_MAX = 2**34 - 2**31 - 1
"""Latest time in seconds of 32 bits and two epoch bits, in 2446."""
TIME_MAX_CORE = 2**31 - 1
"""Latest time in seconds of 32 bits, in 2038."""
ID_MAX = 0xFFFFFFFE
"""Highest owner number: the next one means none."""


# -- the extra area: a field beyond i_extra_isize does not exist -----------------------------------------------------


TIMES_END = INODE_EXTRA.end_of("i_atime_extra")
"""Smallest i_extra_isize with nanoseconds and epoch of all three times."""
CRTIME_END = INODE_EXTRA.end_of("i_crtime")
"""Smallest i_extra_isize with a creation time."""
CRTIME_EXTRA_END = INODE_EXTRA.end_of("i_crtime_extra")


def new_extra_size(inode_size: int) -> int:
    """Return the i_extra_isize of new inodes."""
    return min(EXTRA_ISIZE, inode_size - GOOD_INODE_SIZE)


def area_size(inode_size: int) -> int:
    """Return the bytes that a new inode has for attributes."""
    return inode_size - GOOD_INODE_SIZE - new_extra_size(inode_size)


def extra_size_violations(size: int, room: int, ino: int) -> Iterator[Violation]:
    """Yield what is wrong with an i_extra_isize: it leaves the ``room`` behind the core, or does not end at a word."""
    if size % 4 or size > room:
        yield Violation(f"inode {ino}", "i_extra_isize", size, f"a multiple of 4, <= {room}")


# -- times: 32 signed bits of seconds, 2 bits of epoch that count 2**32 seconds each, 30 bits of nanoseconds ----------


def decode_time(low: int, extra: int) -> int:
    """Return nanoseconds since 1970."""
    return (low - (low >> 31 << 32) + ((extra & 3) << 32)) * SECOND + (extra >> 2)


def encode_time(time: int, *, wide: bool) -> tuple[int, int]:
    """Return the two words of the nearest time that can be stored; not ``wide``: the inode has only the first."""
    seconds, nano = divmod(time, SECOND)
    if not TIME_MIN <= seconds <= (TIME_MAX if wide else TIME_MAX_CORE):
        seconds, nano = min(max(seconds, TIME_MIN), TIME_MAX if wide else TIME_MAX_CORE), 0
    low = seconds & MASK32
    return low, (seconds - (low - (low >> 31 << 32))) >> 32 & 3 | nano << 2 if wide else 0


# -- owners: 16 bits in each of two words ----------------------------------------------------------------------------


def decode_owner(low: N, high: N) -> N:
    return low | high << 16


def encode_owner(number: N) -> tuple[N, N]:
    return number & MASK16, number >> 16


def check_owner(uid: int, gid: int) -> None:
    """Raise ValueError for a number that is no user or group."""
    if not (0 <= uid <= ID_MAX and 0 <= gid <= ID_MAX):
        raise ValueError(f"{uid}, {gid} are no user and group: those are from 0 to {ID_MAX}")


# -- sizes: the high word is used by regular files only; in directories it once was the block of an ACL ---------------


def decode_size(mode: int, low: int, high: int) -> int:
    return low | high << 32 if mode & S_IFMT == S_IFREG else low


# -- devices: 8 and 8 bits in the first word of the block map, else 12 and 20 in the second ---------------------------


def decode_device(mode: int, old: int, new: int) -> tuple[int, int]:
    """Return (major, minor); zeros for what is no device."""
    if mode & S_IFMT not in (S_IFCHR, S_IFBLK):
        return 0, 0
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


def encode_device(major: int, minor: int) -> tuple[int, int]:
    """Return the first two words of the block map. Raises ValueError for numbers that do not fit 12 and 20 bits."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ValueError(f"device numbers {major}, {minor} do not fit 12 and 20 bits")
    if major < 256 and minor < 256:
        return major << 8 | minor, 0
    return 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
