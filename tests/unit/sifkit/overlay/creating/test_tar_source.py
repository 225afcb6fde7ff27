"""scan_tar: archives of every dialect and compression as part of a tree."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

import sifkit.overlay
from ext3.errors import ContentChangedError, SourceError
from ext3.newfs.builder import TreeBuilder
from sifkit.overlay.creating.tar_source import read_tar, scan_tar
from sifkit.tar import store as tar_store
from sifkit.tar.errors import ArchiveError
from tests.support.scanned_tar import refused, scanned
from tests.support.tar_samples import (
    END,
    PACKERS,
    SAMPLE,
    SPARSE_DATA,
    SPARSE_MEMBERS,
    Pipe,
    directory,
    file,
    header,
    padded,
    pax,
    symlink,
)

REG, DIR, LNK, CHR, BLK, FIFO = 0o100000, 0o040000, 0o120000, 0o020000, 0o060000, 0o010000


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("how", ["path", "object", "pipe"])
def test_every_packing_and_source(packer: Callable[[bytes], bytes], how: str, tmp_path: Path) -> None:
    data = packer(SAMPLE)
    path = tmp_path / "layer.txt"  # the name says nothing
    path.write_bytes(data)
    source: Path | IO[bytes] = path
    if how == "object":
        source = io.BytesIO(data)
    elif how == "pipe":
        source = io.BufferedReader(Pipe(data))
    with scanned(source) as got:
        assert list(got.paths()) == [b"/b", b"/d", b"/d/a"]
        assert (got.data(b"/b"), got.data(b"/d/a")) == (b"hello", b"x" * 3000)
        assert (got.scan.files, got.scan.data_bytes, got.scan.root) == (3, 3005, None)
    if how == "object":
        assert not source.closed  # type: ignore[union-attr]


def test_an_object_that_unpacks_is_not_taken_for_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(file(b"big", b"q" * (1 << 20)) + END))
    with gzip.open(path) as source, scanned(source) as got:  # type: ignore[arg-type]
        assert got.data(b"/big") == b"q" * (1 << 20)


def test_large_files_can_be_copied_from_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(file(b"big", b"q" * (1 << 20)) + file(b"small", b"1") + END)
    with scanned(path) as got:
        assert got.tree.segments == {got.node(b"/big"): [(0, 1 << 20, 512)]}
        with got.scan.content.open(got.node(b"/big")) as opened:
            assert opened.fd is not None
        with got.scan.content.open(got.node(b"/small")) as opened:
            view = bytearray(10)
            assert opened.fd is None
            assert (opened.read_into(memoryview(view), 0), view[0]) == (1, ord("1"))
        path.write_bytes(b"")
        assert got.scan.content.open(got.node(b"/big")).changed()
        with pytest.raises(ContentChangedError):
            got.scan.content.read_whole(got.node(b"/small"), memoryview(bytearray(1)))


def test_the_spool_moves_to_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tar_store, "SPOOL_MEMORY", 1000)
    archive = b"".join(file(b"%d" % number, b"%d" % number * 400) for number in range(10)) + END
    with scanned(gzip.compress(archive), spool_dir=tmp_path) as got:
        assert [got.data(b"/%d" % number) for number in range(10)] == [b"%d" % number * 400 for number in range(10)]
    assert os.listdir(tmp_path) == []
    error = refused(gzip.compress(archive), spool_dir=tmp_path / "missing")
    assert "temporary file" in str(error) and error.hint


def test_an_empty_archive() -> None:
    for packer in PACKERS.values():
        with scanned(packer(END)) as got:
            assert got.paths() == {}


def test_attributes_of_every_kind() -> None:
    archive = (
        file(b"f", b"1", uid=b"0210560", gid=b"\x80\0\0\0\xb2\xd0\x5e\0", mode=b"0104755", mtime=b"14524770400")
        + header(b"c", kind=b"3", major=b"0000005", minor=b"1111700")
        + header(b"b", kind=b"4", major=b"0000403", minor=b"0000007")
        + header(b"p", kind=b"6")
        + header(b"contiguous", kind=b"7", size=b"00000000003")
        + padded(b"abc")
        + symlink(b"l", b"../else")
        + header(b"old/", kind=b"\0", magic=b"")
        + directory(b"sticky", mode=b"0001777")
    )
    with scanned(archive + END) as got:
        assert got.row(b"/f", "mode", "uid", "gid", "size", "links") == (REG | 0o4755, 70000, 3000000000, 1, 1)
        assert got.row(b"/f", "mtime", "atime", "ctime") == (1700000000,) * 3
        assert got.mode(b"/c") == CHR | 0o644 and got.mode(b"/b") == BLK | 0o644 and got.mode(b"/p") == FIFO | 0o644
        assert got.tree.devices == {got.node(b"/c"): (5, 299968), got.node(b"/b"): (259, 7)}
        assert got.mode(b"/l") == LNK | 0o644 and got.tree.targets[got.node(b"/l")] == b"../else"
        assert got.row(b"/l", "size") == (7,)
        assert got.data(b"/contiguous") == b"abc"
        assert got.mode(b"/old") & 0o170000 == DIR
        assert got.mode(b"/sticky") == DIR | 0o1777


def test_times_are_taken_from_the_text() -> None:
    archive = (
        file(b"a", records=[(b"mtime", b"1700000000.123456789"), (b"atime", b"-1.5"), (b"ctime", b"5")])
        + file(b"b", records=[(b"mtime", b"-0.000000001")])
        + file(b"c", records=[(b"mtime", b"9007199254740993.9999999999999")])
        + file(b"d", mtime=b"\xff" * 11 + b"\xfe")
    )
    times = ("atime", "atime_ns", "mtime", "mtime_ns", "ctime", "ctime_ns")
    with scanned(archive + END) as got:
        assert got.row(b"/a", *times) == (-2, 500000000, 1700000000, 123456789, 5, 0)
        assert got.row(b"/b", *times) == (-1, 999999999) * 3
        assert got.row(b"/c", "mtime", "mtime_ns") == (9007199254740993, 999999999)
        assert got.row(b"/d", *times) == (-2, 0) * 3


def test_long_names_of_both_dialects() -> None:
    long = b"x" * 200 + b"/" + b"\xe9\n" * 100
    gnu = header(b"././@LongLink", kind=b"L", size=b"%011o" % (len(long) + 1)) + padded(long + b"\0") + file(b"cut")
    target = b"t" * 3000
    link = (
        header(b"././@LongLink", kind=b"K", size=b"%011o" % (len(target) + 1)) + padded(target + b"\0") + symlink(b"link", b"t")
    )
    renamed = file(b"cut", records=[(b"path", b"y/" + b"\xff" * 255)])
    with scanned(gnu + link + renamed + END) as got:
        assert {b"/" + long, b"/y/" + b"\xff" * 255} < got.paths().keys()
        assert got.tree.targets[got.node(b"/link")] == target


def test_global_records_hold_until_overridden() -> None:
    archive = pax([(b"uid", b"5"), (b"comment", b"c")], b"g") + file(b"a") + file(b"b", records=[(b"uid", b"6")]) + file(b"c")
    with scanned(archive + END) as got:
        assert [got.row(path, "uid") for path in (b"/a", b"/b", b"/c")] == [(5,), (6,), (5,)]


@pytest.mark.parametrize("how", ["plain", "gzip"])
@pytest.mark.parametrize("member", SPARSE_MEMBERS.values(), ids=SPARSE_MEMBERS)
def test_sparse_files(member: bytes, how: str) -> None:
    with scanned(PACKERS[how](member + file(b"next", b"n") + END)) as got:
        assert got.data(b"/s") == SPARSE_DATA
        assert got.data(b"/next") == b"n"
        segments = got.tree.segments[got.node(b"/s")]
        assert [(logical, length) for logical, length, _ in segments] == [(0, 10), (1000, 24)]


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    assert "directory" in str(refused(tmp_path))
    assert "No such file" in str(refused(tmp_path / "missing"))


def test_progress_counts_every_member() -> None:
    counts: list[int] = []
    with scanned(b"".join(file(b"%d" % number) for number in range(600)) + END, progress=counts.append):
        assert sum(counts) == 600
        assert len(counts) == 3


@pytest.mark.parametrize("packed", [True, False])
def test_progress_counts_the_bytes_of_the_archive_as_it_is(packed: bool, tmp_path: Path) -> None:
    data = file(b"a", os.urandom(300_000)) + file(b"b", b"x") + END
    data = gzip.compress(data) if packed else data
    (tmp_path / "a.tar").write_bytes(data)
    counts: list[int] = []
    with read_tar(tmp_path / "a.tar", xattr_filter=lambda name: True, advance=counts.append) as found:
        assert found.top_names == {b"a", b"b"}
    assert len(counts) > 3 and len(data) - 1024 <= sum(counts) <= len(data)


def test_the_standard_library_is_read(tmp_path: Path) -> None:
    for style in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{style}.tar"
        with tarfile.open(path, "w", format=style) as archive:
            archive.add(Path(__file__), "tests/here.py")
        with scanned(path) as got:
            assert got.data(b"/tests/here.py") == Path(__file__).read_bytes()
            assert got.row(b"/tests/here.py", "uid") == (Path(__file__).stat().st_uid,)


def test_the_cause_of_an_error_has_its_facts() -> None:
    error = refused(gzip.compress(SAMPLE + b"x")[:-3])
    assert isinstance(error.__cause__, ArchiveError)
    assert (error.__cause__.compression, error.__cause__.path, error.path) == ("gzip", b"archive", b"archive")
    error = refused(file(b"a") + file(b"../b") + END)
    assert isinstance(error.__cause__, ArchiveError)
    assert (error.__cause__.member, error.__cause__.offset) == (b"../b", 512)


LAYER_ID = b"0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("names", "format"),
    [
        ([b"manifest.json", b"repositories", LAYER_ID + b".json", LAYER_ID + b"/layer.tar"], "docker save"),
        ([b"blobs/sha256/" + LAYER_ID, b"index.json", b"manifest.json", b"oci-layout"], "docker save"),
        ([b"oci-layout", b"index.json", b"./blobs/sha256/" + LAYER_ID], "OCI layout"),
    ],
)
def test_a_container_image_is_no_layer(names: list[bytes], format: str) -> None:
    error = refused(b"".join(file(name) for name in names) + END)
    assert f"this is a container image ({format}), not the files of one" in str(error)
    assert ("docker-archive:" if format == "docker save" else "oci-archive:") in error.hint
    with scanned(b"".join(file(name) for name in [*names, b"etc/motd"]) + END) as got:
        assert got.scan.files > len(names)


@pytest.mark.parametrize("names", [[b"manifest.json", b"app.js"], [b"index.json", b"oci-layout"], [b"blobs/sha256/x"]])
def test_names_of_images_in_layers(names: list[bytes]) -> None:
    with scanned(b"".join(file(name) for name in names) + END) as got:
        assert got.scan.files >= len(names)


def test_scan_tar_is_public() -> None:
    assert sifkit.overlay.scan_tar is scan_tar


def test_an_archive_that_is_not_added_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(SAMPLE)
    with read_tar(path, xattr_filter=lambda name: True) as found:
        assert found.top_names == {b"b", b"d"} and found.root is None and found.root_xattrs == {}
    builder = TreeBuilder()
    with found.add_to(builder, builder.add(0, b"", DIR | 0o755, 0, 0, 0, (0,) * 6)) as scan, pytest.raises(SourceError):
        scan.content.read_whole(1, memoryview(bytearray(5)))
