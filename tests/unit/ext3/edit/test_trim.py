"""Trim: free blocks lose their content and nothing else, wherever it is interrupted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import ext3
from ext3.constants import SUPERBLOCK_OFFSET
from ext3.device.base import FileDevice, MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.schema import SUPERBLOCK

from ....support.crashes import content_of
from ....support.edits import Edits
from ....support.image_checks import check_counts
from ....support.operations import ImageTree
from ....support.recorded_edits import record_steps, state
from ....support.sessions import clock, empty_image


class Punched(MemoryDevice):
    """Device whose freed ranges read as garbage: nobody may need them. After ``left`` ranges it fails."""

    def __init__(self, data: bytes, left: int = 1 << 40) -> None:
        super().__init__(data)
        self.left = left
        self.ranges: list[tuple[int, int]] = []

    def punch(self, offset: int, size: int) -> int:
        if not self.left:
            raise ext3.DeviceError("no more")
        self.left -= 1
        self.ranges.append((offset, size))
        self.data[offset : offset + size] = b"\xa5" * size
        return size


def trimmed(data: bytes, left: int = 1 << 40) -> Punched:
    device = Punched(data, left)
    try:
        with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
            assert isinstance(fs, WritableFilesystem)
            fs.trim()
    except ext3.DeviceError:
        assert not device.left
    return device


@pytest.mark.parametrize(("block_size", "journal"), [(1024, True), (2048, False), (4096, True)])
def test_no_used_block_is_punched(block_size: int, journal: bool) -> None:
    """Random images: garbage in everything that was freed, and the tree and its counts are as before."""
    device = empty_image(block_size=block_size, journal=journal)
    edits = Edits(block_size, block_size=block_size, largest=200_000)
    for _ in range(4):
        with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
            image = ImageTree(fs)
            for _ in range(60):
                edits.step(image)
        after = trimmed(bytes(device.data))
        free = 0
        with ext3.Filesystem.open(after) as fs:
            edits.check(fs)
            check_counts(fs)
            free = fs.superblock.free_blocks
        assert sum(size for _, size in after.ranges) == free * block_size
        for left in (0, 1, len(after.ranges) // 2):
            cut = trimmed(bytes(device.data), left)
            with ext3.Filesystem.open(cut) as fs:
                edits.check(fs)
                check_counts(fs)
        device = MemoryDevice(bytes(after.data))


@pytest.mark.slow
def test_images_after_a_crash() -> None:
    """A journal that is not empty is replayed before anything is freed: what was committed is there."""
    recording = record_steps(1024)
    for number, (happened, left) in enumerate(recording.cuts(seed=5)):
        if number % 7:
            continue
        after = trimmed(content_of(left))
        assert state(after) in recording.allowed(happened)
        with ext3.Filesystem.open(after) as fs:
            check_counts(fs)


def test_changes_are_committed_and_synced_first() -> None:
    """A power cut after the first hole must find the removal of the file on storage."""

    class Order(RecordingDevice):
        def punch(self, offset: int, size: int) -> int:
            order.append("punch")
            return size

        def sync(self) -> None:
            order.append("sync")
            super().sync()

    order: list[str] = []
    device = Order(empty_image())
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.write_bytes("/f", b"f" * 100_000)
        fs.sync()
        fs.unlink("/f")
        device.events.clear()
        fs.trim()
        assert any(event.kind == "write" for event in device.events)
    order.clear()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.trim()  # nothing to commit, but another program may have left its changes in the host's memory
    assert order[: order.index("punch")].count("sync") >= 1


def test_damaged_images_are_refused_before_the_first_hole() -> None:
    device = empty_image()
    raw = bytearray(device.data)
    row = SUPERBLOCK.view(raw, 1, SUPERBLOCK_OFFSET)
    row["s_state"] = 2  # the error bit
    punched = Punched(bytes(raw))
    with pytest.raises(ext3.NeedsCheckError):
        ext3.Filesystem.open(punched, "r+", clock=clock)
    with ext3.Filesystem.open(device) as fs:
        block = int(fs.groups["bg_block_bitmap"][0]) * fs.superblock.block_size
    punched = Punched(bytes(device.data))
    punched.data[block] &= 0xFE  # a block of the superblock's is free
    with (
        pytest.raises(ext3.CorruptError),
        ext3.Filesystem.open(punched, "r+", clock=clock) as fs,
    ):
        assert isinstance(fs, WritableFilesystem)
        fs.trim()
    assert not punched.ranges


def test_pages_of_the_host(tmp_path: Path) -> None:
    """Only whole pages inside the range are freed, wherever the window begins; what was a hole does not count."""
    path = tmp_path / "image"
    path.write_bytes(b"x" * 100_000)
    fd = os.open(path, os.O_RDWR)
    try:
        device = FileDevice(fd, 1024)
        try:
            freed = device.punch(2000, 50_000)
        except ext3.DeviceError as error:
            assert error.errno == errno.EOPNOTSUPP
            pytest.skip("this filesystem has no holes")
        first, last = 4096, (1024 + 52_000) // 4096 * 4096
        assert freed == last - first
        data = path.read_bytes()
        assert data == b"x" * first + bytes(last - first) + b"x" * (100_000 - last)
        assert device.punch(2000, 50_000) == 0
        assert device.punch(60_000, 4000) == 0  # no whole page
        assert path.read_bytes() == data
    finally:
        os.close(fd)


def test_a_host_without_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 100_000)
    monkeypatch.setattr("ext3.hostio.punch_hole", lambda *args: False)
    fd = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(ext3.DeviceError) as caught:
            FileDevice(fd).punch(0, 100_000)
        assert caught.value.errno == errno.EOPNOTSUPP
    finally:
        os.close(fd)
    assert path.read_bytes() == b"x" * 100_000


def test_a_device_that_cannot_free_space() -> None:
    device = RecordingDevice(empty_image())
    with pytest.raises(ext3.DeviceError) as caught, ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.trim()
    assert caught.value.errno == errno.EOPNOTSUPP
