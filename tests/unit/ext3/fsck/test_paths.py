"""Paths for reports, in sound and in damaged images: as a walk has them, or none."""

from __future__ import annotations

import random

import pytest

import ext3
from ext3.constants import ROOT_INO
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.format.schema import SUPERBLOCK
from ext3.fsck.paths import PathFinder
from ext3.fsck.problem import Place

from ....support.sessions import clock, empty_image
from ....support.tiny_image import TinyImage


@pytest.fixture(scope="module")
def image() -> bytes:
    """Nested directories, an indexed one, names that are no text."""
    device = empty_image(8 << 20)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        path = b""
        for number in range(20):
            path += b"/d%d" % number
            fs.mkdir(path)
            fs.create(path + b"/f\xff\n")
        fs.mkdir(b"/large")
        for number in range(400):
            fs.create(b"/large/%d-" % number + b"n" * 40)
        fs.symlink(b"x", b"/large/link")
    return bytes(device.data)


def walk(device: MemoryDevice) -> dict[int, bytes]:
    with ext3.Filesystem.open(device) as fs:
        return {entry.ino: b"/" + path for path, entry in fs.walk("/")}


def test_all_paths(image: bytes) -> None:
    device = MemoryDevice(image)
    finder = PathFinder(device)
    expected = walk(device)
    assert len(expected) > 440
    assert {ino: finder.path_of(ino) for ino in expected} == expected
    assert finder.path_of(ROOT_INO) == b"/"
    assert [finder.path_of(ino) for ino in (0, 1, 7, 1500, 1 << 40, -1)] == [None] * 6


def test_places(image: bytes) -> None:
    finder = PathFinder(MemoryDevice(image))
    inodes = {path: ino for ino, path in walk(MemoryDevice(image)).items()}
    directory, link = inodes[b"/large"], inodes[b"/large/link"]
    assert finder.path_at(Place()) is None and finder.path_at(Place(group=0)) is None
    assert finder.path_at(Place(ino=link)) == b"/large/link"
    assert finder.path_at(Place(ino=directory, name=b"gone")) == b"/large/gone"
    assert finder.path_at(Place(ino=link, parent=directory, name=b"other")) == b"/large/other"
    assert finder.path_at(Place(ino=ROOT_INO, name=b"a")) == b"/a"
    assert finder.path_at(Place(ino=1500, name=b"a")) is None


def test_the_journal_is_read_through() -> None:
    device = empty_image(8 << 20)
    before = bytes(device.data)
    recording = RecordingDevice(device)
    with ext3.Filesystem.open(recording, "r+", clock=clock) as fs:
        fs.mkdir(b"/new")
        ino = fs.lookup(b"/new")
    found = set()
    for end in range(len(recording.events) + 1):
        found.add(PathFinder(play(MemoryDevice(before), recording.events[:end])).path_of(ino))
    assert found == {None, b"/new"}
    committed = next(
        n for n in range(len(recording.events)) if PathFinder(play(MemoryDevice(before), recording.events[:n])).path_of(ino)
    )
    left = play(MemoryDevice(before), recording.events[:committed])
    with ext3.Filesystem.open(left) as fs:
        assert fs.needs_recovery


def test_what_is_not_connected_has_no_path() -> None:
    image = TinyImage()
    image.directory(12, [(b"in", 13, 1)], parent=12)
    image.directory(14, [(b"loop", 15, 2)], parent=15)
    image.directory(15, [(b"back", 14, 2)], parent=14)
    image.entry(b"ok", 16, 2)
    image.directory(16, [(b"file", 17, 1)])
    finder = PathFinder(MemoryDevice(image.data))
    assert [finder.path_of(ino) for ino in (12, 13, 14, 15)] == [None] * 4
    assert finder.path_of(17) == b"/ok/file"


def test_a_damaged_directory_gives_the_names_before_the_damage() -> None:
    image = TinyImage()
    image.entry(b"a", 12, 1)
    image.entry(b"b", 13, 1)
    image.entry(b"c", 14, 1)
    at = bytes(image.data).index(b"b\0\0\0\x0e")
    image.data[at - 4 : at - 2] = b"\x03\0"
    finder = PathFinder(MemoryDevice(image.data))
    assert [finder.path_of(ino) for ino in (12, 13, 14)] == [b"/a", None, None]


def test_an_image_that_cannot_be_opened(image: bytes) -> None:
    for data in (b"", bytes(5000), b"x" * 100_000):
        assert PathFinder(MemoryDevice(data)).path_of(12) is None


def test_any_damage_ends(image: bytes) -> None:
    """Nothing but a path or None, whatever the image holds."""
    generator = random.Random(9)
    inodes = list(walk(MemoryDevice(image)))
    found = 0
    for _ in range(60):
        device = MemoryDevice(image)
        for _ in range(30):
            at = generator.randrange(1024, 700_000)
            device.data[at : at + 4] = generator.randbytes(4)
        finder = PathFinder(device)
        for ino in generator.sample(inodes, 20):
            path = finder.path_of(ino)
            found += path is not None
            assert path is None or path.startswith(b"/")
    assert found > 300


def test_a_filesystem_of_too_many_blocks_has_no_paths(image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ext3.fsck.paths.MOST_BLOCKS", 100)
    assert SUPERBLOCK.view(image, 1, 1024)["s_blocks_count"][0] > 100
    assert PathFinder(MemoryDevice(image)).path_of(13) is None
