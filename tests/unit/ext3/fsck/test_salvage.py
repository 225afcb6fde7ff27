"""Salvage of damaged directory records."""

from __future__ import annotations

import random
import struct

import pytest

from ext3.errors import CorruptError
from ext3.fsck.salvage import is_damaged, salvage_record
from tests.support.directory_blocks import parse_block
from tests.support.tiny_image import dirents

SIZE = 1024
INODES = 100


def block_of(*names: bytes) -> bytearray:
    return bytearray(dirents([(name, 20 + number, 1) for number, name in enumerate(names)], SIZE))


def salvaged(data: bytearray, *, first_may_take: bool = True) -> list[bytes]:
    """The names that are left when all is salvaged."""
    offset, before = 0, -1
    for _ in range(10 * SIZE):
        if offset >= SIZE:
            break
        if is_damaged(data, offset):
            offset = salvage_record(data, offset, before if first_may_take else -1, inodes=INODES)
            continue
        before = offset
        offset += struct.unpack_from("<H", data, offset + 4)[0]
    assert offset == SIZE
    return [record.name for record in parse_block(bytes(data), 1, inodes=INODES)]


@pytest.mark.parametrize("rec_len", [0, 4, 8, 11, 13, 14, 1016, 0xFFFC])
def test_lengths_that_no_record_has(rec_len: int) -> None:
    data = block_of(b"aa", b"bb", b"cc")
    struct.pack_into("<H", data, 12 + 4, rec_len)
    assert is_damaged(data, 12)


@pytest.mark.parametrize("rec_len", [12, 24, 1012])
def test_lengths_that_a_record_may_have(rec_len: int) -> None:
    data = block_of(b"aa", b"bb", b"cc")
    struct.pack_into("<H", data, 12 + 4, rec_len)
    assert not is_damaged(data, 12)


def test_a_record_shorter_than_its_name_is_damaged() -> None:
    data = block_of(b"aa", b"bb", b"cc")
    data[12 + 6] = 4
    assert not is_damaged(data, 12)
    data[12 + 6] = 5
    assert is_damaged(data, 12)


def test_a_head_of_eight_bytes_is_taken_out() -> None:
    data = block_of(b"aa", b"bb", b"cc")
    data[12:] = struct.pack("<IHBB", 21, 8, 0, 1) + data[12:-8]
    struct.pack_into("<H", data, 12 + 8 + 12 + 4, SIZE - 32)
    assert salvaged(data) == [b"aa", b"bb", b"cc"]


def test_the_last_record_is_cut_at_the_end_of_the_block() -> None:
    data = block_of(b"aa", b"bb", b"cc")
    struct.pack_into("<H", data, 24 + 4, SIZE)
    assert salvaged(data) == [b"aa", b"bb", b"cc"]


@pytest.mark.parametrize(
    ("ino", "name"), [(INODES + 1, b"cc"), (22, b"c\0")], ids=["an inode that does not exist", "a name with a NUL"]
)
def test_a_record_that_overruns_and_is_no_entry_is_dropped(ino: int, name: bytes) -> None:
    data = block_of(b"aa", b"bb", b"cc")
    struct.pack_into("<IHBB2s", data, 24, ino, SIZE, 2, 1, name)
    assert salvaged(data) == [b"aa", b"bb"]


def test_a_record_of_a_possible_length_goes_to_the_one_before() -> None:
    data = block_of(b"aa", b"bb", b"cc")
    data[12 + 6] = 200
    assert salvaged(data) == [b"aa", b"cc"]


def test_otherwise_the_rest_of_the_block_goes_to_the_one_before() -> None:
    data = block_of(b"aa", b"bb", b"cc")
    struct.pack_into("<H", data, 12 + 4, 13)
    assert salvaged(data) == [b"aa"]


def test_without_one_before_the_rest_is_an_unused_record() -> None:
    data = block_of(b"aa", b"bb", b"cc")
    struct.pack_into("<H", data, 4, 13)
    assert salvaged(data) == []
    assert struct.unpack_from("<IHBB", data) == (0, SIZE, 0, 0)


@pytest.mark.parametrize("left", [4, 8])
def test_an_end_too_short_for_a_record_goes_to_the_one_before(left: int) -> None:
    data = block_of(b"aa", b"bb", b"cc")
    struct.pack_into("<H", data, 24 + 4, SIZE - 24 - left)
    assert salvaged(data) == [b"aa", b"bb", b"cc"]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_in_a_block_its_records_tile_it_afterwards(seed: int) -> None:
    generator = random.Random(seed)
    data = bytearray(generator.randbytes(SIZE)) if seed % 2 else block_of(*(b"name-%d" % number for number in range(40)))
    for _ in range(0 if seed % 2 else 6):
        at = generator.randrange(0, SIZE, 4)
        data[at : at + 4] = generator.randbytes(4)
    offset, before, ends = 0, -1, []
    while offset < SIZE:
        if is_damaged(data, offset):
            offset = salvage_record(data, offset, before, inodes=INODES)
            continue
        before = offset
        offset += struct.unpack_from("<H", data, offset + 4)[0]
        ends.append(offset)
    assert offset == SIZE
    at = 0
    while at < SIZE:
        assert not is_damaged(data, at)
        at += struct.unpack_from("<H", data, at + 4)[0]
    assert at == SIZE


def test_a_salvaged_block_passes_the_judge_of_readers() -> None:
    data = block_of(b"aa", b"bb", b"cc")
    struct.pack_into("<H", data, 12 + 4, 0)
    with pytest.raises(CorruptError):
        parse_block(bytes(data), 1, inodes=INODES)
    assert salvaged(data) == [b"aa"]
