"""Benchmarks of edits, in process: run with ``pytest tests/bench --benchmark-enable``; without it each runs once, as a test.

tools/bench_edit.py prints rates, and compares whole processes with debugfs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import ext3
from ext3.edit.filesystem import WritableFilesystem

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[WritableFilesystem]:
    image = tmp_path / "edited.img"
    ext3.mkfs(image, 256 * MIB)
    with ext3.Filesystem.open(image, "r+") as opened:
        yield opened


@pytest.mark.benchmark(group="edit 1000 files")
def test_create(benchmark: BenchmarkFixture, fs: WritableFilesystem) -> None:
    rounds = itertools.count()

    def make() -> None:
        top = f"/d{next(rounds)}"
        fs.mkdir(top)
        for number in range(1000):
            fs.create(f"{top}/file-{number}")
        fs.sync()

    benchmark(make)
    assert len(list(fs.scandir("/d0"))) == 1000


@pytest.mark.benchmark(group="edit 1000 files")
def test_create_filled_and_remove(benchmark: BenchmarkFixture, fs: WritableFilesystem) -> None:
    def make() -> None:
        fs.mkdir("/d")
        for number in range(1000):
            fs.write_bytes(f"/d/file-{number}", b"x" * 1000)
        fs.remove_tree("/d")
        fs.sync()

    benchmark(make)
    assert [entry.name for entry in fs.scandir("/")] == [b"lost+found"]


@pytest.mark.benchmark(group="edit 64 MiB")
def test_sequential(benchmark: BenchmarkFixture, fs: WritableFilesystem) -> None:
    data = bytes(range(256)) * (MIB // 256)
    fs.create("/f")

    def write_and_read() -> None:
        with fs.open_file("/f", "r+") as file:
            file.truncate(0)
            for _ in range(64):
                file.write(data)
            fs.sync()
            file.seek(0)
            buffer = bytearray(MIB)
            while file.readinto(buffer):
                pass

    benchmark(write_and_read)
    assert fs.stat("/f").size == 64 * MIB
