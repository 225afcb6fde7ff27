"""Inode field columns: times, sizes and device numbers of many inodes together. Of one inode: see ``inode_fields``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import S_IFBLK, S_IFCHR, S_IFMT, S_IFREG
from .inode_fields import MASK32, TIME_MAX, TIME_MAX_CORE, TIME_MIN

__all__ = [
    "Flags",
    "Numbers",
    "Times",
    "bad_extra_sizes",
    "decode_devices",
    "decode_sizes",
    "decode_times",
    "encode_times",
]

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Times = tuple[Numbers, Numbers]
"""Columns of seconds since 1970 and of nanoseconds; combined they may exceed 64 bits."""


def bad_extra_sizes(sizes: Numbers, room: int) -> Flags:
    """Return the rows for which ``extra_size_violations`` yields one."""
    bad: Flags = (sizes % 4 != 0) | (sizes > room)
    return bad


def decode_times(low: Numbers, extra: Numbers) -> Times:
    """Return the times of two columns of words: see ``decode_time``."""
    return low - (low >> 31 << 32) + ((extra & 3) << 32), extra >> 2


def encode_times(times: Times, *, wide: bool) -> Times:
    """Return the two columns of words of the nearest times that can be stored: see ``encode_time``."""
    stored = np.clip(times[0], TIME_MIN, TIME_MAX if wide else TIME_MAX_CORE)
    low = stored & MASK32
    if not wide:
        return low, np.zeros_like(low)
    nano = times[1]
    if not (kept := stored == times[0]).all():
        nano = np.where(kept, nano, 0)
    return low, (stored - (low - (low >> 31 << 32))) >> 32 & 3 | nano << 2


def decode_sizes(mode: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """Return ``decode_size`` of each."""
    return low | np.where((mode & S_IFMT) == S_IFREG, high, 0) << 32


def decode_devices(mode: Numbers, old: Numbers, new: Numbers) -> tuple[Numbers, Numbers]:
    """Return columns of (major, minor): see ``decode_device``."""
    form = mode & S_IFMT
    device = (form == S_IFCHR) | (form == S_IFBLK)
    major = np.where(old != 0, old >> 8 & 0xFF, new >> 8 & 0xFFF)
    minor = np.where(old != 0, old & 0xFF, new & 0xFF | new >> 12 & 0xFFF00)
    return np.where(device, major, 0), np.where(device, minor, 0)
