"""The directory hash against values of debugfs (dx_hash), and against the scalar algorithm written out plainly."""

from __future__ import annotations

import struct
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3.format.dirhash import DirHash
from ext3.format.dirhash_columns import MIN_COLUMN_NAMES, hash_columns

SEED = struct.unpack("<4I", uuid.UUID("01234567-89ab-cdef-0123-456789abcdef").bytes)

LONG = b"long-" * 50 + b"abcde"
VECTORS = [
    (b"a", 0x35DC0CC4),
    (b"lost+found", 0x663BDC72),
    (b"file_000123", 0xA28153C4),
    (b"this_is_a_name_longer_than_thirty_two_bytes.txt", 0x0E73DCD2),
    ("café".encode(), 0xD6B4AD14),
]


def half_md4(names: list[bytes], seed: tuple[int, ...], *, signed: bool = True) -> list[int]:
    """The hashes of some names, in columns."""
    found = hash_columns(DirHash(1, seed, signed=signed), names * MIN_COLUMN_NAMES)
    assert found.dtype == np.uint32
    hashes: list[int] = found.tolist()
    assert hashes == hashes[: len(names)] * MIN_COLUMN_NAMES
    return hashes[: len(names)]


@pytest.mark.parametrize(("name", "value"), VECTORS)
def test_signed_vectors(name: bytes, value: int) -> None:
    assert half_md4([name], SEED) == [value]


def test_unsigned_differs_for_high_bytes_only() -> None:
    assert half_md4(["café".encode()], SEED, signed=False) == [0x3349CEA2]
    assert half_md4([b"a"], SEED, signed=False) == [0x35DC0CC4]


def test_zero_seed_starts_from_the_md4_constants() -> None:
    assert half_md4([b"a"], (0, 0, 0, 0)) == [0xD5FA7D7A]
    assert DirHash(1, (0, 0, 0, 0), signed=True)(b"a") == 0xD5FA7D7A


@pytest.mark.parametrize(
    ("version", "signed", "name", "value"),
    [
        (0, True, b"lost+found", 0x5E2ABA24),
        (0, True, b"caf\xc3\xa9", 0x96CA5A2C),
        (0, False, b"caf\xc3\xa9", 0x6DDE4230),
        (0, True, b"this_is_a_name_longer_than_thirty_two_bytes.txt", 0xF971F9AE),
        (0, True, LONG, 0xC3111700),
        (1, True, b"this_is_a_name_longer_than_thirty_two_bytes.txt", 0x0E73DCD2),
        (1, True, b"caf\xc3\xa9", 0xD6B4AD14),
        (1, False, b"caf\xc3\xa9", 0x3349CEA2),
        (1, True, LONG, 0x4C5E93D0),
        (2, True, b"lost+found", 0x2DBF9E80),
        (2, True, b"this_is_a_name_longer_than_thirty_two_bytes.txt", 0x9A3DF28C),
        (2, True, b"caf\xc3\xa9", 0x105842EA),
        (2, False, b"caf\xc3\xa9", 0x6621F032),
        (2, True, LONG, 0x27B6D054),
    ],
)
def test_vectors(version: int, signed: bool, name: bytes, value: int) -> None:
    hashed = DirHash(version, SEED, signed=signed)
    assert hashed(name) == value
    assert hash_columns(hashed, [name]).tolist() == [value]
    assert hash_columns(hashed, [name, b"other"] * MIN_COLUMN_NAMES).tolist()[::2] == [value] * MIN_COLUMN_NAMES


def test_unknown_version() -> None:
    with pytest.raises(ValueError, match="6"):
        DirHash(6, SEED, signed=True)


def test_no_names() -> None:
    assert hash_columns(DirHash(1, SEED, signed=True), []).tolist() == []


def _plain(name: bytes, seed: tuple[int, ...]) -> int:
    """The same hash, one word at a time."""

    def turn(value: int, count: int) -> int:
        value &= 0xFFFFFFFF
        return (value << count | value >> (32 - count)) & 0xFFFFFFFF

    state = list(seed)
    left = name
    while left:
        pad = len(left) & 0xFF
        pad *= 0x01010101
        words, value = [], pad
        for number, byte in enumerate(left[:32]):
            value = ((byte - 256 if byte > 127 else byte) + (value << 8)) & 0xFFFFFFFF
            if number % 4 == 3:
                words.append(value)
                value = pad
        words.append(value)
        words = (words + [pad] * 8)[:8] if len(left) < 32 else words[:8]
        a, b, c, d = state
        for which, (constant, turns, order) in enumerate(
            [
                (0, (3, 7, 11, 19), range(8)),
                (0x5A827999, (3, 5, 9, 13), (1, 3, 5, 7, 0, 2, 4, 6)),
                (0x6ED9EBA1, (3, 9, 11, 15), (3, 7, 2, 6, 1, 5, 0, 4)),
            ]
        ):
            for step, word in enumerate(order):
                mixed = (d ^ (b & (c ^ d)), (b & c) + ((b ^ c) & d), b ^ c ^ d)[which]
                a, b, c, d = d, turn(a + mixed + words[word] + constant, turns[step % 4]), b, c
        state = [(old + new) & 0xFFFFFFFF for old, new in zip(state, (a, b, c, d), strict=True)]
        left = left[32:]
    return state[1] & ~1


@given(st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=20))
def test_many_at_once_equal_one_by_one(names: list[bytes]) -> None:
    assert half_md4(names, SEED) == [_plain(name, SEED) for name in names]
