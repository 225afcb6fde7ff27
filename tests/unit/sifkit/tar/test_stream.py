"""Where archives come from, and what is told apart from one."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from sifkit.tar.errors import (
    ArchiveError,
    ArchiveOpenError,
    CompressedStreamError,
    CorruptHeaderError,
    EmptyArchiveError,
    NotTarError,
    TruncatedArchiveError,
)
from sifkit.tar.stream import open_archive
from tests.support.read_tar import read_tar, tar_error
from tests.support.tar_samples import END, PACKERS, SAMPLE, Pipe, file, pax


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("how", ["path", "object", "pipe"])
def test_every_compression_and_source(packer: Callable[[bytes], bytes], how: str, tmp_path: Path) -> None:
    data = packer(SAMPLE)
    path = tmp_path / "layer.txt"  # the name says nothing
    path.write_bytes(data)
    source: Path | IO[bytes] = path
    if how == "object":
        source = io.BytesIO(data)
    elif how == "pipe":
        source = io.BufferedReader(Pipe(data))
    with read_tar(source) as got:
        assert [member.name for member in got.members] == [b"b", b"d/", b"d/a"]
        assert (got.data(b"b"), got.data(b"d/a")) == (b"hello", b"x" * 3000)
    if how == "object":
        assert not source.closed  # type: ignore[union-attr]


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
def test_garbage_behind_the_end_is_ignored(packer: Callable[[bytes], bytes]) -> None:
    with read_tar(packer(SAMPLE + b"garbage" * 500)) as got:
        assert got.data(b"b") == b"hello"
    with read_tar(packer(SAMPLE) + b"\0\0garbage" * 500) as got:
        assert got.data(b"d/a") == b"x" * 3000


def test_an_object_is_read_from_where_it_stands() -> None:
    source = io.BytesIO(b"before!" + SAMPLE)
    source.seek(7)
    with read_tar(source) as got:
        assert got.data(b"b") == b"hello"
        assert got.members[1].offset == 1024


def test_an_object_that_decompresses_is_not_taken_for_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(file(b"big", b"q" * (1 << 20)) + END))
    with gzip.open(path) as source, read_tar(source) as got:  # type: ignore[arg-type]
        assert got.stored.fd is None
        assert got.data(b"big") == b"q" * (1 << 20)


def test_an_empty_archive() -> None:
    for packer in PACKERS.values():
        with read_tar(packer(END)) as got:
            assert got.members == []


@pytest.mark.parametrize(
    ("archive", "kind", "says"),
    [
        (b"", EmptyArchiveError, "empty"),
        (b"just some text" * 100, NotTarError, "not a tar archive"),
        (b"PK\3\4" + bytes(1000), NotTarError, "zip"),
        (b"hsqs" + bytes(1000), NotTarError, "squashfs"),
        (SAMPLE[:100], NotTarError, "not a tar archive"),
        (SAMPLE[:700], TruncatedArchiveError, "truncated"),
        (SAMPLE[:1200], TruncatedArchiveError, "truncated"),
        (SAMPLE[:4000], TruncatedArchiveError, "truncated"),
        (file(b"a", b"1") + b"\1" * 512 + END, CorruptHeaderError, "checksum"),
        (file(b"a", b"1") + bytes(511) + b"x" + END, CorruptHeaderError, "checksum"),
        (pax([(b"path", b"x")]) + END, CorruptHeaderError, "ends where"),
        (pax([(b"path", b"x")])[:600], TruncatedArchiveError, "truncated"),
    ],
)
@pytest.mark.parametrize("how", ["plain", "pipe", "gzip", "zstd"])
def test_archives_that_are_broken(archive: bytes, kind: type[ArchiveError], says: str, how: str) -> None:
    source: bytes | IO[bytes] = io.BufferedReader(Pipe(archive)) if how == "pipe" else PACKERS[how](archive)
    error = tar_error(source)
    if how in ("gzip", "zstd"):
        assert isinstance(error, NotTarError if issubclass(kind, NotTarError) else kind) and error.compression == how
    else:
        assert type(error) is kind and error.compression == "" and says in str(error)


@pytest.mark.parametrize("how", ["gzip", "xz", "bzip2", "zstd"])
def test_a_packed_archive_without_an_end_marker_is_whole(how: str) -> None:
    """GNU tar and bsdtar take it without a word; the stream's own end shows that nothing is missing."""
    with read_tar(PACKERS[how](SAMPLE[: -len(END)])) as got:
        assert [member.name for member in got.members] == [b"b", b"d/", b"d/a"]
        assert got.data(b"d/a") == b"x" * 3000 and not got.has_end_marker
    with read_tar(PACKERS[how](SAMPLE[: -len(END) // 2])) as got:
        assert len(got.members) == 3 and got.has_end_marker
    error = tar_error(PACKERS[how](pax([(b"path", b"x")])))
    assert isinstance(error, TruncatedArchiveError) and "no end marker" in str(error)


def test_a_plain_archive_without_an_end_marker_may_be_cut() -> None:
    for source in (SAMPLE[: -len(END)], io.BufferedReader(Pipe(SAMPLE[: -len(END)]))):
        error = tar_error(source)
        assert type(error) is TruncatedArchiveError and "it has no end marker" in str(error)


def test_facts_of_truncation() -> None:
    error = tar_error(SAMPLE[:4000])
    assert isinstance(error, TruncatedArchiveError)
    assert (error.path, error.member, error.offset, error.kind) == (b"archive", b"d/a", 2048, "source")
    assert str(error) == "archive: the archive is truncated: d/a has 3,000 bytes and only 1,952 follow (at byte 2048)"
    error = tar_error(gzip.compress(SAMPLE[:4000]))
    assert (error.member, error.offset, error.compression) == (b"d/a", 4000, "gzip")
    assert str(error) == (
        "archive: the gzip stream is whole, but the archive in it is truncated: it ends inside d/a"
        " (at byte 4000 of the unpacked archive)"
    )


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"PK\3\4", "a zip archive"),
        (b"\x04\x22\x4d\x18", "lz4 data"),
        (b"#!/usr/bin/env run-singularity\n", "a SIF image"),
        (b"#!/bin/sh\n", "a script"),
        (b"<html>", "a web page"),
        (b"{}", "JSON text"),
        (b"plain", ""),
    ],
)
def test_what_else_it_may_be(head: bytes, found: str) -> None:
    error = tar_error(head.ljust(1000, b"\n"))
    assert isinstance(error, NotTarError) and error.found == found
    error = tar_error(gzip.compress(head.ljust(1000, b"\n")))
    assert isinstance(error, NotTarError) and (error.found, error.compression) == (found, "gzip")


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    error = tar_error(tmp_path)
    assert isinstance(error, ArchiveOpenError) and isinstance(error, OSError) and "is a directory" in str(error)
    error = tar_error(tmp_path / "missing")
    assert isinstance(error, ArchiveOpenError) and error.errno == 2 and "No such file" in str(error)


def test_names_of_objects() -> None:
    def named(name: object) -> bytes:
        pipe = Pipe(b"x" * 600)
        pipe.name = name  # type: ignore[attr-defined]
        return tar_error(io.BufferedReader(pipe)).path

    assert named("<stdin>") == named(b"<stdin>") == named(0) == b"standard input"
    assert named(5) == b"archive"
    assert named("a\nb") == b"a\\nb" and named(b"\xff") == b"\\xff" and named("\udcff") == b"\\udcff"


class Failing(Pipe):
    """A pipe that breaks."""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        done = super().readinto(buffer)
        if not done:
            raise OSError(5, "Input/output error")
        return done


def test_reading_that_fails() -> None:
    for data in (SAMPLE[:1400], gzip.compress(SAMPLE, 0)[:1400]):
        error = tar_error(io.BufferedReader(Failing(data)))
        assert not isinstance(error, CompressedStreamError) and error.errno == 5
        assert "reading failed: Input/output error (at byte " in str(error)
    with pytest.raises(ArchiveError, match=r"archive: reading failed: Input/output error$"):
        open_archive(io.BufferedReader(Failing(b"")))
