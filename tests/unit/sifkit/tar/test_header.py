"""Header blocks: fields, numbers and checksums of every dialect."""

from __future__ import annotations

import tarfile

import pytest

from sifkit.tar.header import BLOCK, FIELDS, HeaderError, check_header, is_header, parse_number, unpack_header
from tests.support.tar_samples import header


def test_the_fields_are_those_of_posix() -> None:
    info = tarfile.TarInfo("some/name")
    info.size, info.mtime, info.mode, info.uid, info.gid = 5, 6, 0o640, 7, 8
    info.uname, info.gname, info.linkname, info.type = "user", "group", "target", tarfile.SYMTYPE
    fields = unpack_header(info.tobuf(tarfile.USTAR_FORMAT))
    assert [octets.rstrip(b"\0") for octets in (fields.name, fields.linkname, fields.uname, fields.gname)] == [
        b"some/name",
        b"target",
        b"user",
        b"group",
    ]
    numbers = (fields.mode, fields.uid, fields.gid, fields.size, fields.mtime)
    assert [parse_number(octets, "x") for octets in numbers] == [0o640, 7, 8, 5, 6]
    assert (fields.typeflag, fields.magic) == (b"2", b"ustar\x0000")
    assert tuple(FIELDS) == fields._fields
    assert (FIELDS["typeflag"], FIELDS["prefix"], FIELDS["pad"].stop) == (slice(156, 157), slice(345, 500), BLOCK)


@pytest.mark.parametrize(
    ("octets", "number"),
    [
        (b"0000644\0", 0o644),
        (b" 644 \0\0\0", 0o644),
        (b"       \0", 0),
        (bytes(8), 0),
        (b"777777777777", 8**12 - 1),
        (b"17\x00garbag", 0o17),
        (b"\x80" + bytes(6) + b"\x05", 5),
        (b"\xff" * 8, -1),
        (b"\xff" * 7 + b"\xfe", -2),
        (b"\xbf" + b"\xff" * 7, (1 << 62) - 1),
    ],
)
def test_numbers(octets: bytes, number: int) -> None:
    assert parse_number(octets, "a size") == number


@pytest.mark.parametrize("octets", [b"0x10", b"-1", b"1_0", b"9", b"18", b"1 2", b"\x01"])
def test_numbers_that_are_none(octets: bytes) -> None:
    with pytest.raises(HeaderError, match=r"^a size is not a number: ") as caught:
        parse_number(octets, "a size")
    assert caught.value.member is None


def test_checksums() -> None:
    block = header(b"name")
    check_header(block)
    assert is_header(block) and is_header(bytes(512))
    wrong = b"\xff" + block[1:]
    with pytest.raises(HeaderError, match="checksum is wrong"):
        check_header(wrong)
    assert not is_header(wrong)
    assert not is_header(b"x" * 512)


def test_checksums_of_signed_characters() -> None:
    block = bytearray(header(b"\xe4\xf6\xfc"))
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32 - 3 * 256)
    check_header(bytes(block))


def test_paths() -> None:
    assert unpack_header(header(b"leaf", prefix=b"some/where")).path() == b"some/where/leaf"
    assert unpack_header(header(b"leaf\0rest")).path() == b"leaf"
    assert unpack_header(header(b"leaf", prefix=b"old", magic=b"")).path() == b"leaf"
    assert unpack_header(header(b"leaf", prefix=b"00000000005", magic=b"ustar  \0")).path() == b"leaf"
    whole = b"p" * 155
    assert unpack_header(header(b"leaf", prefix=whole)).path() == whole + b"/leaf"
    star = b"p" * 131 + b"00000000005 00000000006"
    assert unpack_header(header(b"leaf", prefix=star, star=b"tar\0")).path() == b"p" * 131 + b"/leaf"


def test_times_of_gnu() -> None:
    times = b"00000000005\x0000000000006\0"
    assert unpack_header(header(b"f", magic=b"ustar  \0", prefix=times)).gnu_times() == (5, 6)
    assert unpack_header(header(b"f", prefix=times)).gnu_times() is None
    assert unpack_header(header(b"f", magic=b"ustar  \0")).gnu_times() is None
