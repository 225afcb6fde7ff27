"""Check of the tables: every metadata block decompresses to its right size, and every set of attributes is readable."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass

from .check_report import CheckReport, SquashfsProblem, SquashfsProblemCode
from .compressor_options import check_compressor_options
from .errors import CorruptSquashfsError, SquashfsError
from .metadata_blocks import HEADER_BYTES, METADATA_BYTES, STORED, LookupTable
from .reader import Reader
from .schema import XATTR_ID_TABLE
from .superblock import SuperblockFlag
from .tables import ID_BYTES

__all__ = ["CheckedTables", "check_exports", "check_tables"]

KNOWN_FLAGS = sum(flag.value for flag in SuperblockFlag)
ASSUMED_RATIO = 16
"""Bytes that a byte of a table decompresses to where it cannot be decompressed, more or less."""
XATTR_BYTES_FACTOR, FREE_XATTR_BYTES = 64, 64 << 20
"""Most bytes of attributes that are read: values may be shared, but not without end."""


@dataclass(frozen=True, slots=True)
class CheckedTables:
    """Uncompressed bytes of the tables, as far as they can be read. ``data_start``: first byte of the image for data.

    ``user_sets``: sets of attributes, some of which are the user's.
    """

    inodes: int
    directories: int
    data_start: int
    user_sets: frozenset[int]


def check_tables(reader: Reader, report: CheckReport) -> CheckedTables:
    """Check all tables but that of inodes by number, which needs the inodes."""
    superblock = reader.superblock
    data_start = 0
    unknown = superblock.flags & ~KNOWN_FLAGS
    if unknown:
        error = CorruptSquashfsError("superblock", "flags", f"{superblock.flags:#x}", "those of version 4.0", offset=0)
        report.add_error(SquashfsProblemCode.TABLE, error)
    try:
        data_start = check_compressor_options(reader.metadata, superblock)
    except OSError as error:
        report.add_error(SquashfsProblemCode.OPTIONS, error)
    lookups: list[LookupTable] = []
    readers: list[Callable[[], LookupTable]] = [lambda: reader.fragments, lambda: reader.exports, lambda: _owners(reader)]
    for read in readers:
        try:
            lookups.append(read())
        except OSError as error:
            report.add_error(SquashfsProblemCode.TABLE, error)
    directories_end = _check_order(reader, lookups, report)
    inodes = _check_stream(reader, "table of inodes", superblock.inode_table_start, superblock.directory_table_start, report)
    directories = _check_stream(reader, "table of directories", superblock.directory_table_start, directories_end, report)
    for table in lookups:
        _check_lookup(reader, table, table.start, report)
    user_sets: set[int] = set()
    if reader.xattr_table is not None:
        attributes = reader.xattr_table
        size = _check_stream(reader, attributes.table.name, attributes.table.start, attributes.table.end, report)
        _check_lookup(reader, attributes.sets, attributes.sets.start - XATTR_ID_TABLE.size, report)
        user_sets = _check_xattrs(reader, size, report)
    return CheckedTables(inodes, directories, data_start, frozenset(user_sets))


def _check_order(reader: Reader, lookups: list[LookupTable], report: CheckReport) -> int:
    """Check that the tables behind that of directories follow each other to the end of the image; return where that one ends.

    The kernel takes the length of a table from where the next one begins.
    """
    superblock, attributes = reader.superblock, reader.xattr_table
    regions = [(table.pointers[0], table.end, table.name) for table in lookups if len(table.pointers)]
    if attributes is not None:
        regions.append((attributes.table.start, attributes.sets.end, attributes.table.name))
    regions.sort()
    ends = [start for start, _, _ in regions[1:]] + [superblock.bytes_used]
    for (_, end, name), want in zip(regions, ends, strict=True):
        if end != want:
            error = CorruptSquashfsError(name, "end", end, f"{want}, where the next table or the end of the image is")
            report.add_error(SquashfsProblemCode.TABLE, error)
    return regions[0][0] if regions else reader.directories.end


def _owners(reader: Reader) -> LookupTable:
    found = reader.superblock
    start = found.id_table_start
    end = found.table_end(start)
    return LookupTable(reader.metadata, "table of owners", start=start, end=end, count=found.ids, size=ID_BYTES)


def _check_stream(reader: Reader, name: str, start: int, end: int, report: CheckReport) -> int:
    """Check the blocks from byte ``start`` to byte ``end``; return the bytes they decompress to, about those if some do not."""
    total, position = 0, start
    while position < end:
        size = METADATA_BYTES
        try:
            data, following = _load(reader, position, end)
            size = len(data)
            if size != METADATA_BYTES and following < end:
                raise CorruptSquashfsError("metadata block", "uncompressed size", size, METADATA_BYTES, offset=position)
        except OSError as error:
            report.add_error(SquashfsProblemCode.METADATA, error, prefix=f"{name}: ")
            following = _next_block(reader, position, end)
            if not following:
                return total + (end - position) * ASSUMED_RATIO
        total += size
        report.advance(following - position)
        position = following
    return total


def _load(reader: Reader, position: int, end: int) -> tuple[bytes, int]:
    """Return what ``MetadataBlocks.load`` does. Raises CorruptSquashfsError also for a block that was read with another end."""
    data, following = reader.metadata.load(position, end)
    if following > end:
        raise CorruptSquashfsError("metadata block", "end", following, f"at most {end}", offset=position)
    return data, following


def _next_block(reader: Reader, position: int, end: int) -> int:
    """Return where the metadata block behind that at byte ``position`` begins, by its header; 0 if that is damaged, too."""
    try:
        header = int.from_bytes(reader.source.read_at(position, HEADER_BYTES), "little")
    except OSError:
        return 0
    following = position + HEADER_BYTES + (header & ~STORED)
    return following if position + HEADER_BYTES < following <= end else 0


def _check_lookup(reader: Reader, table: LookupTable, end: int, report: CheckReport) -> None:
    """Check the blocks of a lookup table, each of which holds as many records as it can. They lie before byte ``end``."""
    for number, pointer in enumerate(table.pointers):
        records = min(table.per_block, table.count - number * table.per_block)
        most = table.pointers[number + 1] if number + 1 < len(table.pointers) else end
        try:
            data, following = _load(reader, pointer, most)
            if len(data) != records * table.size:
                raise CorruptSquashfsError(
                    "metadata block", "uncompressed size", len(data), records * table.size, offset=pointer
                )
        except OSError as error:
            report.add_error(SquashfsProblemCode.METADATA, error, prefix=f"{table.name}: ")
            continue
        report.advance(following - pointer)


def _check_xattrs(reader: Reader, size: int, report: CheckReport) -> set[int]:
    """Read every set of attributes; return those with some of the user's. ``size``: bytes of their table."""
    attributes = reader.xattr_table
    assert attributes is not None
    user_sets: set[int] = set()
    left = FREE_XATTR_BYTES + XATTR_BYTES_FACTOR * size
    for index in range(attributes.count):
        names: list[bytes] = []
        try:
            _, count, _ = attributes.set_at(index)
            for name, value in attributes.entries(index):
                left -= len(name) + len(value)
                if left < 0:
                    text = f"attribute set {index}: the sets hold more data than a table of {size} bytes can"
                    report.add(SquashfsProblem(SquashfsProblemCode.XATTRS, text))
                    return user_sets
                if name:
                    names.append(name)
            if not count or len(names) != count:
                want = f"{len(names)}, which are of known kinds" if count else "at least 1"
                raise CorruptSquashfsError(f"attribute set {index}", "count", count, want, offset=attributes.table.start)
        except OSError as error:
            report.add_error(SquashfsProblemCode.XATTRS, error)
            continue
        if any(name.startswith(b"user.") for name in names):
            user_sets.add(index)
    return user_sets


def check_exports(reader: Reader, references: array[int], report: CheckReport) -> None:
    """Compare the table of inodes by number with the inodes found: ``references`` by number, each plus 1, 0 for none."""
    if not reader.superblock.is_exportable:
        return
    try:
        table = reader.exports
    except SquashfsError:  # reported with the tables
        return
    for first in range(0, table.count, table.per_block):
        try:
            block, _ = table.block_of(first)
        except OSError:  # reported with the tables
            continue
        count = min(table.per_block, table.count - first, len(references) - 1 - first, len(block) // table.size)
        for ino, reference in enumerate(struct.unpack_from(f"<{max(0, count)}Q", block), first + 1):
            if references[ino] and references[ino] != reference + 1:
                found = references[ino] - 1
                error = CorruptSquashfsError(table.name, f"inode {ino}", hex(reference), hex(found), offset=table.start)
                report.add_error(SquashfsProblemCode.EXPORTS, error)
                break  # of each block one: they are shifted, or the block is another
