"""Messages of the FUSE protocol: operation codes, flags and structures, as of version 7.36 and down to 7.27.

Integers are in the byte order of the machine; only little-endian machines are served. Source: Linux
``include/uapi/linux/fuse.h``.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from ...packed_struct import I32, U16, U32, U64, PackedStruct

__all__ = [
    "ATTR",
    "ATTR_OUT",
    "DIRENT",
    "ENTRY_OUT",
    "FORGET_ONE",
    "GETXATTR_IN",
    "GETXATTR_OUT",
    "INIT_IN",
    "INIT_OUT",
    "IN_HEADER",
    "KERNEL_STATFS",
    "LSEEK_IN",
    "LSEEK_OUT",
    "MAJOR",
    "MINOR",
    "MIN_MINOR",
    "OPEN_OUT",
    "OUT_HEADER",
    "READ_IN",
    "RENAME2_IN",
    "ROOT_ID",
    "SETATTR_IN",
    "InitFlag",
    "Opcode",
    "OpenFlag",
    "SetAttribute",
    "decode_device",
    "encode_device",
]

MAJOR, MINOR, MIN_MINOR = 7, 36, 27
"""Version spoken; the kernel's is used if it is lower, down to that of Linux 4.18, the first with FUSE in user namespaces."""
ROOT_ID = 1


class Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


class InitFlag(IntFlag):
    """Features agreed on at INIT."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    HANDLE_KILLPRIV_V2 = 1 << 28


class OpenFlag(IntFlag):
    """Flags of an open file, ``open_flags`` of OPEN_OUT: what the kernel may do with it."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3


class SetAttribute(IntEnum):
    """Flags of the attributes to set: ``valid`` of SETATTR_IN. Tested by ``&`` with a number, which IntFlag makes slow."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    KILL_SUIDGID = 1 << 11


IN_HEADER = PackedStruct(
    "fuse_in_header", 40, len=U32, opcode=U32, unique=U64, nodeid=U64, uid=U32, gid=U32, pid=U32, total_extlen=U16, padding=U16
)
OUT_HEADER = PackedStruct("fuse_out_header", 16, len=U32, error=I32, unique=U64)

_ATTR = {
    "ino": U64,
    "size": U64,
    "blocks": U64,
    "atime": U64,
    "mtime": U64,
    "ctime": U64,
    "atimensec": U32,
    "mtimensec": U32,
    "ctimensec": U32,
    "mode": U32,
    "nlink": U32,
    "uid": U32,
    "gid": U32,
    "rdev": U32,
    "blksize": U32,
    "flags": U32,
}
ATTR = PackedStruct("fuse_attr", 88, **_ATTR)
ATTR_OUT = PackedStruct("fuse_attr_out", 104, attr_valid=U64, attr_valid_nsec=U32, dummy=U32, **_ATTR)
ENTRY_OUT = PackedStruct(
    "fuse_entry_out",
    128,
    nodeid=U64,
    generation=U64,
    entry_valid=U64,
    attr_valid=U64,
    entry_valid_nsec=U32,
    attr_valid_nsec=U32,
    **_ATTR,
)
DIRENT = PackedStruct("fuse_dirent", 24, ino=U64, off=U64, namelen=U32, type=U32)
"""Followed by the name, padded to 8 bytes; READDIRPLUS has ENTRY_OUT before it."""

INIT_IN = PackedStruct("fuse_init_in", 16, major=U32, minor=U32, max_readahead=U32, flags=U32)
"""Version 7.36 adds ``flags2`` and reserved words, which are not used."""
INIT_OUT = PackedStruct(
    "fuse_init_out",
    64,
    major=U32,
    minor=U32,
    max_readahead=U32,
    flags=U32,
    max_background=U16,
    congestion_threshold=U16,
    max_write=U32,
    time_gran=U32,
    max_pages=U16,
    map_alignment=U16,
    flags2=U32,
    unused=28,
)
OPEN_OUT = PackedStruct("fuse_open_out", 16, fh=U64, open_flags=U32, padding=U32)
READ_IN = PackedStruct("fuse_read_in", 40, fh=U64, offset=U64, size=U32, read_flags=U32, lock_owner=U64, flags=U32, padding=U32)
"""Of READ, READDIR and READDIRPLUS; WRITE has the same fields."""
LSEEK_IN = PackedStruct("fuse_lseek_in", 24, fh=U64, offset=U64, whence=U32, padding=U32)
LSEEK_OUT = PackedStruct("fuse_lseek_out", 8, offset=U64)
KERNEL_STATFS = PackedStruct(
    "fuse_kstatfs",
    80,
    blocks=U64,
    bfree=U64,
    bavail=U64,
    files=U64,
    ffree=U64,
    bsize=U32,
    namelen=U32,
    frsize=U32,
    padding=U32,
    spare=24,
)
SETATTR_IN = PackedStruct(
    "fuse_setattr_in",
    88,
    valid=U32,
    padding=U32,
    fh=U64,
    size=U64,
    lock_owner=U64,
    atime=U64,
    mtime=U64,
    ctime=U64,
    atimensec=U32,
    mtimensec=U32,
    ctimensec=U32,
    mode=U32,
    unused4=U32,
    uid=U32,
    gid=U32,
    unused5=U32,
)
RENAME2_IN = PackedStruct("fuse_rename2_in", 16, newdir=U64, flags=U32, padding=U32)
GETXATTR_IN = PackedStruct("fuse_getxattr_in", 8, size=U32, padding=U32)
GETXATTR_OUT = PackedStruct("fuse_getxattr_out", 8, size=U32, padding=U32)
FORGET_ONE = PackedStruct("fuse_forget_one", 16, nodeid=U64, nlookup=U64)


def encode_device(major: int, minor: int) -> int:
    """Return the number of a device as the kernel packs it into 32 bits."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12


def decode_device(packed: int) -> tuple[int, int]:
    """Return major and minor of the packed number of a device."""
    return packed >> 8 & 0xFFF, packed & 0xFF | packed >> 12 & 0xFFF00
