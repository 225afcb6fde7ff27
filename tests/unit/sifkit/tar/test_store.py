"""The data of members at rest: in the archive, in memory or in a temporary file."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest

from ext3 import hostio
from sifkit.tar import store as tar_store
from sifkit.tar.errors import ArchiveChangedError, ArchiveError, SpoolError
from sifkit.tar.store import FileMemberStore, MemberData, Spool
from tests.support.read_tar import read_tar, tar_error
from tests.support.tar_samples import END, file


def test_the_spool_moves_to_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tar_store, "SPOOL_MEMORY", 1000)
    archive = b"".join(file(b"%d" % number, b"%d" % number * 400) for number in range(10)) + END
    with read_tar(gzip.compress(archive), spool_dir=tmp_path) as got:
        assert got.stored.fd is not None
        assert [got.data(b"%d" % number) for number in range(10)] == [b"%d" % number * 400 for number in range(10)]
    assert os.listdir(tmp_path) == []
    error = tar_error(gzip.compress(archive), spool_dir=tmp_path / "missing")
    assert type(error) is SpoolError and error.compression == "gzip" and "temporary file" in str(error)


def test_a_small_spool_stays_in_memory(tmp_path: Path) -> None:
    with read_tar(gzip.compress(file(b"f", b"x" * 1000) + END), spool_dir=tmp_path / "missing") as got:
        assert got.stored.fd is None
        assert got.data(b"f") == b"x" * 1000


def test_data_of_an_archive_in_a_file_stays_there(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(file(b"big", b"q" * (1 << 20)) + file(b"small", b"1") + END)
    with read_tar(path) as got:
        assert got.stored.fd is not None
        assert (got.member(b"big").data_offset, got.member(b"small").data_offset) == (512, (1 << 20) + 1024)
        assert got.data(b"big") == b"q" * (1 << 20)
        assert not got.stored.changed()
        path.write_bytes(b"")
        assert got.stored.changed()
        with pytest.raises(ArchiveChangedError, match="it was longer when it was scanned") as caught:
            got.stored.read_file(memoryview(bytearray(1)), [(0, 1, got.member(b"small").data_offset)])
        assert caught.value.kind == "changed" and caught.value.path == os.fsencode(path)


def test_gaps_between_ranges_are_zeros() -> None:
    spool = Spool(None)
    spool.write(memoryview(b"abcdef"))
    with MemberData(b"archive", spool.finish()) as data:
        view = bytearray(b"\xaa" * 10)
        data.read_file(memoryview(view), [(2, 3, 0), (7, 1, 5)])
        assert view == b"\0\0abc\0\0f\0\0"
        assert data.read_at(memoryview(view), 4) == 2
        view = bytearray(b"\xaa" * 3)
        data.read_file(memoryview(view), [])
        assert view == bytes(3)


class Broken(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError(5, "Input/output error")


def test_reading_that_fails() -> None:
    data = MemberData(b"a\n", FileMemberStore(Broken(), owned=True, stable=False))
    with pytest.raises(ArchiveError) as caught:
        data.read_at(memoryview(bytearray(1)), 7)
    assert str(caught.value) == "a\\n: reading at byte 7 failed: Input/output error" and caught.value.errno == 5
    data.close()


def test_what_was_closed_is_not_read() -> None:
    for store in (Spool(None).finish(), FileMemberStore(io.BytesIO(b"x"), owned=True, stable=True)):
        data = MemberData(b"archive", store)
        data.close()
        with pytest.raises(ArchiveError, match="reading at byte 0 failed: "):
            data.read_at(memoryview(bytearray(1)), 0)
    file = io.BytesIO(b"x")
    with MemberData(b"archive", FileMemberStore(file, owned=False, stable=True)):
        pass
    assert file.read() == b"x"


def test_data_that_was_discarded_takes_no_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tar_store, "SPOOL_MEMORY", 1000)
    spool = Spool(tmp_path)
    spool.discard(0, 0)  # still in memory
    for letter in (b"a", b"b", b"c"):
        spool.write(memoryview(letter * (1 << 20)))
    with MemberData(b"archive", spool.finish()) as data:
        assert data.fd is not None
        before = os.fstat(data.fd).st_blocks
        spool.discard(1 << 20, 1 << 20)
        view = bytearray(1)
        assert [data.read_at(memoryview(view), at) and bytes(view) for at in (0, (1 << 20) - 1, 2 << 20)] == [b"a", b"a", b"c"]
        if hostio.punch_hole(data.fd, 1 << 20, 1 << 20):
            assert os.fstat(data.fd).st_blocks * 512 <= before * 512 - (1 << 20)
