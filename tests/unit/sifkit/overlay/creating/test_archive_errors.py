"""What a user reads when an archive cannot be taken in: each message, word for word, and what to do about it."""

from __future__ import annotations

import errno
import functools
import gzip
import io
import os
import pickle
import sys
from pathlib import Path

import pytest
import zstandard

from ext3.errors import ContentChangedError, NoSpaceError
from sifkit.cli.support.hints import creation_hint
from sifkit.overlay.creating.archive_errors import ArchiveSourceError
from sifkit.tar import store as tar_store
from tests.support.scanned_tar import refused, scanned
from tests.support.tar_samples import END, SAMPLE, Pipe, directory, file, hardlink, header, padded, pax, symlink

gzipped = functools.partial(gzip.compress, mtime=0)  # the same bytes, and test names, at every run
AGAIN = "fetch it again"
DAMAGED = "the archive is damaged, or not written by a tar program"
DISTRUST = "do not trust this archive"
TAKEN = "tar archives are taken plain or packed with gzip, xz, bzip2 or zstd"
INSIDE = "the archive writes through a symlink or into a file; do not trust it"


@pytest.mark.parametrize(
    ("archive", "message", "hint"),
    [
        (b"", "is empty: not a tar archive", AGAIN),
        (b"text" * 200, "is not a tar archive", TAKEN),
        (b"PK\3\4" + bytes(1000), "is a zip archive, not a tar archive", TAKEN),
        (gzipped(b""), "is packed with gzip and holds nothing, not a tar archive", TAKEN),
        (gzipped(b"rubbish" * 99), "is packed with gzip and holds something else, not a tar archive", TAKEN),
        (gzipped(gzipped(SAMPLE)), "is packed with gzip and holds gzip data, not a tar archive", TAKEN),
        (SAMPLE[:1024], "the archive is truncated: it has no end marker (at byte 1024)", AGAIN),
        (SAMPLE[:1200], "the archive is truncated: it ends inside a header (at byte 1200)", AGAIN),
        (SAMPLE[:4000], "the archive is truncated: d/a has 3,000 bytes and only 1,952 follow (at byte 2048)", AGAIN),
        (
            gzipped(SAMPLE[:1200]),
            "the gzip stream is whole, but the archive in it is truncated: it ends inside a header"
            " (at byte 1200 of the unpacked archive)",
            "pack the archive again",
        ),
        (gzipped(SAMPLE)[:-5], "the gzip stream is cut short (at byte 6144 of the unpacked archive)", AGAIN),
        (
            gzipped(SAMPLE)[:-8] + bytes(8),
            "the gzip stream is corrupt: incorrect data check (at byte 0 of the unpacked archive)",
            AGAIN,
        ),
        (
            file(b"a", b"1") + b"\1" * 512 + END,
            "the checksum is not a number: \\x01\\x01\\x01\\x01\\x01\\x01\\x01\\x01 (at byte 1024)",
            DAMAGED,
        ),
        (file(b"a", b"1") + bytes(511) + b"x" + END, "a header's checksum is wrong (at byte 1024)", DAMAGED),
        (pax([(b"path", b"x")]) + END, "the archive ends where the header of an entry should be (at byte 0)", DAMAGED),
        (header(b"f", size=b"0x10") + END, "a size is not a number: 0x10 (at byte 0)", DAMAGED),
        (header(b"f", kind=b"M") + END, "f: members of type M are not known (at byte 0)", DAMAGED),
        (header(b"c", kind=b"3", major=b"0010000") + END, "c: device numbers 4096, 0 do not fit ext3 (at byte 0)", DAMAGED),
        (
            file(b"s", b"x" * 34, [(b"GNU.sparse.size", b"1500"), (b"GNU.sparse.map", b"0,10,5,24")]) + END,
            "s: the parts of a sparse file overlap or lie outside it (at byte 0)",
            "the archive is damaged",
        ),
        (
            gzipped(file(b"s", padded(b"x"), [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9")]) + END),
            "s: the sparse map is malformed (at byte 0 of the unpacked archive)",
            "the archive is damaged",
        ),
        (
            file(b"f", records=[(b"LIBARCHIVE.xattr.user.b", b"!!")]) + END,
            "f: an extended attribute is not base64 (at byte 0)",
            "",
        ),
        (file(b"../x") + END, "../x: the name leads outside: it has .. in it (at byte 0)", DISTRUST),
        (
            symlink(b"l", b"/etc") + file(b"l/x") + END,
            "l/x: the name leads outside: l is not a directory (at byte 512)",
            INSIDE,
        ),
        (
            hardlink(b"link", b"no/such") + END,
            "link: its hard link's target no/such is not in the archive before it (at byte 0)",
            "the archive is incomplete",
        ),
        (directory(b"d") + hardlink(b"link", b"d") + END, "link: its hard link's target d is a directory (at byte 512)", ""),
        (file(b".wh.") + END, ".wh.: a whiteout of no name (at byte 0)", DISTRUST),
        (file(b"./", kind=b"2", link=b"x") + END, "./: the archive's top is not a directory (at byte 0)", ""),
        (
            pax([(b"path", b"n" * 256)]) + header(b"n") + END,
            f"{'n' * 256}: a name of 256 bytes; ext3 holds 255 (at byte 0)",
            "",
        ),
        (
            pax([(b"path", b"x" * 4096)]) + header(b"n") + END,
            f"{'x' * 4096}: the name has 4096 bytes; Linux takes 4095 (at byte 0)",
            "",
        ),
        (
            symlink(b"d/l", b"../../etc") + file(b"d/l/x") + END,
            "d/l/x: the name leads outside: a symlink on its way climbs above the top (at byte 512)",
            DISTRUST,
        ),
        (
            symlink(b"a", b"b/.") + symlink(b"b", b"a/.") + file(b"a/x") + END,
            "a/x: the name goes through more than 40 symlinks (at byte 1024)",
            DISTRUST,
        ),
        (header(b"") + END, "(no name): the archive's top is not a directory (at byte 0)", ""),
        (header(b"l", kind=b"2") + END, "l: a symlink's target of 0 bytes cannot be (at byte 0)", ""),
    ],
)
def test_messages_and_hints(archive: bytes, message: str, hint: str) -> None:
    error = refused(archive)
    assert (str(error), error.hint) == (f"archive: {message}", hint)
    assert (error.kind, error.path, error.errno) == ("source", b"archive", 22)
    again = pickle.loads(pickle.dumps(error))  # as from a process that helps
    assert (type(again), str(again), again.hint) == (ArchiveSourceError, str(error), hint)
    assert creation_hint(again) == ""  # nothing about --exclude, which is for directories


def test_a_pipe_is_sent_again() -> None:
    hint = "see whether the program that sends it failed, and send it again"
    for data, message in (
        (SAMPLE[:1024], "the archive is truncated: it has no end marker (at byte 1024)"),
        (gzipped(SAMPLE)[:-5], "the gzip stream is cut short (at byte 6144 of the unpacked archive)"),
        (b"", "is empty: not a tar archive"),
    ):
        stdin = Pipe(data)
        stdin.name = "<stdin>"
        error = refused(io.BufferedReader(stdin))
        assert (str(error), error.hint) == (f"standard input: {message}", hint)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert (str(error), error.hint) == (f"{tmp_path}: is a directory, not an archive", "--from-dir takes a directory")
    assert error.errno == 21
    for path in (tmp_path / "missing", Path(__file__) / "x"):
        error = refused(path)
        assert str(error) == f"{path}: {os.strerror(error.errno)}" and error.hint == ""
        assert error.errno in (2, 20)


def test_zstd_that_needs_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    error = refused(packer.compress(SAMPLE) + packer.flush())
    assert str(error) == "archive: the zstd stream needs too much memory to unpack"
    assert error.hint == "unpack it with zstd -dc --long=31 and give the plain archive"
    packed = zstandard.compress(SAMPLE)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    error = refused(packed)
    assert str(error) == "archive: unpacking zstd needs the Python module zstandard"
    assert error.hint == "install that, or unpack it with zstd -dc and give the plain archive"


def test_no_place_for_the_temporary_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tar_store, "SPOOL_MEMORY", 1000)
    missing = tmp_path / "missing"
    error = refused(gzipped(SAMPLE), spool_dir=missing)
    assert str(error) == f"archive: writing its temporary file in {missing} failed: No such file or directory"
    assert error.hint == "set TMPDIR to a directory that can be written to, or unpack it with gzip -dc and give a file"
    assert error.errno == 2
    monkeypatch.setattr(tar_store.tempfile, "TemporaryFile", lambda dir: Full())
    error = refused(io.BufferedReader(Pipe(file(b"f", b"x" * 3000) + file(b"g", b"x" * 2000) + END)), spool_dir=tmp_path)
    assert str(error) == f"archive: writing its temporary file in {tmp_path} failed after 2.9 KiB: No space left on device"
    assert error.hint == "set TMPDIR to a directory with more space, or give it as a file" and error.errno == 28


class Full(io.BytesIO):
    """A file on a filesystem that has room for 4,000 bytes."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.tell() + len(data) > 4000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def too_much(archive: bytes) -> NoSpaceError:
    with pytest.raises(NoSpaceError) as caught, scanned(gzipped(archive + END), data_limit=4000):
        pass
    return caught.value


def test_more_data_than_the_image_can_have() -> None:
    for archive, needed in (
        (file(b"f", b"x" * 3000) + file(b"g", b"x" * 3000) + file(b"h"), 6000),
        (file(b"f", b"x" * 5000), 5000),
        (header(b"f", size=b"77777777777"), 8**11 - 1),  # nothing of it is read
    ):
        error = too_much(archive)
        assert error.message.startswith("the content does not fit in an image of 3.9 KiB: it needs ")
        assert (error.needed_bytes, error.available_bytes) == (needed, 4000)
        assert (error.kind, error.hint) == ("no-space", "give a larger --size, or leave it out")
    with scanned(file(b"f", b"x" * 5000) + file(b"g", b"x") + END, data_limit=4000) as got:
        assert got.data(b"/f") == b"x" * 5000  # it stays in the archive; the plan says exactly what is needed


def test_data_that_is_replaced_takes_no_room() -> None:
    replaced = b"".join(directory(b"d") + file(b"d/f", b"%d" % number * 3000) + file(b"d", b"x" * 900) for number in range(9))
    linked = file(b"a", b"x" * 1500) + hardlink(b"b", b"a") + hardlink(b"b", b"b") + file(b"a") + file(b"b", b"y" * 1500)
    with scanned(gzipped(replaced + linked + file(b"last", b"z" * 1000) + END), data_limit=4000) as got:
        assert (got.data(b"/d"), got.data(b"/b")) == (b"x" * 900, b"y" * 1500)
    kept = file(b"a", b"x" * 3000) + hardlink(b"b", b"a") + file(b"a") + file(b"c", b"y" * 1500) + file(b"d", b"z")
    assert too_much(kept).needed_bytes == 4500


def test_an_archive_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(SAMPLE)
    with scanned(path) as got:
        path.write_bytes(b"")
        with pytest.raises(ContentChangedError) as caught:
            got.scan.content.read_whole(got.node(b"/b"), memoryview(bytearray(5)))
        assert str(caught.value) == f"{path}: ends at byte 512 of file data; it was longer when it was scanned"
        assert (caught.value.kind, caught.value.hint) == ("changed", "")
        assert isinstance(caught.value, ArchiveSourceError) and creation_hint(caught.value) == ""
        with pytest.raises(ContentChangedError) as caught:
            got.scan.content.read_whole(got.node(b"/b"), memoryview(bytearray(4)))
        assert str(caught.value) == f"{path}: a file has 5 bytes where 4 are asked for"
