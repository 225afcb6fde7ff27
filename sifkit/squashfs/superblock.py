"""Superblock: where the tables of an image lie, and how it was compressed."""

from __future__ import annotations

from enum import IntFlag
from typing import Final, NamedTuple

from .errors import CorruptSquashfsError, NotSquashfsError, TruncatedSquashfsError, UnsupportedSquashfsError
from .schema import SUPERBLOCK
from .source import ByteSource

__all__ = ["NO_TABLE", "Superblock", "SuperblockFlag", "read_superblock"]

MAGIC, SWAPPED_MAGIC = 0x73717368, 0x68737173
"""Magic number of an image; that of a big-endian image, which only versions before 4 wrote."""
VERSION: Final = (4, 0)
MIN_BLOCK_LOG, MAX_BLOCK_LOG = 12, 20
NO_TABLE = (1 << 64) - 1
"""Start of a table that is not there."""


class SuperblockFlag(IntFlag):
    """Flags of the superblock: what is stored uncompressed, and how files were laid out."""

    UNCOMPRESSED_INODES = 1 << 0
    UNCOMPRESSED_DATA = 1 << 1
    UNCOMPRESSED_FRAGMENTS = 1 << 3
    NO_FRAGMENTS = 1 << 4
    ALWAYS_FRAGMENTS = 1 << 5
    DUPLICATES = 1 << 6
    EXPORTABLE = 1 << 7
    UNCOMPRESSED_XATTRS = 1 << 8
    NO_XATTRS = 1 << 9
    COMPRESSOR_OPTIONS = 1 << 10
    UNCOMPRESSED_IDS = 1 << 11


class Superblock(NamedTuple):
    """Decoded superblock. Starts and ``bytes_used`` are bytes from the start of the image; ``mkfs_time`` is in seconds."""

    inodes: int
    mkfs_time: int
    block_size: int
    fragments: int
    compression: int
    flags: int
    ids: int
    root_inode: int
    bytes_used: int
    id_table_start: int
    xattr_id_table_start: int
    inode_table_start: int
    directory_table_start: int
    fragment_table_start: int
    lookup_table_start: int

    @property
    def has_xattrs(self) -> bool:
        """True if there is a table of extended attributes."""
        return self.xattr_id_table_start != NO_TABLE

    @property
    def is_exportable(self) -> bool:
        """True if there is a table from inode numbers to inodes."""
        return self.lookup_table_start != NO_TABLE

    @property
    def has_compressor_options(self) -> bool:
        """True if options of the compressor follow the superblock."""
        return bool(self.flags & SuperblockFlag.COMPRESSOR_OPTIONS.value)

    def table_end(self, start: int) -> int:
        """Return the start of the next table behind the byte ``start``, or the end of the image."""
        starts = (
            self.inode_table_start,
            self.directory_table_start,
            self.id_table_start,
            *((self.fragment_table_start,) if self.fragments else ()),
            *((self.xattr_id_table_start,) if self.has_xattrs else ()),
            *((self.lookup_table_start,) if self.is_exportable else ()),
        )
        return min((other for other in starts if other > start), default=self.bytes_used)


def read_superblock(source: ByteSource) -> Superblock:
    """Read and check the superblock.

    Raises NotSquashfsError, UnsupportedSquashfsError for other versions, TruncatedSquashfsError if the source is shorter than
    the image, CorruptSquashfsError for impossible values, and OSError.
    """
    raw = source.read_at(0, min(source.size, SUPERBLOCK.size))
    magic = int.from_bytes(raw[:4], "little")
    if magic == SWAPPED_MAGIC:
        raise UnsupportedSquashfsError("a big-endian squashfs image, of a version before 4.0,")
    if len(raw) < 4 or magic != MAGIC:
        raise NotSquashfsError()
    if len(raw) < SUPERBLOCK.size:
        raise TruncatedSquashfsError("superblock", offset=0, size=SUPERBLOCK.size, available_bytes=len(raw))
    fields = SUPERBLOCK.read(raw)
    version = fields["s_major"], fields["s_minor"]
    if version != VERSION:
        raise UnsupportedSquashfsError(f"squashfs version {version[0]}.{version[1]}")
    _check_block_size(fields["block_size"], fields["block_log"])
    found = Superblock(
        inodes=fields["inodes"],
        mkfs_time=fields["mkfs_time"],
        block_size=fields["block_size"],
        fragments=fields["fragments"],
        compression=fields["compression"],
        flags=fields["flags"],
        ids=fields["no_ids"],
        root_inode=fields["root_inode"],
        bytes_used=fields["bytes_used"],
        id_table_start=fields["id_table_start"],
        xattr_id_table_start=fields["xattr_id_table_start"],
        inode_table_start=fields["inode_table_start"],
        directory_table_start=fields["directory_table_start"],
        fragment_table_start=fields["fragment_table_start"],
        lookup_table_start=fields["lookup_table_start"],
    )
    _check_tables(found, source.size)
    return found


def _check_block_size(size: int, log: int) -> None:
    if not MIN_BLOCK_LOG <= log <= MAX_BLOCK_LOG:
        raise CorruptSquashfsError("superblock", "block_log", log, f"{MIN_BLOCK_LOG} to {MAX_BLOCK_LOG}", offset=0)
    if size != 1 << log:
        raise CorruptSquashfsError("superblock", "block_size", size, 1 << log, offset=0)


def _check_tables(found: Superblock, available: int) -> None:
    if found.bytes_used < SUPERBLOCK.size:
        raise CorruptSquashfsError("superblock", "bytes_used", found.bytes_used, f"at least {SUPERBLOCK.size}", offset=0)
    if found.bytes_used > available:
        raise TruncatedSquashfsError("image", offset=0, size=found.bytes_used, available_bytes=available)
    starts = {
        "inode_table_start": found.inode_table_start,
        "directory_table_start": found.directory_table_start,
        "id_table_start": found.id_table_start,
    }
    if found.fragments:
        starts["fragment_table_start"] = found.fragment_table_start
    if found.is_exportable:
        starts["lookup_table_start"] = found.lookup_table_start
    if found.has_xattrs:
        starts["xattr_id_table_start"] = found.xattr_id_table_start
    for name, start in starts.items():
        if not SUPERBLOCK.size <= start < found.bytes_used:
            raise CorruptSquashfsError("superblock", name, start, f"{SUPERBLOCK.size} to {found.bytes_used - 1}", offset=0)
    if found.inode_table_start >= found.directory_table_start:
        want = f"more than {found.inode_table_start}, the start of the inodes"
        raise CorruptSquashfsError("superblock", "directory_table_start", found.directory_table_start, want, offset=0)
    for name, count in (("no_ids", found.ids), ("inodes", found.inodes)):
        if not count:
            raise CorruptSquashfsError("superblock", name, count, "at least 1", offset=0)
