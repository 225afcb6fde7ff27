"""Structures of a squashfs 4.0 image on disk: packed, little-endian. Declarations only.

Field names are those of the kernel's ``fs/squashfs/squashfs_fs.h``.
"""

from __future__ import annotations

from ..packed_struct import I16, U16, U32, U64, PackedStruct

__all__ = [
    "DEVICE_INODE",
    "DIRECTORY_INODE",
    "DIR_ENTRY",
    "DIR_HEADER",
    "DIR_INDEX",
    "EXTENDED_DEVICE_INODE",
    "EXTENDED_DIRECTORY_INODE",
    "EXTENDED_IPC_INODE",
    "EXTENDED_REGULAR_INODE",
    "FRAGMENT_ENTRY",
    "IPC_INODE",
    "REGULAR_INODE",
    "SUPERBLOCK",
    "SYMLINK_INODE",
    "XATTR_ENTRY",
    "XATTR_ID",
    "XATTR_ID_TABLE",
]

SUPERBLOCK = PackedStruct(
    "superblock",
    96,
    s_magic=U32,
    inodes=U32,
    mkfs_time=U32,
    block_size=U32,
    fragments=U32,
    compression=U16,
    block_log=U16,
    flags=U16,
    no_ids=U16,
    s_major=U16,
    s_minor=U16,
    root_inode=U64,
    bytes_used=U64,
    id_table_start=U64,
    xattr_id_table_start=U64,
    inode_table_start=U64,
    directory_table_start=U64,
    fragment_table_start=U64,
    lookup_table_start=U64,
)

# Every inode begins with the fields of BASE. A regular file's is followed by the sizes of its blocks, a symlink's by its target
# (and, if extended, the index of its attributes), an extended directory's by its index.
_BASE = {"inode_type": U16, "mode": U16, "uid": U16, "guid": U16, "mtime": U32, "inode_number": U32}

REGULAR_INODE = PackedStruct("file inode", 32, **_BASE, start_block=U32, fragment=U32, offset=U32, file_size=U32)
EXTENDED_REGULAR_INODE = PackedStruct(
    "extended file inode",
    56,
    **_BASE,
    start_block=U64,
    file_size=U64,
    sparse=U64,
    nlink=U32,
    fragment=U32,
    offset=U32,
    xattr=U32,
)
DIRECTORY_INODE = PackedStruct(
    "directory inode", 32, **_BASE, start_block=U32, nlink=U32, file_size=U16, offset=U16, parent_inode=U32
)
EXTENDED_DIRECTORY_INODE = PackedStruct(
    "extended directory inode",
    40,
    **_BASE,
    nlink=U32,
    file_size=U32,
    start_block=U32,
    parent_inode=U32,
    i_count=U16,
    offset=U16,
    xattr=U32,
)
SYMLINK_INODE = PackedStruct("symlink inode", 24, **_BASE, nlink=U32, symlink_size=U32)
DEVICE_INODE = PackedStruct("device inode", 24, **_BASE, nlink=U32, rdev=U32)
EXTENDED_DEVICE_INODE = PackedStruct("extended device inode", 28, **_BASE, nlink=U32, rdev=U32, xattr=U32)
IPC_INODE = PackedStruct("FIFO or socket inode", 20, **_BASE, nlink=U32)
EXTENDED_IPC_INODE = PackedStruct("extended FIFO or socket inode", 24, **_BASE, nlink=U32, xattr=U32)

# A directory is a list of runs: a header, then as many entries as it says. Each name has one byte more than its size says.
DIR_HEADER = PackedStruct("directory header", 12, count=U32, start_block=U32, inode_number=U32)
DIR_ENTRY = PackedStruct("directory entry", 8, offset=U16, inode_number=I16, type=U16, size=U16)
DIR_INDEX = PackedStruct("directory index entry", 12, index=U32, start_block=U32, size=U32)

FRAGMENT_ENTRY = PackedStruct("fragment entry", 16, start_block=U64, size=U32, unused=U32)

XATTR_ID_TABLE = PackedStruct("attribute table header", 16, xattr_table_start=U64, xattr_ids=U32, unused=U32)
XATTR_ID = PackedStruct("attribute set", 16, xattr=U64, count=U32, size=U32)
XATTR_ENTRY = PackedStruct("attribute", 4, type=U16, size=U16)
