"""Maps of sparse files, in all formats that GNU tar wrote, and maps that lie."""

from __future__ import annotations

import pytest

from sifkit.tar.errors import SparseMapError, TruncatedArchiveError
from sifkit.tar.header import HeaderError
from sifkit.tar.sparse import stored_ranges
from tests.support.read_tar import read_tar, tar_error
from tests.support.tar_samples import END, PACKERS, SPARSE_DATA, SPARSE_MEMBERS, file, header, padded


@pytest.mark.parametrize("how", ["plain", "gzip"])
@pytest.mark.parametrize("member", SPARSE_MEMBERS.values(), ids=SPARSE_MEMBERS)
def test_sparse_files(member: bytes, how: str) -> None:
    with read_tar(PACKERS[how](member + file(b"next", b"n") + END)) as got:
        assert got.data(b"s") == SPARSE_DATA
        assert got.data(b"next") == b"n"
        assert [(logical, length) for logical, length, _ in got.member(b"s").ranges or []] == [(0, 10), (1000, 24)]
        assert got.member(b"s").size == 1500


def test_an_old_map_goes_on_in_further_blocks() -> None:
    parts = [(100 * number, 1) for number in range(30)]
    entries = [b"%011o\0%011o\0" % part for part in parts]
    member = (
        header(
            b"s",
            kind=b"S",
            magic=b"ustar  \0",
            size=b"%011o" % 30,
            sparse=b"".join(entries[:4]),
            extended=b"\1",
            realsize=b"%011o" % 3000,
        )
        + b"".join(entries[4:25])
        + b"\1".ljust(8, b"\0")
        + padded(b"".join(entries[25:]))
        + padded(b"x" * 30)
    )
    with read_tar(member + file(b"next", b"n") + END) as got:
        assert [(logical, length) for logical, length, _ in got.member(b"s").ranges or []] == parts
        assert got.data(b"s") == (b"x" + bytes(99)) * 30
        assert got.data(b"next") == b"n"
    error = tar_error(member[:700])
    assert isinstance(error, TruncatedArchiveError) and "inside a sparse map" in str(error)


@pytest.mark.parametrize(
    ("pairs", "size"),
    [
        (b"0,10,5,24", b"1500"),
        (b"0,10,1490,24", b"1500"),
        (b"0,10", b"1500"),
        (b"0,10,20", b"9"),
        (b"0,34", b"-1"),
        (b"", b"1500"),
        (b"0,34", b"%d" % (1 << 62)),
    ],
)
def test_maps_that_lie(pairs: bytes, size: bytes) -> None:
    error = tar_error(file(b"s", b"x" * 34, [(b"GNU.sparse.size", size), (b"GNU.sparse.map", pairs)]) + END)
    assert type(error) is SparseMapError
    assert (error.member, error.offset, error.path) == (b"s", 0, b"archive")
    assert str(error).startswith("archive: s: ") and "zip" not in str(error)


@pytest.mark.parametrize("count", [b"99999999999999999999", b"3", b"x", b"1\n5", b"1" * 400])
def test_maps_in_the_data_that_lie(count: bytes) -> None:
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1500")]
    error = tar_error(file(b"s", padded(count + b"\n0\n10\n") + b"x" * 10, records) + END)
    assert isinstance(error, SparseMapError) and error.member == b"s"


@pytest.mark.parametrize("size", [b"\xff" * 12, b"x", b"\x40" + bytes(11)])
def test_a_true_size_that_cannot_be(size: bytes) -> None:
    error = tar_error(header(b"s", kind=b"S", magic=b"ustar  \0", realsize=size) + END)
    assert type(error) is SparseMapError


def test_solaris_maps_are_not_read() -> None:
    assert "Solaris" in str(tar_error(file(b"s", records=[(b"SUN.holesdata", b"1")]) + END))


def test_ranges_of_the_store() -> None:
    assert stored_ranges([(0, 10), (20, 0), (30, 5)], 40, 15, 512) == [(0, 10, 512), (30, 5, 522)]
    assert stored_ranges([], 1 << 40, 0, 0) == []
    for pairs, size, stored in (([(0, 10)], 9, 10), ([(5, 5), (0, 5)], 10, 10), ([(0, -1)], 10, -1), ([], -1, 0), ([], 5, 5)):
        with pytest.raises(HeaderError, match="the parts of a sparse file"):
            stored_ranges(pairs, size, stored, 0)
