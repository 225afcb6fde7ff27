"""``sifkit overlay create --from-tar``: where data of packed archives waits, and how much of it."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import re
import tarfile
import tempfile

import pytest

from sifkit.tar import store

MIB = 1 << 20


class Zeros(io.RawIOBase):
    """As many zeros as anybody reads."""

    def readable(self):
        return True

    def read(self, size=-1):
        return bytes(size)


def packed(path, *sizes):
    """A compressed archive of files of zeros."""
    with gzip.open(path, "wb", 1) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for number, size in enumerate(sizes):
            member = tarfile.TarInfo(f"f{number}")
            member.size = size
            archive.addfile(member, Zeros())
    return path


@pytest.fixture
def spools(tmp_path, monkeypatch):
    """Directories and final sizes of temporary files, which are used for more than nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "SPOOL_MEMORY", 0)
    real, found = tempfile.TemporaryFile, []

    def temporary_file(dir=None):
        file = real(dir=dir)
        close = file.close

        def closing():
            if not file.closed:
                found.append((dir, os.fstat(file.fileno()).st_size))
            close()

        file.close = closing
        return file

    monkeypatch.setattr(store.tempfile, "TemporaryFile", temporary_file)
    return found


@pytest.mark.parametrize("sizes", [(200 * MIB,), (15 * MIB,) * 12])
def test_a_packed_archive_is_read_only_as_far_as_it_can_fit(run, spools, sizes):
    code, out, err = run("overlay", "create", "--json", "--size", "16M", "--from-tar", packed("a.tar.gz", *sizes), "o.img")
    error = json.loads(out)["error"]
    assert (code, error["kind"], error["available_bytes"]) == (1, "no-space", 16 * MIB), err
    assert error["message"].startswith("the content does not fit in an image of 16 MiB: it needs ")
    assert error["hint"] == "give a larger --size, or leave it out"
    assert sum(size for _, size in spools) <= 32 * MIB
    assert os.listdir() == ["a.tar.gz"]


def test_the_hint_is_true(run, spools):
    archive = packed("a.tar.gz", 15 * MIB, 15 * MIB, 1)
    assert run("-q", "overlay", "create", "--size", "16M", "--from-tar", archive, "o.img")[0] == 1
    assert run("-q", "overlay", "create", "--from-tar", archive, "o.img")[0] == 0
    assert run("-q", "overlay", "create", "--size", "64M", "--from-tar", archive, "p.img")[0] == 0


def test_tmpdir_is_where_its_data_waits(run, spools, tmp_path, monkeypatch):
    archive = packed("a.tar.gz", MIB)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert run("-q", "overlay", "create", "--from-tar", archive, "o.img")[0] == 0
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", "scratch")
    assert run("-q", "overlay", "create", "--from-tar", archive, "p.img")[0] == 0
    assert spools == [(str(tmp_path), MIB), ("scratch", MIB)]
    monkeypatch.setenv("TMPDIR", "missing")
    code, _, err = run("overlay", "create", "--from-tar", archive, "q.img")
    assert code == 1 and err.endswith(
        "a.tar.gz: writing its temporary file in missing failed: No such file or directory; set TMPDIR to a directory that can"
        " be written to, or unpack it with gzip -dc and give a file\n"
    )


def test_a_full_disk_is_told_what_the_unpacked_data_takes(run, spools, tmp_path, monkeypatch):
    """Where both are on one filesystem, TMPDIR gives the image that room."""
    archive = packed("a.tar.gz", 3 * MIB, 10)
    (tmp_path / "scratch").mkdir()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    code, _, err = run("overlay", "create", "--from-tar", archive, "o.img")
    assert code == 1 and "no space left for o.img: it needs up to " in err
    assert re.search(r"; [0-9.]+ [KM]iB there are unpacked data: set TMPDIR to a directory on another filesystem\n$", err)
    code, _, err = run("overlay", "create", "o.img")
    assert code == 1 and err.endswith("; free some space, or write it to another filesystem\n")
