"""Files copied into an image from files that are not the host's own: of another image, in memory, or damaged."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ext3
from ext3 import hostio
from ext3.edit.filesystem import WritableFilesystem

from ....support.memory_tree import MemoryFile
from ....support.sessions import clock, empty_image

MIB = 1 << 20


@pytest.fixture
def fs() -> Iterator[WritableFilesystem]:
    with ext3.Filesystem.open(empty_image(16 * MIB), "r+", clock=clock) as filesystem:
        yield filesystem


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ext3.Filesystem]:
    """Another image in a file: /f has many extents, holes, and an end inside a block."""
    path = tmp_path / "other.img"
    ext3.mkfs(path, 16 * MIB)
    chance = random.Random(3)
    with ext3.Filesystem.open(path, "r+") as filesystem:
        for name in ("/f", "/g"):
            filesystem.create(name)
        with filesystem.open_file("/f", "r+") as one, filesystem.open_file("/g", "r+") as two:
            for number in range(60):  # in turn, so that neither is contiguous
                at = number * 40_000 + chance.randrange(3) * 1024
                one.write_at(at, chance.randbytes(chance.randrange(1, 30_000)))
                two.write_at(at, b"y" * 5000)
            one.truncate(3 * MIB + 17)
    with ext3.Filesystem.open(path) as filesystem:
        assert len(filesystem.data_extents("/f")) > 30
        yield filesystem


@pytest.mark.parametrize("in_kernel", [True, False])
def test_from_another_image(
    fs: WritableFilesystem, other: ext3.Filesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: bool
) -> None:
    calls = []

    def copy(*where: int) -> int:
        calls.append(where)
        return kernel_copy(*where) if in_kernel else 0

    kernel_copy = hostio.kernel_copy
    monkeypatch.setattr(hostio, "kernel_copy", copy)
    target = tmp_path / "target.img"
    ext3.mkfs(target, 16 * MIB)
    told: list[int] = []
    with ext3.Filesystem.open(target, "r+") as filesystem:
        filesystem.write_bytes("/f", b"old")
        with other.open_file("/f") as source:
            assert filesystem.write_from("/f", source, advance=told.append) == source.size
            assert sum(told) == sum(length for _, length in source.data_ranges())
        assert filesystem.read_bytes("/f") == other.read_bytes("/f")
        assert filesystem.stat("/f").blocks <= other.stat("/f").blocks
    assert len(calls) > 30 if in_kernel else len(calls) == 1  # not tried again


def test_from_the_same_image(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", os.urandom(700_001))
    fs.truncate("/f", 2 * MIB)
    fs.create("/copy")
    with fs.open_file("/f") as source:
        assert source.host_ranges() is None
        assert source.data_ranges() == [(0, 700_416)]
        fs.write_from("/copy", source)
    assert fs.read_bytes("/copy") == fs.read_bytes("/f")
    assert fs.stat("/copy").blocks == fs.stat("/f").blocks


def test_from_memory(fs: WritableFilesystem) -> None:
    content = bytes(100_000) + b"data" * 5000 + bytes(50_000)
    fs.create("/f")
    assert fs.write_from("/f", MemoryFile(content)) == len(content)
    assert fs.read_bytes("/f") == content


class Failing(MemoryFile):
    def __init__(self, content: bytes, good: int) -> None:
        super().__init__(content)
        self.good = good

    def read_at(self, offset: int, size: int, /) -> bytes:
        if offset + size > self.good:
            raise ext3.CorruptError("inode 12", "block", 7, "another")
        return super().read_at(offset, size)


class Shrinking(MemoryFile):
    def read_at(self, offset: int, size: int, /) -> bytes:
        return super().read_at(offset, size)[:-1]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (Failing(b"x" * 5 * MIB, 2 * MIB), "reading: inode 12: block is 7, want another"),
        (Shrinking(b"x" * 5000), "became shorter while it was copied"),
    ],
)
def test_a_source_that_cannot_be_read(fs: WritableFilesystem, source: MemoryFile, reason: str) -> None:
    fs.write_bytes("/f", b"old")
    free = fs.superblock.free_blocks
    with pytest.raises(ext3.SourceError) as caught:
        fs.write_from("/f", source)
    assert caught.value.reason == reason
    assert (fs.stat("/f").size, fs.superblock.free_blocks) == (0, free + 1)


def test_what_does_not_fit_changes_nothing(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", b"old")
    with pytest.raises(ext3.NoSpaceError):
        fs.write_from("/f", MemoryFile(b"x" * 20 * MIB))
    assert fs.read_bytes("/f") == b"old"


class Stream:
    """Bytes that come a few at a time, and what comes after them."""

    def __init__(self, content: bytes, end: BaseException | None = None, step: int = 100_000) -> None:
        self.pieces = [content[at : at + step] for at in range(0, len(content), step)]
        self.end = end

    def read(self, size: int, /) -> bytes | None:
        if self.pieces:
            piece, rest = self.pieces[0][:size], self.pieces[0][size:]
            self.pieces[:1] = [rest] if rest else []
            return piece
        if self.end is not None:
            raise self.end
        return b""


def test_from_a_stream(fs: WritableFilesystem) -> None:
    content = os.urandom(3 * MIB + 17)
    told: list[int] = []
    for path, source in (("/stream", Stream(content)), ("/object", io.BytesIO(content))):
        fs.write_bytes(path, b"old")
        assert fs.write_from(path, source, advance=told.append) == len(content)
        assert fs.read_bytes(path) == content
    assert sum(told) == 2 * len(content) and len(told) <= 8


def test_from_a_pipe(fs: WritableFilesystem) -> None:
    content = os.urandom(200_000)
    fs.create("/f")
    for how in ("descriptor", "file"):
        reading, writing = os.pipe()
        writer = threading.Thread(target=lambda: (os.write(writing, content), os.close(writing)))  # noqa: B023
        writer.start()
        with open(reading, "rb") as file:
            assert fs.write_from("/f", reading if how == "descriptor" else file) == len(content)
        writer.join()
        assert fs.read_bytes("/f") == content


@pytest.mark.parametrize("path", ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_from_files_with_false_sizes(fs: WritableFilesystem, path: str) -> None:
    """coreutils read them to their end."""
    if not os.path.exists(path):
        pytest.skip(f"there is no {path} here")
    wanted = Path(path).read_bytes()
    fs.create("/f")
    with open(path, "rb") as file:
        for source in (file, file.fileno()):
            assert fs.write_from("/f", source) == len(wanted)
            assert fs.read_bytes("/f") == wanted


@pytest.mark.parametrize("reported", [0, 3, 2 * MIB, 4 * MIB])
def test_from_a_file_that_reports_too_little_or_too_much(
    fs: WritableFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: int
) -> None:
    content = os.urandom(3 * MIB)
    (tmp_path / "f").write_bytes(content)
    fs.create("/f")
    real = os.fstat
    with (tmp_path / "f").open("rb") as file:
        monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:6], reported, *real(fd)[7:10]]))
        assert fs.write_from("/f", file.fileno()) == len(content)
    assert fs.read_bytes("/f") == content


def test_a_stream_that_cannot_be_read(fs: WritableFilesystem) -> None:
    """What gives nothing changes nothing; what breaks off leaves no half file."""
    fs.write_bytes("/f", b"old")
    free = fs.superblock.free_blocks
    broken = OSError(5, "Input/output error")
    for content, left in ((b"", b"old"), (b"x" * 5000, b"old"), (b"x" * 3 * MIB, b"")):
        with pytest.raises(ext3.SourceError) as caught:
            fs.write_from("/f", Stream(content, broken))
        assert caught.value.reason == "reading: Input/output error" and caught.value.errno == 5
        assert fs.read_bytes("/f") == left
    assert fs.superblock.free_blocks == free + 1
    with pytest.raises(ext3.SourceError, match="temporarily unavailable"):
        fs.write_from("/f", NotReady())


class NotReady:
    def read(self, size: int, /) -> None:
        return None


def test_a_stream_without_an_end_fills_no_more_than_the_image(fs: WritableFilesystem) -> None:
    fs.create("/f")
    free = fs.superblock.free_blocks
    with pytest.raises(ext3.NoSpaceError):
        fs.write_from("/f", Stream(b"x" * 100 * MIB, step=MIB))
    assert (fs.stat("/f").size, fs.superblock.free_blocks) == (0, free)
