"""Records of extended headers: keys, numbers, times and extended attributes."""

from __future__ import annotations

import base64

import pytest

from sifkit.tar.header import HeaderError
from sifkit.tar.pax import parse_decimal, parse_records, parse_signed, parse_time, parse_xattrs


def test_records() -> None:
    assert parse_records(b"7 a=bc\n14 key==\xff\n=\0x\n6 a=d\n\0\0rest") == ({b"a": b"d", b"key": b"=\xff\n=\0x"}, [])
    assert parse_records(b"") == ({}, [])
    assert parse_records(b"5 a=\n") == ({b"a": b""}, [])


def test_a_map_of_repeated_keys() -> None:
    data = b"23 GNU.sparse.offset=0\n26 GNU.sparse.numbytes=10\n26 GNU.sparse.offset=1000\n26 GNU.sparse.numbytes=24\n6 a=b\n"
    assert parse_records(data) == ({b"a": b"b"}, [(0, 10), (1000, 24)])


@pytest.mark.parametrize(
    "records",
    [
        b"9 a=b\n",
        b"a=b\n",
        b"5 ab\n",
        b"99999999 a=b\n",
        b"6 a=bcd",
        b"4 a=\n",
        b"-6 a=b\n",
        b"6a=b\n",
        b"0 a=b\n",
        b" 6 a=b\n",
        b"999999999999999 a=b\n",
    ],
)
def test_records_that_are_malformed(records: bytes) -> None:
    with pytest.raises(HeaderError, match="record at its byte 0 is malformed"):
        parse_records(records)


def test_more_records_than_are_taken() -> None:
    with pytest.raises(HeaderError, match="too many records"):
        parse_records(b"".join(b"14 k%07d=v\n" % number for number in range((1 << 16) + 1)))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (b"1700000000.123456789", (1700000000, 123456789)),
        (b"5", (5, 0)),
        (b"5.", (5, 0)),
        (b"-1.5", (-2, 500000000)),
        (b"-0.000000001", (-1, 999999999)),
        (b"-7", (-7, 0)),
        (b"9007199254740993.9999999999999", (9007199254740993, 999999999)),
        (b"1e-07", (0, 100)),
        (b"-1e-07", (-1, 999999900)),
        (b"1.5E-05", (0, 15000)),
        (b"123.456e-2", (1, 234560000)),
        (b"1e+16", (10**16, 0)),
        (b"1.7e9", (1700000000, 0)),
        (b"0.00123e5", (123, 0)),
        (b"5e-324", (0, 0)),
        (b"0e999", (0, 0)),
        (b"-2", (-2, 0)),
    ],
)
def test_times(text: bytes, time: tuple[int, int]) -> None:
    assert parse_time(text) == time


@pytest.mark.parametrize("text", [b"", b"nan", b"e3", b"1e", b"1e1.5", b"1e9999", b"+1", b"1" * 20, b".5", b"1.5 ", b"5\n"])
def test_times_that_are_none(text: bytes) -> None:
    with pytest.raises(HeaderError, match="a time is not a number"):
        parse_time(text)


def test_times_of_too_many_digits() -> None:
    for text in (b"1e19", b"1.5e308", b"1" * 19 + b"e1"):
        with pytest.raises(HeaderError, match="a time is out of range"):
            parse_time(text)


def test_signed_numbers() -> None:
    assert [parse_signed(text, "an owner") for text in (b"-2", b"7", b"-0")] == [-2, 7, 0]
    for text in (b"-", b"--2", b"+2", b"-1e3"):
        with pytest.raises(HeaderError, match=r"^an owner is not a number: "):
            parse_signed(text, "an owner")


def test_decimal_numbers() -> None:
    assert parse_decimal(b"00012", "a size") == 12
    for text in (b"", b"-1", b"1e3", b"1_0", b"1" * 21):
        with pytest.raises(HeaderError, match=r"^a size is not a number: "):
            parse_decimal(text, "a size")


def test_attributes_are_binary() -> None:
    value = b"\0\xff=\n" * 5
    records = {
        b"path": b"x",
        b"SCHILY.xattr.user.a": value,
        b"SCHILY.xattr.user.100%25%3D": b"v",
        b"LIBARCHIVE.xattr.user.b%3D": base64.b64encode(value).rstrip(b"="),
        b"LIBARCHIVE.xattr.user.a": b"AAAA",
        b"RHT.security.selinux": b"label",
        b"SCHILY.acl.access": b"user::rw-",
    }
    want = {b"user.a": value, b"user.100%=": b"v", b"user.b=": value, b"security.selinux": b"label"}
    assert parse_xattrs(records) == parse_xattrs(dict(reversed(records.items()))) == want
    assert parse_xattrs({b"RHT.security.selinux": b"1", b"SCHILY.xattr.security.selinux": b"2"}) == {b"security.selinux": b"2"}
    empty = {b"SCHILY.xattr.user.a": b"", b"LIBARCHIVE.xattr.user.b": b""}
    assert parse_xattrs(empty) == {b"user.a": b"", b"user.b": b""}
    with pytest.raises(HeaderError, match="not base64"):
        parse_xattrs({b"LIBARCHIVE.xattr.user.b": b"!!"})
