"""Bytes on their way in and out: every kind of source and target, holes, sources that change."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ext3 import hostio
from sifkit.errors import TargetError
from sifkit.sif import SIF, DataType, EditError, OCIMeta, PartType, SourceChangedError, SourceError, payload

from ....support.platforms import linux_holes
from ....support.sif_images import STAMP, assert_sound, partition

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Iterator[SIF]:
    path = tmp_path / "image.sif"
    SIF.create(path, stamp=STAMP).close()
    with SIF.open(path, "r+") as sif:
        yield sif
    assert_sound(path.read_bytes())


@pytest.fixture(params=["kernel", "sendfile", "plain", "nothing"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Copies inside the kernel, by one call or another; through a buffer; and without knowing of holes either."""
    if request.param == "sendfile":
        monkeypatch.setattr(hostio, "copy_range", lambda *_: 0)
    if request.param in ("plain", "nothing"):
        monkeypatch.setattr(hostio, "kernel_copy", lambda *_: 0)
    if request.param == "nothing":
        monkeypatch.delattr(os, "SEEK_DATA", raising=False)
        monkeypatch.delattr(os, "preadv", raising=False)
    return str(request.param)


def sparse_file(path: Path) -> bytes:
    """8 MiB, of which 1 MiB in the middle and the last byte are data."""
    with path.open("wb") as file:
        file.seek(3 * MIB)
        file.write(os.urandom(MIB))
        file.seek(8 * MIB - 1)
        file.write(b"x")
    return path.read_bytes()


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_every_kind_of_source(image: SIF, tmp_path: Path, way: str) -> None:
    data = os.urandom(70_000) + bytes(200_000) + os.urandom(70_001)
    path = tmp_path / "source"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    told: list[int] = []
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        sources = [data, bytearray(data), memoryview(data), str(path), path, fd, file, raw, io.BytesIO(data)]
        for number, source in enumerate(sources, 1):
            added = image.add(source, DataType.GENERIC, advance=told.append)
            assert image.read(added.id) == data, number
        assert file.read() == raw.read() == os.read(fd, 1) == b"", "read to their ends"
    os.close(fd)
    assert sum(told) >= len(data) * 6


def test_sources_are_read_from_where_they_stand(image: SIF, tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"0123456789" * 1000)
    with path.open("rb") as file:
        file.read(3)
        assert image.read(image.add(file, DataType.GENERIC).id) == (b"0123456789" * 1000)[3:]
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 9_999, os.SEEK_SET)
    assert image.read(image.add(fd, DataType.GENERIC).id) == b"9"
    os.lseek(fd, 20_000, os.SEEK_SET)
    assert image.read(image.add(fd, DataType.GENERIC).id) == b""
    os.close(fd)
    memory = io.BytesIO(b"abc")
    memory.read(1)
    assert image.read(image.add(memory, DataType.GENERIC).id) == b"bc"


@pytest.mark.parametrize("path", ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_files_with_false_sizes_are_read_to_their_ends(image: SIF, path: str) -> None:
    """proc reports 0 bytes, sysfs 4096."""
    if not os.path.exists(path):
        pytest.skip(f"there is no {path} here")
    data = Path(path).read_bytes()
    with open(path, "rb") as file, open(path, "rb", buffering=0) as raw:
        for source in (path, file, raw):
            assert image.read(image.add(source, DataType.GENERIC).id) == data
        raw.seek(3)
        assert image.read(image.add(raw, DataType.GENERIC).id) == data[3:]


@pytest.mark.parametrize("as_object", [False, True], ids=["descriptor", "object"])
def test_a_pipe(image: SIF, as_object: bool) -> None:
    data = os.urandom(300_000) + bytes(400_000) + b"end"
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as file:
        added = image.add(file if as_object else reading, DataType.OCI_BLOB)
    thread.join()
    assert image.read(added.id) == data
    assert added.metadata == OCIMeta(b"sha256:" + hashlib.sha256(data).hexdigest().encode())


def test_a_digest_is_over_the_holes_too(image: SIF, tmp_path: Path, way: str) -> None:
    data = sparse_file(tmp_path / "sparse")
    added = image.add(tmp_path / "sparse", DataType.OCI_ROOT_INDEX)
    assert added.metadata == OCIMeta(b"sha256:" + hashlib.sha256(data).hexdigest().encode())
    (tmp_path / "sparse").write_bytes(b"")
    os.truncate(tmp_path / "sparse", 100_000)
    added = image.add(tmp_path / "sparse", DataType.OCI_BLOB)
    assert added.metadata == OCIMeta(b"sha256:" + hashlib.sha256(bytes(100_000)).hexdigest().encode())


@linux_holes
def test_holes_stay_holes(image: SIF, tmp_path: Path, way: str) -> None:
    data = sparse_file(tmp_path / "sparse")
    added = image.add(tmp_path / "sparse", DataType.PARTITION, metadata=partition(PartType.DATA))
    assert image.read(added.id) == data
    path = Path(str(image.path))
    assert path.stat().st_size == added.end
    if way != "nothing":
        assert allocated(path) < 2 * MIB
    image.extract(added.id, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    if way != "nothing":
        assert allocated(tmp_path / "out") < 2 * MIB


@linux_holes
def test_zeros_of_a_stream_become_holes(image: SIF) -> None:
    image.add(io.BytesIO(bytes(8 * MIB)), DataType.GENERIC)
    assert image.read(1) == bytes(8 * MIB)
    assert allocated(Path(str(image.path))) < MIB


def test_a_source_all_holes(image: SIF, tmp_path: Path, way: str) -> None:
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 3 * MIB)
    added = image.add(tmp_path / "sparse", DataType.GENERIC)
    assert added.size == 3 * MIB
    assert image.read(added.id) == bytes(3 * MIB)


@pytest.mark.parametrize("change", ["shorter", "longer", "touched"])
def test_a_source_that_changes(image: SIF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, way: str) -> None:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(100_000))
    before = Path(str(image.path)).read_bytes()
    spans = hostio.data_ranges

    def changing(fd: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
        yield from spans(fd, offset, size)
        if change == "touched":
            os.utime(path, (1, 1))

    if change == "touched":
        monkeypatch.setattr(hostio, "data_ranges", changing)
    else:
        opened = payload._size_and_mtime

        def stamp(fd: int) -> tuple[int, int]:
            found = opened(fd)
            if path.stat().st_size == 100_000:
                os.truncate(path, 50_000 if change == "shorter" else 150_000)
            return found

        monkeypatch.setattr(payload, "_size_and_mtime", stamp)
    with pytest.raises(SourceChangedError, match="source changed"):
        image.add(path, DataType.GENERIC)
    assert Path(str(image.path)).read_bytes() == before


def test_a_source_that_fails(image: SIF) -> None:
    class Broken(io.RawIOBase):
        def __init__(self) -> None:
            self.left = 3

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if not self.left:
                raise OSError(5, "Input/output error")
            return b"x" * 1000

    before = Path(str(image.path)).read_bytes()
    with pytest.raises(SourceError, match="Input/output error"):
        image.add(Broken(), DataType.GENERIC)  # type: ignore[arg-type]
    assert Path(str(image.path)).read_bytes() == before


def test_a_source_that_does_not_wait(image: SIF) -> None:
    """What is not there yet is not the end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, b"part")
    with os.fdopen(reading, "rb", buffering=0) as file:
        for source in (file, reading):
            with pytest.raises(SourceError, match="unavailable"):
                image.add(source, DataType.GENERIC)
    os.close(writing)
    assert len(image) == 0


def test_an_image_as_an_object_of_itself(image: SIF) -> None:
    before = Path(str(image.path)).read_bytes()
    with pytest.raises(EditError, match="to itself"):
        image.add(str(image.path), DataType.GENERIC)
    assert Path(str(image.path)).read_bytes() == before


def test_extract_to_a_path(image: SIF, tmp_path: Path) -> None:
    image.add(b"data" * 10_000, DataType.GENERIC)
    target = tmp_path / "out"
    image.extract(1, target)
    assert target.read_bytes() == b"data" * 10_000
    with pytest.raises(TargetError, match="exists"):
        image.extract(1, target)
    target.write_bytes(b"x" * 100_000)
    image.extract(1, target, replace=True, mode=0o600)
    assert target.read_bytes() == b"data" * 10_000
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["image.sif", "out"]


def test_extract_to_what_is_open(image: SIF, tmp_path: Path, way: str) -> None:
    data = sparse_file(tmp_path / "sparse")
    image.add(tmp_path / "sparse", DataType.GENERIC)
    told: list[int] = []
    memory = io.BytesIO()
    image.extract(1, memory, advance=told.append)
    assert memory.getvalue() == data and sum(told) == len(data)
    target = tmp_path / "out"
    target.write_bytes(b"old" * (4 * MIB))
    with target.open("r+b") as file:
        file.write(b"head")
        image.extract(1, file)
        file.write(b"tail")
    assert target.read_bytes()[: len(data) + 8] == b"head" + data + b"tail"
    assert target.stat().st_size == 12 * MIB, "what lies behind is left alone"
    target.write_bytes(b"head")
    fd = os.open(target, os.O_WRONLY | os.O_APPEND)
    image.extract(1, fd)
    os.close(fd)
    assert target.read_bytes() == b"head" + data


def test_extract_to_a_pipe(image: SIF) -> None:
    data = os.urandom(3 * MIB)
    image.add(data, DataType.GENERIC)
    reading, writing = os.pipe()
    got: list[bytes] = []

    def collect() -> None:
        with os.fdopen(reading, "rb") as file:
            got.append(file.read())

    thread = threading.Thread(target=collect)
    thread.start()
    image.extract(1, writing)
    os.close(writing)
    thread.join()
    assert got == [data]
