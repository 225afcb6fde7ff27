"""Write-back behind the writer: every range is handed to the kernel, and of a large image the old part a second time."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from ext3.device import writeback
from ext3.device.base import FileDevice
from ext3.device.writeback import WriteBehind


@pytest.mark.parametrize("release", [False, True])
def test_ranges_are_started_once_and_released_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: bool) -> None:
    monkeypatch.setattr(writeback, "BATCH_BYTES", 100)
    monkeypatch.setattr(writeback, "CACHED_BYTES", 250)
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    device = FileDevice(fd)
    told: list[tuple[int, int]] = []
    released: list[tuple[int, int]] = []
    monkeypatch.setattr(device, "start_writeback", lambda offset, size: told.append((offset, size)))
    monkeypatch.setattr(device, "release", lambda offset, size: released.append((offset, size)))
    behind = WriteBehind(device, release=release)
    for number in range(20):
        behind.wrote(number * 50, 50)
    os.close(fd)
    everything = [(number * 50, 50) for number in range(20)]
    assert told == everything
    assert released == (everything[:15] if release else [])


@pytest.mark.parametrize("base", [0, 1000, 4096, (256 << 10) - 1])
def test_no_write_is_large_or_crosses_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: int) -> None:
    piece = writeback.PIECE_BYTES
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, base + 5 * piece)
    written: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def watch(fd: int, data: memoryview, offset: int) -> int:
        written.append((offset, len(data)))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", watch)
    behind = WriteBehind(FileDevice(fd, base), release=False)
    noise = random.Random(base).randbytes(3 * piece + 5000)
    behind.write(8192, noise)
    assert behind.read(8192, len(noise)) == noise
    os.close(fd)
    assert sum(size for _, size in written) == len(noise)
    assert all(offset // piece == (offset + size - 1) // piece for offset, size in written)
