"""Data of many small files: the same image whether one process copies it, or several, or threads read it."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import ext3
from ext3 import workers
from ext3.newfs import copy, emit
from ext3.newfs.content import MemoryContent

STAMP = ext3.Stamp(1_700_000_000, uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes)
LARGEST = copy.BUFFER_BYTES
COUNT = emit.WORTH_SHARING + 100


def contents() -> Iterator[tuple[bytes, bytes]]:
    """Sizes around those of a block and of the buffer."""
    for number in range(COUNT):
        size = (1, 100, 1023, 1024, 1025, 3000, 4096)[number % 7] if number % 400 else LARGEST - number % 3
        yield b"%04d" % number, (b"%d " % number * size)[:size]


@pytest.fixture(scope="module")
def source_cut_to(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes a directory of files that are cut to some length; tests leave it as it is."""

    @cache
    def made(length: int) -> Path:
        top = tmp_path_factory.mktemp("source")
        for name, data in contents():
            (top / os.fsdecode(name)).write_bytes(data[:length])
        return top

    return made


@pytest.fixture
def source(source_cut_to: Callable[[int], Path]) -> Path:
    return source_cut_to(LARGEST)


def built(source: Path, image: Path, **options: object) -> bytes:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    content = ext3.scan_directory(builder, os.fsencode(source), 0, ext3.ScanOptions(**options))  # type: ignore[arg-type]
    tree = builder.finish(content)
    tree.clamp_times(1_600_000_000)
    ext3.build_image(tree, image, stamp=STAMP, allow_changed=bool(options.get("allow_changed")))
    return image.read_bytes()


def read_back(image: Path) -> dict[bytes, bytes]:
    """The files of an image by name; a name is not looked up on its own, for the directory is long."""
    with ext3.Filesystem.open(image) as fs:
        return {entry.name: fs.read_bytes(entry.ino) for entry in fs.scandir(2) if entry.file_type == 1}


def wait_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "WAIT_SECONDS", -1.0)
    monkeypatch.setattr(workers, "SAMPLE_CALLS", 1)
    monkeypatch.setattr(workers, "SLOW_SAMPLES", 1)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("buffer", [1 << 16, 1 << 20])
def test_processes_and_threads_give_the_same_image(
    source_cut_to: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, buffer: int
) -> None:
    source = source_cut_to(buffer)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "WAIT_SECONDS", float("inf"))
        patch.setattr(emit, "workers_for", lambda jobs: 1)
        plain = built(source, tmp_path / "plain.img")
    monkeypatch.setattr(copy, "BUFFER_BYTES", buffer)
    monkeypatch.setattr(emit, "workers_for", lambda jobs: processes)
    wait_always(monkeypatch)
    assert built(source, tmp_path / "threads.img") == plain
    assert read_back(tmp_path / "threads.img") == {name: data[:buffer] for name, data in contents()}


@pytest.mark.slow
def test_threads_read_where_reading_waits(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = os.open, set()

    def slow(path: object, *rest: int, **options: int) -> int:
        if str(source).encode() in os.fsencode(path):  # type: ignore[arg-type]
            seen.add(threading.get_ident())
            time.sleep(0.0005)
        return real(path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", slow)
    monkeypatch.setattr(emit, "workers_for", lambda jobs: 1)
    built(source, tmp_path / "o.img")
    assert 8 < len(seen) <= 17
    assert threading.active_count() == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_thread_is_raised(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    wait_always(monkeypatch)
    monkeypatch.setattr(emit, "workers_for", lambda jobs: processes)
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    tree = builder.finish(ext3.scan_directory(builder, os.fsencode(source), 0, ext3.ScanOptions()))
    (source / "1500").rename(tmp_path / "removed")
    with pytest.raises(ext3.SourceError, match="1500: was removed"):
        ext3.build_image(tree, tmp_path / "o.img")
    (tmp_path / "removed").rename(source / "1500")
    assert threading.active_count() == 1


def test_content_of_memory_is_read_by_threads_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_always(monkeypatch)
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    data = {builder.add(0, name, 0o100644, 0, 0, len(data), (0,) * 6): data for name, data in contents()}
    ext3.build_image(builder.finish(MemoryContent(data)), tmp_path / "o.img")
    assert read_back(tmp_path / "o.img") == dict(contents())
