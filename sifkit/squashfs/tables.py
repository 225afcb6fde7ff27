"""Tables beside those of inodes, directories and attributes: owners, fragments, and inodes by number."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import CorruptSquashfsError
from .metadata_blocks import LookupTable, MetadataBlocks
from .schema import FRAGMENT_ENTRY
from .superblock import Superblock

__all__ = ["Fragment", "export_table", "fragment_at", "fragment_table", "read_ids", "reference_at"]

ID_BYTES, REFERENCE_BYTES = 4, 8


class Fragment(NamedTuple):
    """Block that holds the ends of files: the byte where it starts, and its size as that of any data block is stored."""

    start: int
    size_word: int


def read_ids(blocks: MetadataBlocks, superblock: Superblock) -> tuple[int, ...]:
    """Return the numbers of users and groups, which inodes name by index. Raises CorruptSquashfsError and OSError."""
    start = superblock.id_table_start
    end = superblock.table_end(start)
    table = LookupTable(blocks, "table of owners", start=start, end=end, count=superblock.ids, size=ID_BYTES)
    ids: list[int] = []
    while len(ids) < superblock.ids:
        block, _ = table.block_of(len(ids))
        count = min(superblock.ids - len(ids), table.per_block)
        if len(block) < count * ID_BYTES:
            raise CorruptSquashfsError("table of owners", "numbers", len(block) // ID_BYTES, f"at least {count}", offset=start)
        ids += struct.unpack_from(f"<{count}I", block)
    return tuple(ids)


def fragment_table(blocks: MetadataBlocks, superblock: Superblock) -> LookupTable:
    """Return the table of fragments, which may be empty. Raises CorruptSquashfsError and OSError."""
    start = superblock.fragment_table_start if superblock.fragments else 0
    end = superblock.table_end(start) if superblock.fragments else 0
    return LookupTable(blocks, "table of fragments", start=start, end=end, count=superblock.fragments, size=FRAGMENT_ENTRY.size)


def fragment_at(table: LookupTable, index: int) -> Fragment:
    """Return a fragment by its index. Raises CorruptSquashfsError and OSError."""
    block, offset = table.block_of(index)
    start, size, _ = FRAGMENT_ENTRY.packer.unpack_from(block, offset)
    return Fragment(start, size)


def export_table(blocks: MetadataBlocks, superblock: Superblock) -> LookupTable:
    """Return the table of inodes by number, which is empty in an image without one. Raises CorruptSquashfsError and OSError."""
    start = superblock.lookup_table_start if superblock.is_exportable else 0
    end = superblock.table_end(start) if superblock.is_exportable else 0
    count = superblock.inodes if superblock.is_exportable else 0
    return LookupTable(blocks, "table of inodes by number", start=start, end=end, count=count, size=REFERENCE_BYTES)


def reference_at(table: LookupTable, ino: int) -> int:
    """Return the reference of an inode by its number, from 1. Raises CorruptSquashfsError and OSError."""
    block, offset = table.block_of(ino - 1)
    return int.from_bytes(block[offset : offset + REFERENCE_BYTES], "little")
