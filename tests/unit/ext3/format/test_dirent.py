from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext3.errors import CorruptError

from ....support.directory_blocks import parse_block
from ....support.tiny_image import dirents


def parse(block: bytes, inodes: int = 100, *, logical: int = 1) -> list[tuple[bytes, int, int]]:
    found = parse_block(block, logical, inodes=inodes, where="inode 2")
    return [(entry.name, entry.ino, entry.file_type) for entry in found]


def test_unused_records_are_passed() -> None:
    block = dirents([(b"here", 13, 2), (b"gone", 0, 1), (b"file", 12, 1)])
    assert parse(block) == [(b"here", 13, 2), (b"file", 12, 1)]
    assert parse(struct.pack("<IHBB", 0, 1024, 0, 0).ljust(1024, b"\0")) == []


def test_where_records_lie() -> None:
    found = parse_block(dirents([(b"abcde", 7, 1), (b"x", 8, 2)]), 1, inodes=8)
    assert [(entry.offset, entry.rec_len) for entry in found] == [(0, 16), (16, 1008)]


def test_an_index_node_looks_unused() -> None:
    root = dirents([(b".", 2, 2), (b"..", 2, 2)])
    root = root[:24] + b"\xff" * 1000
    assert parse(root, logical=0) == [(b".", 2, 2), (b"..", 2, 2)]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (struct.pack("<IHBB", 12, 0, 1, 1), "rec_len"),
        (struct.pack("<IHBB", 12, 8, 1, 1), "rec_len"),
        (struct.pack("<IHBB", 12, 13, 1, 1), "rec_len"),
        (struct.pack("<IHBB", 12, 1028, 1, 1), "rec_len"),
        (struct.pack("<IHBB", 0, 0, 0, 0), "rec_len"),
        (struct.pack("<IHBB", 12, 1020, 1, 1) + b"x", "record"),
        (struct.pack("<IHBB", 12, 12, 5, 1) + b"xxxx", "name_len"),
        (struct.pack("<IHBB", 101, 1024, 1, 1) + b"x", "inode"),
        (struct.pack("<IHBB", 12, 1024, 0, 1), "name_len"),
        (struct.pack("<IHBB", 12, 1024, 3, 1) + b"a/b", "name"),
        (struct.pack("<IHBB", 12, 1024, 3, 1) + b"a\0b", "name"),
    ],
)
def test_damage_is_named(record: bytes, field: str) -> None:
    with pytest.raises(CorruptError) as caught:
        parse(record.ljust(1024, b"\0"))
    assert caught.value.field == field
    assert caught.value.where.startswith("inode 2, block 1 at byte ")


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes(noise: bytes) -> None:
    try:
        found = parse(noise)
    except CorruptError:
        return
    assert len(found) <= len(noise) // 12
