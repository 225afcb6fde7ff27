"""Data of large files and files with holes gets into an image, whatever the kernel says to copying it."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ext3
from ext3 import hostio

MIB = 1 << 20
STAMP = ext3.Stamp(1_700_000_000, bytes(16), bytes(16))
NAMES = ("large", "other", "sparse")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    top.mkdir()
    noise = random.Random(3)
    (top / "large").write_bytes(noise.randbytes(3 * MIB + 777))
    (top / "other").write_bytes(noise.randbytes(2 * MIB))
    with (top / "sparse").open("wb") as file:
        file.write(noise.randbytes(5000))
        file.seek(3 * MIB + 100)
        file.write(noise.randbytes(MIB))
        file.truncate(9 * MIB)
    return top


def build(source: Path, image: Path) -> None:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, (0, 0, 0, 0, 0, 0))
    content = ext3.scan_directory(builder, os.fsencode(source), 0, ext3.ScanOptions())
    tree = builder.finish(content)
    ext3.build_image(tree, image, options=ext3.ImageOptions(size=24 * MIB), stamp=STAMP)


def refuse(code: int, *, first: int = 0) -> Callable[..., int]:
    """copy_file_range that fails, after ``first`` calls that copy a part of what they are asked."""
    real = getattr(os, "copy_file_range", None)
    calls = 0

    def call(source: int, target: int, size: int, *offsets: int) -> int:
        nonlocal calls
        calls += 1
        if calls > first or real is None:
            raise OSError(code, os.strerror(code))
        return int(real(source, target, min(size, 100_000), *offsets))

    return call


@pytest.mark.parametrize("way", ["kernel", "refused", "refused later", "nothing copied", "no holes known"])
def test_bytes_and_holes(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    fakes: dict[str, Any] = {
        "refused": refuse(errno.EXDEV),
        "refused later": refuse(errno.EIO, first=2),
        "nothing copied": lambda *_: 0,
    }
    if way in fakes:
        monkeypatch.setattr(os, "copy_file_range", fakes[way], raising=False)
    if way == "no holes known":
        monkeypatch.delattr(os, "SEEK_DATA", raising=False)
    build(source, tmp_path / "image")
    with ext3.Filesystem.open(tmp_path / "image") as fs:
        for name in NAMES:
            assert fs.read_bytes(f"/{name}") == (source / name).read_bytes(), name
        if way != "no holes known" and os.stat(source / "sparse").st_blocks * 512 < 2 * MIB:
            assert fs.stat("/sparse").blocks * 512 < 2 * MIB


def test_files_the_kernel_copies_after_one_it_does_not(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a source may lie on several filesystems: each is asked for."""
    if not hasattr(os, "copy_file_range"):
        pytest.skip("this system copies nothing in the kernel")
    real = os.copy_file_range
    copied: list[int] = []

    def call(source: int, target: int, size: int, *offsets: int) -> int:
        if os.fstat(source).st_size == 3 * MIB + 777:
            raise OSError(errno.EXDEV, "another filesystem")
        copied.append(real(source, target, size, *offsets))
        return copied[-1]

    monkeypatch.setattr(os, "copy_file_range", call)
    build(source, tmp_path / "image")
    assert sum(copied) >= 3 * MIB
    with ext3.Filesystem.open(tmp_path / "image") as fs:
        assert all(fs.read_bytes(f"/{name}") == (source / name).read_bytes() for name in NAMES)


@pytest.mark.parametrize("code", sorted(hostio.FULL))
def test_a_full_filesystem_is_the_images(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "copy_file_range", refuse(code), raising=False)
    with pytest.raises(ext3.DeviceError) as caught:
        build(source, tmp_path / "image")
    assert caught.value.errno == code


def test_a_source_that_cannot_be_read_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel says to a copy does not tell which file is damaged; reading it does."""
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.EIO), raising=False)
    real = os.preadv

    def preadv(fd: int, views: list[memoryview], offset: int) -> int:
        if os.fstat(fd).st_size == 3 * MIB + 777:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, views, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(ext3.SourceError, match="large"):
        build(source, tmp_path / "image")
