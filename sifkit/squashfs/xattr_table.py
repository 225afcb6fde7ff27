"""Extended attributes: sets that inodes name by index, with values beside their names or elsewhere in the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import show
from .errors import CorruptSquashfsError
from .metadata_blocks import LookupTable, MetadataBlocks, MetadataCursor, MetadataTable
from .schema import XATTR_ENTRY, XATTR_ID, XATTR_ID_TABLE
from .superblock import Superblock

__all__ = ["XattrSet", "XattrTable"]

PREFIXES = {0: b"user.", 1: b"trusted.", 2: b"security."}
PREFIX_BITS, OUT_OF_LINE = 0xFF, 0x100
"""Parts of an attribute's type. Others are of later versions, and ignored as the kernel does."""
MAX_VALUE = 1 << 16
"""Longest value that the system's calls pass."""
MAX_NAMES = 1 << 16
"""Most bytes of names of one file that the system's calls pass."""
MAX_VALUES = 64 << 20
"""Most bytes of values read of one file: they are in memory, and can share their bytes in the image."""
LENGTH_BYTES, REFERENCE_BYTES = 4, 8


class XattrSet(NamedTuple):
    """Attributes of a file: ``attributes`` of them at ``reference``, of ``size`` bytes together, as the kernel counts."""

    reference: int
    attributes: int
    size: int


class XattrTable:
    """Attributes of an image."""

    def __init__(self, blocks: MetadataBlocks, superblock: Superblock) -> None:
        """Read what leads to the sets. Raises CorruptSquashfsError and OSError."""
        start, end = superblock.xattr_id_table_start, superblock.table_end(superblock.xattr_id_table_start)
        if start + XATTR_ID_TABLE.size > end:
            raise CorruptSquashfsError(
                "table of attributes", "end", end, f"at least {start + XATTR_ID_TABLE.size}", offset=start
            )
        header = XATTR_ID_TABLE.read(blocks.source.read_at(start, XATTR_ID_TABLE.size))
        self.sets = LookupTable(
            blocks,
            "table of attribute sets",
            start=start + XATTR_ID_TABLE.size,
            end=end,
            count=header["xattr_ids"],
            size=XATTR_ID.size,
        )
        first = header["xattr_table_start"]
        last = self.sets.pointers[0] if len(self.sets.pointers) else start
        if first > last:
            raise CorruptSquashfsError("table of attributes", "xattr_table_start", first, f"at most {last}", offset=start)
        self.table = MetadataTable(blocks, "table of attributes", first, last)

    @property
    def count(self) -> int:
        """Number of sets."""
        return self.sets.count

    def set_at(self, index: int) -> XattrSet:
        """Return set ``index``. Raises CorruptSquashfsError and OSError."""
        block, offset = self.sets.block_of(index)
        return XattrSet(*XATTR_ID.packer.unpack_from(block, offset))

    def read(self, index: int) -> dict[bytes, bytes]:
        """Return full name -> value of set ``index``. Raises CorruptSquashfsError and OSError."""
        return {name: value for name, value in self.entries(index) if name}

    def entries(self, index: int) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over set ``index``: full name, empty for one of an unknown kind, and value.

        Raises CorruptSquashfsError and OSError.
        """
        reference, count, _ = self.set_at(index)
        cursor = MetadataCursor(self.table, reference)
        names_left, values_left = MAX_NAMES, MAX_VALUES
        names: set[bytes] = set()
        for _ in range(count):
            kind, size = XATTR_ENTRY.packer.unpack(cursor.read(XATTR_ENTRY.size))
            name = cursor.read(size)
            value = self._value(cursor, bool(kind & OUT_OF_LINE), index)
            names_left -= size + 1
            values_left -= len(value)
            if names_left < 0 or values_left < 0:
                raise self._corrupt(
                    index, "attributes", f"more than {len(names)}", f"{MAX_NAMES} bytes of names, {MAX_VALUES} of values"
                )
            prefix = PREFIXES.get(kind & PREFIX_BITS)
            if prefix is None or kind & ~(PREFIX_BITS | OUT_OF_LINE):
                yield b"", value
                continue
            if not name or b"\0" in name or prefix + name in names:
                raise self._corrupt(index, "name", repr(show(prefix + name)), "another one, without NUL")
            names.add(prefix + name)
            yield prefix + name, value

    def _value(self, cursor: MetadataCursor, out_of_line: bool, index: int) -> bytes:
        size = self._length(cursor, index)
        if not out_of_line:
            return cursor.read(size)
        if size != REFERENCE_BYTES:
            raise self._corrupt(index, "size of a reference", size, REFERENCE_BYTES)
        elsewhere = MetadataCursor(self.table, int.from_bytes(cursor.read(REFERENCE_BYTES), "little"))
        return elsewhere.read(self._length(elsewhere, index))

    def _length(self, cursor: MetadataCursor, index: int) -> int:
        size = int.from_bytes(cursor.read(LENGTH_BYTES), "little")
        if size > MAX_VALUE:
            raise self._corrupt(index, "size of a value", size, f"at most {MAX_VALUE}")
        return size

    def _corrupt(self, index: int, field: str, got: object, want: object) -> CorruptSquashfsError:
        return CorruptSquashfsError(f"attribute set {index}", field, got, want, offset=self.table.start)
