"""Damaged copies of squashfs images: what fuzz_squashfs.py tries.

Where the tables of an image are stored uncompressed (``mksquashfs -noI -noId -noX``), fields of its structures are changed,
too: these mutants get past the codec.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from sifkit.packed_struct import PackedStruct
from sifkit.squashfs import schema
from sifkit.squashfs.reader import Reader
from sifkit.vfs.walk import walk

__all__ = ["MemorySource", "Sample", "mutate", "sample_of"]

INODES = (
    None,
    schema.DIRECTORY_INODE,
    schema.REGULAR_INODE,
    schema.SYMLINK_INODE,
    schema.DEVICE_INODE,
    schema.DEVICE_INODE,
    schema.IPC_INODE,
    schema.IPC_INODE,
    schema.EXTENDED_DIRECTORY_INODE,
    schema.EXTENDED_REGULAR_INODE,
    schema.SYMLINK_INODE,
    schema.EXTENDED_DEVICE_INODE,
    schema.EXTENDED_DEVICE_INODE,
    schema.EXTENDED_IPC_INODE,
    schema.EXTENDED_IPC_INODE,
)
"""Structures of inodes by their type."""
COMMON = (
    *(0, 1, 2, 3, 255, 256, 4095, 4096, 8191, 8192, 65535, 1 << 24, 1 << 31, 1 << 48, 1 << 63),
    *((1 << bits) - 1 for bits in (31, 32, 63, 64)),
)
U32_FIELD = PackedStruct("size of a block", 4, size_word="I")
SUPERBLOCK, OF_SUPERBLOCK = "superblock", 0.05
"""Kind of the superblock's place, and the share of changed fields that are its own: most of them end the reading."""
Spot = tuple[int, PackedStruct]
"""Byte of the image, and the structure there."""


class MemorySource:
    """Image in memory. Whoever leaves it did not check a number: that is a failure, not an error of the source."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, size: int, /) -> bytes:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise AssertionError(f"read of {size} bytes at {offset}, of {len(self.data)}")
        return self.data[offset : offset + size]


@dataclass(frozen=True, slots=True)
class Sample:
    """Sound image. ``spots``: its structures that are not compressed. ``numbers``: values that mean something in it.

    ``blocks``: (start, end) of its metadata blocks, with their headers.
    """

    data: bytes
    spots: dict[str, list[Spot]]
    numbers: list[int]
    blocks: list[tuple[int, int]]


def sample_of(data: bytes) -> Sample:
    """Return an image with the places of its structures."""
    reader = Reader(MemorySource(data))
    superblock = reader.superblock
    tables = sorted(
        start
        for start in (
            superblock.inode_table_start,
            superblock.directory_table_start,
            superblock.fragment_table_start,
            superblock.lookup_table_start,
            superblock.id_table_start,
            superblock.xattr_id_table_start,
        )
        if start < len(data)
    )
    spots: dict[str, list[Spot]] = {SUPERBLOCK: [(0, schema.SUPERBLOCK)]}
    numbers = [*tables, len(data), superblock.inodes, superblock.root_inode, superblock.block_size]
    blocks = [*_blocks(data, superblock.inode_table_start, superblock.directory_table_start)]
    blocks += _blocks(data, superblock.directory_table_start, reader.directories.end)
    nodes = [reader.root, *(row.node for _, row, _, _ in walk(reader, reader.root))]
    numbers += nodes[:40]
    if all(int.from_bytes(data[start : start + 2], "little") & 0x8000 for start, _ in blocks):
        _add_inodes(reader, data, nodes, spots)
        _add_directories(reader, data, nodes, spots)
        _add_attributes(reader, data, spots)
    return Sample(data, spots, numbers, blocks)


def _blocks(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    found = []
    while start < end:
        following = start + 2 + (int.from_bytes(data[start : start + 2], "little") & 0x7FFF)
        found.append((start, following))
        start = following
    return found


def _byte_of(table: int, reference: int) -> int:
    """The byte of the image at a reference in a table that is stored."""
    return table + (reference >> 16) + 2 + (reference & 0xFFFF)


def _add_inodes(reader: Reader, data: bytes, nodes: list[int], spots: dict[str, list[Spot]]) -> None:
    table = reader.superblock.inode_table_start
    for node in dict.fromkeys(nodes):
        at = _byte_of(table, node)
        structure = INODES[int.from_bytes(data[at : at + 2], "little")]
        assert structure is not None
        spots.setdefault(structure.name, []).append((at, structure))
        inode = reader.inode(node)
        if inode.index_count:
            spots.setdefault("index", []).append((at + structure.size, schema.DIR_INDEX))
        for number in range(inode.block_count):
            spots.setdefault("sizes", []).append((at + structure.size + 4 * number, U32_FIELD))


def _add_directories(reader: Reader, data: bytes, nodes: list[int], spots: dict[str, list[Spot]]) -> None:
    table = reader.superblock.directory_table_start
    for node in dict.fromkeys(nodes):
        inode = reader.inode(node)
        if inode.kind != 1 or inode.size == 3:
            continue
        at = _byte_of(table, inode.start_block << 16 | inode.offset)
        spots.setdefault("headers", []).append((at, schema.DIR_HEADER))
        for _ in range(min(5, int.from_bytes(data[at : at + 4], "little") + 1)):
            entry = at + schema.DIR_HEADER.size
            spots.setdefault("entries", []).append((entry, schema.DIR_ENTRY))
            at += schema.DIR_ENTRY.size + int.from_bytes(data[entry + 6 : entry + 8], "little") + 1


def _add_attributes(reader: Reader, data: bytes, spots: dict[str, list[Spot]]) -> None:
    found = reader.xattr_table
    if found is None:
        return
    start = reader.superblock.xattr_id_table_start
    spots["attributes"] = [(start, schema.XATTR_ID_TABLE)]
    for index in range(found.count):
        spots["attributes"].append((_byte_of(found.table.start, found.set_at(index).reference), schema.XATTR_ENTRY))
    (sets,) = struct.unpack_from("<Q", data, start + schema.XATTR_ID_TABLE.size)
    spots["attributes"] += [(sets + 2 + index * schema.XATTR_ID.size, schema.XATTR_ID) for index in range(found.count)]
    (fragments,) = struct.unpack_from("<Q", data, reader.superblock.fragment_table_start)
    spots["fragments"] = [(fragments + 2, schema.FRAGMENT_ENTRY)]


def mutate(sample: Sample, chance: random.Random) -> bytes:
    """One to four changes: fields, bits, bytes, names, pieces copied over others, the end cut."""
    raw = bytearray(sample.data)
    for _ in range(chance.randint(1, 4)):
        kind = chance.randrange(8)
        if kind < 4 and (len(sample.spots) > 1 or chance.random() < OF_SUPERBLOCK):
            _set_field(raw, sample, chance)
        elif kind in (3, 4):
            start, end = chance.choice(sample.blocks)
            raw[chance.randrange(start, end)] ^= 1 << chance.randrange(8)
        elif kind == 5:
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        elif kind == 6:
            start, end = chance.choice(sample.blocks)
            size = chance.randint(1, 40)
            one, other = (chance.randrange(start, end) for _ in range(2))
            raw[one : one + size] = raw[other : other + size].ljust(min(size, len(raw) - one), b"\0")
        else:
            _spoil_name(raw, sample, chance)
    if chance.random() < 0.03:
        del raw[chance.randrange(len(raw)) :]
    return bytes(raw)


def _set_field(raw: bytearray, sample: Sample, chance: random.Random) -> None:
    kinds = [kind for kind in sample.spots if kind != SUPERBLOCK]
    kind = chance.choice(kinds) if kinds and chance.random() > OF_SUPERBLOCK else SUPERBLOCK
    at, structure = chance.choice(sample.spots[kind])
    fields = structure.read(sample.data, at)
    name = chance.choice(structure.names)
    start = at + structure.offset_of(name)
    following = structure.names.index(name) + 1
    end = at + (structure.offset_of(structure.names[following]) if following < len(structure.names) else structure.size)
    value = chance.choice([
        chance.choice(COMMON),
        chance.choice(sample.numbers),
        fields[name] + chance.randint(-600, 600),
        fields[name] ^ 1 << chance.randrange(8 * (end - start)),
    ])  # fmt: skip
    raw[start:end] = (value & ((1 << 8 * (end - start)) - 1)).to_bytes(end - start, "little")


def _spoil_name(raw: bytearray, sample: Sample, chance: random.Random) -> None:
    entries = sample.spots.get("entries")
    if entries:
        at, structure = chance.choice(entries)
        name = at + structure.size
        raw[name : name + 2] = chance.choice([b"..", b"/x", b"\0\0", b"zz", b".\0"])
