"""Copies of file data that end early: what is left is no longer than what was written, as with coreutils' cp and tar."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import ext3
from ext3 import hostio
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.vfs import file_copy
from sifkit.vfs.copy_out import CopyOutOptions, copy_file_out
from sifkit.vfs.extracting import extract

MIB = 1 << 20


@pytest.fixture
def filesystem(tmp_path, monkeypatch):
    """With a file of 3 MiB at its end a hole, of which 1 MiB is copied before the disk is full."""
    monkeypatch.setattr(file_copy, "CHUNK_BYTES", MIB)
    monkeypatch.setattr(file_copy, "KERNEL_BYTES", 1 << 40)
    real = hostio.write_at

    def full(fd, offset, data):
        if offset >= MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, offset, data)

    create(tmp_path / "o.img", CreateOptions(size=8 * MIB))
    with ext3.Filesystem.open(tmp_path / "o.img", "r+") as fs:
        fs.write_bytes("/upper/f", os.urandom(2 * MIB))
        fs.truncate("/upper/f", 3 * MIB)
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        monkeypatch.setattr(hostio, "write_at", full)
        yield fs


def test_extract(filesystem, tmp_path):
    with pytest.raises(OSError, match="space"):
        extract(filesystem, tmp_path / "out")
    assert Path(tmp_path, "out", "upper", "f").stat().st_size == MIB


def test_copy_out(filesystem, tmp_path):
    with pytest.raises(OSError, match="No space"):
        copy_file_out(filesystem, filesystem.lookup("/upper/f"), os.fsencode(tmp_path / "f"), CopyOutOptions())
    assert Path(tmp_path, "f").stat().st_size == MIB
