"""Numbers of the format: magics, reserved inodes, limits, feature and flag bits, file types.

Source of the facts: Linux ``fs/ext4/ext4.h``, ``include/uapi/linux/jbd2`` and e2fsprogs ``lib/ext2fs/ext2_fs.h``.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

SUPERBLOCK_OFFSET = 1024
"""The primary superblock lies at this byte whatever the block size."""
SUPERBLOCK_SIZE = 1024
EXT3_MAGIC = 0xEF53

BAD_INO = 1
ROOT_INO = 2
RESIZE_INO = 7
JOURNAL_INO = 8
FIRST_INO = 11
"""First inode that is not reserved; mke2fs gives it to lost+found."""
LOST_FOUND_INO = 11

MIN_BLOCK_SIZE = 1024
MAX_BLOCK_SIZE = 4096
MIN_INODE_SIZE = 128
GOOD_INODE_SIZE = 128
"""The part of an inode every revision has; what lies behind it is the extra area."""
EXTRA_ISIZE = 32
"""Bytes of the extra area that hold fields; in-inode xattrs start behind them."""

DIRECT_BLOCKS = 12
IND_SLOT = 12
DIND_SLOT = 13
TIND_SLOT = 14
N_BLOCKS = 15
POINTER_SIZE = 4
"""Bytes of a block number in an indirect block."""

NAME_MAX = 255
LINK_MAX = 32000
"""The kernel's limit for ext3; a directory therefore holds at most LINK_MAX - 2 subdirectories."""
FAST_SYMLINK_MAX = 59
"""Longest target that fits i_block with its NUL."""
LABEL_MAX = 16
MIN_JOURNAL_BLOCKS = 1024
MAX_JOURNAL_BLOCKS = 10_240_000
XATTR_NAME_MAX = 255
"""Bytes of a full name, its prefix among them: as much as the system calls take."""
XATTR_REFCOUNT_MAX = 1024
SECTOR = 512
"""i_blocks counts in these."""

STATE_VALID = 1
STATE_ERROR = 2
STATE_ORPHAN = 4
FLAGS_SIGNED_HASH = 1
FLAGS_UNSIGNED_HASH = 2
DEFAULT_MOUNT_XATTR_USER = 4
DEFAULT_MOUNT_ACL = 8
ERRORS_CONTINUE = 1
JOURNAL_BACKUP_BLOCKS = 1

JBD_MAGIC = 0xC03B3998


class Compat(IntFlag):
    """s_feature_compat: unknown bits do not matter."""

    DIR_PREALLOC = 0x1
    IMAGIC_INODES = 0x2
    HAS_JOURNAL = 0x4
    EXT_ATTR = 0x8
    RESIZE_INODE = 0x10
    DIR_INDEX = 0x20
    LAZY_BG = 0x40
    EXCLUDE_INODE = 0x80
    EXCLUDE_BITMAP = 0x100
    SPARSE_SUPER2 = 0x200
    FAST_COMMIT = 0x400
    STABLE_INODES = 0x800
    ORPHAN_FILE = 0x1000


class Incompat(IntFlag):
    """s_feature_incompat: an unknown bit forbids even reading."""

    COMPRESSION = 0x1
    FILETYPE = 0x2
    NEEDS_RECOVERY = 0x4
    JOURNAL_DEV = 0x8
    META_BG = 0x10
    EXTENTS = 0x40
    BIT64 = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    DIRDATA = 0x1000
    CSUM_SEED = 0x2000
    LARGEDIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000
    CASEFOLD = 0x20000


class RoCompat(IntFlag):
    """s_feature_ro_compat: an unknown bit forbids writing."""

    SPARSE_SUPER = 0x1
    LARGE_FILE = 0x2
    BTREE_DIR = 0x4
    HUGE_FILE = 0x8
    UNINIT_BG = 0x10
    DIR_NLINK = 0x20
    EXTRA_ISIZE = 0x40
    HAS_SNAPSHOT = 0x80
    QUOTA = 0x100
    BIGALLOC = 0x200
    METADATA_CSUM = 0x400
    REPLICA = 0x800
    READONLY = 0x1000
    PROJECT = 0x2000
    SHARED_BLOCKS = 0x4000
    VERITY = 0x8000
    ORPHAN_PRESENT = 0x10000


EXT3_COMPAT = (
    Compat.DIR_PREALLOC | Compat.IMAGIC_INODES | Compat.HAS_JOURNAL | Compat.EXT_ATTR | Compat.RESIZE_INODE | Compat.DIR_INDEX
)
EXT3_INCOMPAT = Incompat.FILETYPE | Incompat.NEEDS_RECOVERY | Incompat.META_BG
EXT3_RO_COMPAT = RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE
"""Feature bits of an ext3 filesystem: what this package reads, and what Apptainer accepts."""

FEATURE_NAMES: dict[tuple[str, int], str] = {
    **{("compat", f.value): f.name.lower() for f in Compat if f.name},
    **{("incompat", f.value): f.name.lower() for f in Incompat if f.name},
    **{("ro_compat", f.value): f.name.lower() for f in RoCompat if f.name},
    ("compat", 0x20): "dir_index",
    ("incompat", 0x40): "extent",
    ("incompat", 0x80): "64bit",
    ("incompat", 0x2000): "metadata_csum_seed",
    ("incompat", 0x4000): "large_dir",
}
"""(word, bit) -> the name dumpe2fs prints."""


class InodeFlag(IntFlag):
    """i_flags bits that ext3 knows, and those of ext4 that a check must recognise."""

    SECRM = 0x1
    UNRM = 0x2
    COMPRESSED = 0x4
    SYNC = 0x8
    IMMUTABLE = 0x10
    APPEND = 0x20
    NODUMP = 0x40
    NOATIME = 0x80
    INDEX = 0x1000
    IMAGIC = 0x2000
    JOURNAL_DATA = 0x4000
    NOTAIL = 0x8000
    DIRSYNC = 0x10000
    TOPDIR = 0x20000
    HUGE_FILE = 0x40000
    EXTENTS = 0x80000
    EA_INODE = 0x200000
    INLINE_DATA = 0x10000000


USER_FLAGS = (
    InodeFlag.SECRM
    | InodeFlag.UNRM
    | InodeFlag.COMPRESSED
    | InodeFlag.SYNC
    | InodeFlag.IMMUTABLE
    | InodeFlag.APPEND
    | InodeFlag.NODUMP
    | InodeFlag.NOATIME
    | InodeFlag.JOURNAL_DATA
    | InodeFlag.NOTAIL
    | InodeFlag.DIRSYNC
    | InodeFlag.TOPDIR
)
"""i_flags bits that users set (chattr); the others say how an inode is stored."""


class FileType(IntEnum):
    """file_type of a directory entry."""

    UNKNOWN = 0
    REGULAR = 1
    DIRECTORY = 2
    CHARACTER = 3
    BLOCK = 4
    FIFO = 5
    SOCKET = 6
    SYMLINK = 7


S_IFMT, S_IFSOCK, S_IFLNK, S_IFREG, S_IFBLK, S_IFDIR, S_IFCHR, S_IFIFO = (
    0o170000,
    0o140000,
    0o120000,
    0o100000,
    0o060000,
    0o040000,
    0o020000,
    0o010000,
)

FILE_TYPE_OF_FORMAT = {
    S_IFREG >> 12: FileType.REGULAR,
    S_IFDIR >> 12: FileType.DIRECTORY,
    S_IFCHR >> 12: FileType.CHARACTER,
    S_IFBLK >> 12: FileType.BLOCK,
    S_IFIFO >> 12: FileType.FIFO,
    S_IFSOCK >> 12: FileType.SOCKET,
    S_IFLNK >> 12: FileType.SYMLINK,
}
"""The format bits of a mode, shifted down by 12 -> file_type."""


class HashVersion(IntEnum):
    """s_def_hash_version and dx_root hash_version; the signedness of characters is in s_flags."""

    LEGACY = 0
    HALF_MD4 = 1
    TEA = 2


class JournalBlock(IntEnum):
    """h_blocktype of a journal control block."""

    DESCRIPTOR = 1
    COMMIT = 2
    SUPERBLOCK_V1 = 3
    SUPERBLOCK_V2 = 4
    REVOKE = 5


class XattrIndex(IntEnum):
    """e_name_index: the prefix of an attribute's name."""

    USER = 1
    POSIX_ACL_ACCESS = 2
    POSIX_ACL_DEFAULT = 3
    TRUSTED = 4
    SECURITY = 6
    SYSTEM = 7
    RICHACL = 8


XATTR_MAGIC = 0xEA020000
