"""Devices that change their size: files, file objects, memory."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ext3.device.base import FileDevice, MemoryDevice, ResizableDevice, data_ranges, open_device
from ext3.device.copy_on_write import CopyOnWriteDevice, RecordingDevice
from ext3.errors import DeviceError


def test_which_can() -> None:
    memory = MemoryDevice(4096)
    for device in (memory, CopyOnWriteDevice(memory), RecordingDevice(memory)):
        assert isinstance(device, ResizableDevice)
        assert list(data_ranges(device, 0, 0)) == []


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 8192)
    fd = os.open(path, os.O_RDWR)
    device = FileDevice(fd)
    device.set_size(20_000)
    assert (path.stat().st_size, device.size) == (20_000, 20_000)
    assert device.read(0, 20_000) == b"x" * 8192 + bytes(20_000 - 8192)
    device.make_zero(0, 4096)
    assert device.read(0, 8192) == bytes(4096) + b"x" * 4096
    device.write(10_000, b"y")
    device.set_size(5000)
    assert (path.stat().st_size, device.size) == (5000, 5000)
    device.set_size(12_000)
    assert device.read(5000, 7000) == bytes(7000)
    with pytest.raises(DeviceError):
        device.set_size(-1)
    os.close(fd)


def test_a_window_of_a_longer_file(tmp_path: Path) -> None:
    """What lies behind the window stays, and is not taken for zeros."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 16384)
    fd = os.open(path, os.O_RDWR)
    device = FileDevice(fd, 4096, 4096)
    device.set_size(2048)
    assert path.stat().st_size == 16384
    device.set_size(8192)
    assert device.read(0, 8192) == b"x" * 8192
    device.make_zero(4096, 4096)
    assert device.read(4096, 4096) == bytes(4096)
    device.set_size(20_000)
    assert path.stat().st_size == 4096 + 20_000
    os.close(fd)


def test_what_was_written_before_is_not_taken_for_zeros(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    device = FileDevice(fd)
    device.set_size(8192)
    device.write(0, b"x" * 8192)
    device.set_size(16384)
    device.make_zero(0, 16384)
    assert device.read(0, 16384) == bytes(16384)
    os.close(fd)


def test_a_file_object() -> None:
    file = io.BytesIO(b"x" * 100)
    with open_device(file) as device:
        assert isinstance(device, ResizableDevice)
        device.set_size(200)
        assert device.read(0, 200) == b"x" * 100 + bytes(100)
        device.set_size(50)
        assert list(data_ranges(device, 0, 50)) == [(0, 50)]
    assert file.getvalue() == b"x" * 50


def test_one_that_cannot() -> None:
    class Fixed:
        size = 100

        def read(self, offset: int, size: int) -> bytes:
            return bytes(size)

        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None: ...

        def make_zero(self, offset: int, size: int) -> None: ...

        def sync(self) -> None: ...

    device = RecordingDevice(Fixed())
    with pytest.raises(DeviceError, match="cannot change its size"):
        device.set_size(200)
    assert not device.events


@pytest.mark.parametrize("end", [0, 5000, 9000])
def test_a_file_that_was_cut(tmp_path: Path, end: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 12_000)
    with path.open("rb") as file:
        device = FileDevice(file.fileno(), 1000, 11_000)
        os.truncate(path, end)
        with pytest.raises(DeviceError, match=f"the file ends at byte {end}, the image at byte 12000"):
            device.read(7000, 4000)
