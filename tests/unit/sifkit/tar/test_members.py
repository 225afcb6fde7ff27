"""Members of archives in every dialect, and headers that cannot be."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG

import pytest

from sifkit.tar.errors import CorruptHeaderError, TruncatedArchiveError
from sifkit.tar.members import HARD_LINK, SKIPPED
from tests.support.read_tar import read_tar, tar_error
from tests.support.tar_samples import END, PACKERS, SAMPLE, Pipe, directory, file, hardlink, header, padded, pax, symlink


def test_attributes_of_every_kind() -> None:
    archive = (
        file(b"f", b"1", uid=b"0210560", gid=b"\x80\0\0\0\xb2\xd0\x5e\0", mode=b"0104755", mtime=b"14524770400")
        + header(b"c", kind=b"3", major=b"0000005", minor=b"1111700")
        + header(b"b", kind=b"4", major=b"0000403", minor=b"0000007")
        + header(b"p", kind=b"6")
        + header(b"contiguous", kind=b"7", size=b"00000000003")
        + padded(b"abc")
        + symlink(b"l", b"../else")
        + hardlink(b"h", b"f")
        + header(b"old/", kind=b"\0", magic=b"")
        + directory(b"sticky", mode=b"0001777")
    )
    with read_tar(archive + END) as got:
        f = got.member(b"f")
        assert (f.kind, f.mode, f.uid, f.gid, f.size) == (S_IFREG, 0o4755, 70000, 3000000000, 1)
        assert f.times == (1700000000,) * 3 + (0,) * 3
        kinds = {member.name: member.kind for member in got.members}
        assert (kinds[b"c"], kinds[b"b"], kinds[b"p"]) == (S_IFCHR, S_IFBLK, S_IFIFO)
        assert got.member(b"c").device == (5, 299968) and got.member(b"b").device == (259, 7)
        assert (kinds[b"l"], got.member(b"l").target) == (S_IFLNK, b"../else")
        assert (kinds[b"h"], got.member(b"h").target) == (HARD_LINK, b"f")
        assert got.data(b"contiguous") == b"abc"
        assert kinds[b"old/"] == S_IFDIR
        assert (kinds[b"sticky"], got.member(b"sticky").mode) == (S_IFDIR, 0o1777)
        assert [member.offset for member in got.members][:3] == [0, 1024, 1536]


def test_times_are_taken_from_the_text() -> None:
    archive = (
        file(b"a", records=[(b"mtime", b"1700000000.123456789"), (b"atime", b"-1.5"), (b"ctime", b"5")])
        + file(b"b", records=[(b"mtime", b"-0.000000001")])
        + file(b"c", records=[(b"mtime", b"9007199254740993.9999999999999")])
        + file(b"d", mtime=b"\xff" * 11 + b"\xfe")
    )
    with read_tar(archive + END) as got:
        assert got.member(b"a").times == (-2, 1700000000, 5, 500000000, 123456789, 0)
        assert got.member(b"b").times == (-1,) * 3 + (999999999,) * 3
        assert got.member(b"c").times == (9007199254740993,) * 3 + (999999999,) * 3
        assert got.member(b"d").times == (-2,) * 3 + (0,) * 3


def test_gnu_times_are_no_prefix() -> None:
    gnu = header(b"f", magic=b"ustar  \0", prefix=b"00000000005\x0000000000006\0", mtime=b"00000000007")
    with read_tar(gnu + file(b"leaf", prefix=b"some/where") + END) as got:
        assert got.member(b"f").times == (5, 7, 6, 0, 0, 0)
        assert got.members[1].name == b"some/where/leaf"


def test_long_names_of_both_dialects() -> None:
    long = b"x" * 200 + b"/" + b"\xe9\n" * 100
    gnu = header(b"././@LongLink", kind=b"L", size=b"%011o" % (len(long) + 1)) + padded(long + b"\0") + file(b"cut")
    target = b"t" * 3000
    link = (
        header(b"././@LongLink", kind=b"K", size=b"%011o" % (len(target) + 1)) + padded(target + b"\0") + symlink(b"link", b"t")
    )
    renamed = file(b"cut", records=[(b"path", b"y/" + b"\xff" * 255)])
    with read_tar(gnu + link + renamed + END) as got:
        assert [member.name for member in got.members] == [long, b"link", b"y/" + b"\xff" * 255]
        assert got.member(b"link").target == target


def test_names_are_as_the_archive_has_them() -> None:
    names = [b"../x", b"/abs", b"./a//b/.", b".wh.gone", b".wh..wh..opq", b"a\xff\n", b""]
    with read_tar(b"".join(file(name) for name in names) + END) as got:
        assert [member.name for member in got.members] == names
        assert {member.kind for member in got.members} == {S_IFREG}


def test_global_records_hold_until_overridden() -> None:
    archive = pax([(b"uid", b"5"), (b"comment", b"c")], b"g") + file(b"a") + file(b"b", records=[(b"uid", b"6")]) + file(b"c")
    with read_tar(archive + END) as got:
        assert [member.uid for member in got.members] == [5, 6, 5]
    many = b"".join(pax([(b"k%d" % number, b"v")], b"g") for number in range(33))
    assert "more than 32 global records" in str(tar_error(many + file(b"f") + END))


def test_members_that_are_no_files() -> None:
    label = header(b"label", kind=b"V")
    dump = header(b"dump", kind=b"D", size=b"%011o" % 7) + padded(b"Yf\0Dd\0\0")
    with read_tar(label + dump + file(b"f", b"1") + END) as got:
        assert [(member.name, member.kind) for member in got.members] == [
            (b"label", SKIPPED),
            (b"dump", S_IFDIR),
            (b"f", S_IFREG),
        ]
        assert got.member(b"label").typeflag == b"V" and got.member(b"dump").size == 0
        assert got.data(b"f") == b"1"
    error = tar_error(header(b"part", kind=b"M") + END)
    assert isinstance(error, CorruptHeaderError) and error.member == b"part" and "part: members of type M" in str(error)
    assert "(no name): members of type M" in str(tar_error(header(b"", kind=b"M") + END))


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"\x80\0\0\0\x0d\xe0\xb6\xb3\xa7\x64\0\0",
        b"77777777777",
        b"9",
        b"0x10",
        b"-1",
        b"1_0",
    ],
)
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K", b"S", b"V"])
@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_sizes_that_cannot_be(size: bytes, kind: bytes, how: str) -> None:
    error = tar_error(PACKERS[how](file(b"ok") + header(b"f", size=size, kind=kind) + END))
    assert isinstance(error, CorruptHeaderError | TruncatedArchiveError)
    assert error.compression == ("" if how == "plain" else how)
    if isinstance(error, CorruptHeaderError):
        assert error.offset == 512


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
def test_extended_headers_that_are_malformed(records: bytes) -> None:
    error = tar_error(header(b"pax", kind=b"x", size=b"%011o" % len(records)) + padded(records) + file(b"f") + END)
    assert isinstance(error, CorruptHeaderError) and error.offset == 0
    assert "record" in str(error) or "ends where" in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"size", b"-1"),
        (b"size", b"1e3"),
        (b"uid", b"4294967296"),
        (b"gid", b"x"),
        (b"mtime", b"nan"),
        (b"mtime", b"1" * 30),
    ],
)
def test_records_that_cannot_be(key: bytes, value: bytes) -> None:
    assert isinstance(tar_error(file(b"f", records=[(key, value)]) + END), CorruptHeaderError)


def test_a_record_without_a_value_is_none() -> None:
    with read_tar(file(b"f", mtime=b"00000000007", records=[(b"atime", b""), (b"path", b"")]) + END) as got:
        assert got.member(b"f").times[0] == 7 and got.member(b"f").records == {}


@pytest.mark.parametrize("key", [b"SCHILY.xattr.user.empty", b"LIBARCHIVE.xattr.user.empty"])
def test_an_attribute_without_a_value_has_an_empty_one(key: bytes) -> None:
    """GNU tar (SCHILY) and bsdtar (both) restore it, also over a global record with a value."""
    archive = file(b"f", records=[(key, b""), (b"comment", b"")])
    with read_tar(archive + pax([(key, b"dg")], b"g") + file(b"g", records=[(key, b"")]) + file(b"h") + END) as got:
        assert got.member(b"f").records == {key: b""}
        assert got.member(b"g").records == {key: b""}
        assert got.member(b"h").records == {key: b"dg"}


def test_an_empty_value_deletes_the_fields_of_the_header() -> None:
    """POSIX, and bsdtar: owners and mtime are 0 then; a name and a size stay those of the header, as in bsdtar and Go."""
    records = [(b"uid", b""), (b"gid", b""), (b"mtime", b""), (b"path", b""), (b"size", b"")]
    fields = {"uid": b"0000007", "gid": b"0000010", "mtime": b"00000001750"}
    archive = pax([(b"uid", b"55")], b"g") + file(b"f", b"abc", records=records, **fields) + file(b"g", **fields)
    with read_tar(archive + END) as got:
        f, g = got.members
        assert (f.uid, f.gid, f.times, f.records) == (0, 0, (0,) * 6, {})
        assert got.data(b"f") == b"abc"
        assert (g.uid, g.gid, g.times) == (55, 8, (1000,) * 3 + (0,) * 3)


def test_a_type_that_is_not_known_is_a_regular_file() -> None:
    """POSIX; GNU tar: "Unknown file type 'Z', extracted as normal file"; bsdtar says nothing."""
    archive = header(b"odd", kind=b"Z", size=b"00000000003") + padded(b"abc") + file(b"next", b"n")
    with read_tar(archive + END) as got:
        odd, following = got.members
        assert (odd.kind, odd.typeflag, odd.has_known_type) == (S_IFREG, b"Z", False)
        assert (got.data(b"odd"), got.data(b"next"), following.has_known_type) == (b"abc", b"n", True)


def test_numbers_as_other_programs_write_them() -> None:
    """Python writes times as repr(float); -2 is the owner nobody of macOS, which its tar writes so."""
    archive = (
        file(b"a", records=[(b"mtime", b"1e-07"), (b"atime", b"1.5e-05"), (b"ctime", b"1e+16")])
        + file(b"b", records=[(b"uid", b"-2"), (b"gid", b"-2"), (b"mtime", b"-2")])
        + file(b"c", uid=b"\xff" * 7 + b"\xfe")
    )
    with read_tar(archive + END) as got:
        assert got.member(b"a").times == (0, 0, 10**16, 15000, 100, 0)
        assert got.member(b"b").uid == got.member(b"b").gid == got.member(b"c").uid == 2**32 - 2
        assert got.member(b"b").times == (-2,) * 3 + (0,) * 3


def test_python_writes_small_times_with_an_exponent() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("f")
        entry.mtime = 1e-07
        archive.addfile(entry)
    assert b"mtime=1e-07" in buffer.getvalue()
    with read_tar(buffer.getvalue()) as got:
        assert got.member(b"f").times == (0, 0, 0, 100, 100, 100)


@pytest.mark.parametrize(
    "seconds", [b"\x80\x7f" + b"\xff" * 10, b"\x80\0\0\0\x10" + bytes(7), b"\xff\xff\xff\xff\xf0" + bytes(7)]
)
def test_times_that_cannot_be(seconds: bytes) -> None:
    assert "a time is out of range" in str(tar_error(file(b"f", mtime=seconds) + END))


def test_text_of_errors_is_bounded() -> None:
    error = tar_error(file(b"f", records=[(b"path", b"n" * 100_000), (b"size", b"%d" % (1 << 62))]) + END)
    assert error.member == b"n" * 100_000 and "a size of" in str(error)


def test_the_standard_library_is_read(tmp_path: Path) -> None:
    for style in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{style}.tar"
        with tarfile.open(path, "w", format=style) as archive:
            archive.add(Path(__file__), "tests/here.py")
        with read_tar(path) as got:
            assert got.data(b"tests/here.py") == Path(__file__).read_bytes()
            assert got.members[0].uid == Path(__file__).stat().st_uid


def test_every_cut_of_an_archive_is_an_error() -> None:
    archive = pax([(b"path", b"x" * 300)]) + header(b"cut") + SAMPLE
    for end in range(512, len(archive) - len(END), 37):
        for source in (archive[:end], io.BufferedReader(Pipe(archive[:end]))):
            assert isinstance(tar_error(source), TruncatedArchiveError)
