"""Attribute tables made by hand: values in line and elsewhere, and what is bounded."""

from __future__ import annotations

import struct

import pytest

from sifkit.squashfs import xattr_table
from sifkit.squashfs.errors import CorruptSquashfsError
from sifkit.squashfs.schema import XATTR_ENTRY, XATTR_ID, XATTR_ID_TABLE
from sifkit.squashfs.superblock import read_superblock
from sifkit.squashfs.xattr_table import XattrTable
from tests.support.squashfs_tables import FIXTURES, metadata_blocks, stored_stream
from tools.squashfs_mutants import MemorySource

SUPERBLOCK = read_superblock(MemorySource((FIXTURES / "options.sqfs").read_bytes()))._replace(
    inode_table_start=1,
    directory_table_start=2,
    id_table_start=3,
)
ELSEWHERE = 0x100


def entry(kind: int, name: bytes, value: bytes) -> bytes:
    return XATTR_ENTRY.packer.pack(kind, len(name)) + name + struct.pack("<I", len(value)) + value


def reference(kind: int, name: bytes, at: int) -> bytes:
    return entry(kind | ELSEWHERE, name, struct.pack("<Q", at))


def table(stream: bytes, *sets: tuple[int, int], start: int | None = None, ids: int | None = None) -> XattrTable:
    """A table with this content, and sets of (reference, number of attributes)."""
    image = bytes(96) + stored_stream(stream)
    pointer = len(image)
    image += stored_stream(b"".join(XATTR_ID.packer.pack(at, count, 100) for at, count in sets))
    header = len(image)
    image += XATTR_ID_TABLE.packer.pack(96 if start is None else start, len(sets) if ids is None else ids, 0)
    image += struct.pack("<Q", pointer)
    superblock = SUPERBLOCK._replace(xattr_id_table_start=header, bytes_used=len(image))
    return XattrTable(metadata_blocks(image), superblock)


def test_values_in_line_and_elsewhere() -> None:
    first = entry(0, b"long", b"v" * 300)
    second = entry(1, b"note", b"") + reference(2, b"same", 8) + entry(0, b"own", b"o")
    found = table(first + second, (0, 1), (len(first), 3))
    assert found.count == 2
    assert found.read(0) == {b"user.long": b"v" * 300}
    assert found.read(1) == {b"trusted.note": b"", b"security.same": b"v" * 300, b"user.own": b"o"}
    assert found.set_at(1) == (len(first), 3, 100)


def test_a_set_across_blocks() -> None:
    entries = [entry(0, b"n%d" % number, bytes([number]) * 5000) for number in range(10)]
    assert table(b"".join(entries), (0, 10)).read(0) == {b"user.n%d" % number: bytes([number]) * 5000 for number in range(10)}


def test_types_of_later_versions_are_ignored() -> None:
    stream = entry(3, b"a", b"1") + entry(0x200, b"b", b"2") + entry(0, b"c", b"3")
    assert table(stream, (0, 3)).read(0) == {b"user.c": b"3"}


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (entry(0, b"a", b"1") * 2, "name is 'user.a'"),
        (entry(0, b"", b"1") + entry(0, b"b", b"2"), "name is 'user.'"),
        (entry(0, b"a\0b", b"1") + entry(0, b"b", b"2"), "want another one, without NUL"),
        (entry(0, b"a", b"1"), "before the end is 0"),
        (entry(0, b"a", b"1")[:-1], "before the end is 0, want at least 1"),
        (XATTR_ENTRY.packer.pack(0, 65535) + b"short", "before the end is 5, want at least 65535"),
        (entry(0, b"a", b"1")[:5] + b"\xff\xff\xff\xff", "size of a value is 4294967295, want at most 65536"),
        (entry(ELSEWHERE, b"a", b"1234567"), "size of a reference is 7, want 8"),
        (reference(0, b"a", 1 << 40), "before the end is 0"),
        (reference(0, b"a", (1 << 64) - 1), "before the end is 0"),
    ],
)
def test_what_cannot_be(stream: bytes, text: str) -> None:
    with pytest.raises(CorruptSquashfsError, match=text):
        table(stream, (0, 2)).read(0)


def test_what_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names as the system's calls bound them, and values that share their bytes."""
    names = b"".join(entry(0, b"n" * 250 + b"%d" % number, b"") for number in range(300))
    with pytest.raises(CorruptSquashfsError, match="65536 bytes of names"):
        table(names, (0, 300)).read(0)
    monkeypatch.setattr(xattr_table, "MAX_VALUES", 1 << 20)
    value = entry(0, b"value", b"v" * 65536)
    shared = b"".join(reference(0, b"%d" % number, 9) for number in range(20))
    found = table(
        value + shared, (0, 1), (8194 * 8 << 16 | len(value) - 8 * 8192, 20), (8194 * 8 << 16 | len(value) - 8 * 8192, 16)
    )
    assert len(found.read(2)) == 16
    with pytest.raises(CorruptSquashfsError, match="bytes of names, 1048576 of values"):
        found.read(1)


def test_tables_that_lead_elsewhere() -> None:
    stream = entry(0, b"a", b"1")
    for arguments in ({"start": 1 << 40}, {"start": (1 << 64) - 1}, {"ids": 0xFFFFFFFF}, {"ids": 513}):
        with pytest.raises(CorruptSquashfsError):
            table(stream, (0, 1), **arguments)
    found = table(stream, (0, 1), (1 << 50, 1), (0, 1 << 31))
    for index in (1, 2, 3, 0xFFFFFFFF):
        with pytest.raises(CorruptSquashfsError):
            found.read(index)
