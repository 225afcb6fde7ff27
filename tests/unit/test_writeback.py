"""Write-back behind the writer: every range is handed to the kernel, and of a large image the old part a second time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ext3.build import writeback
from ext3.build.writeback import WriteBehind
from ext3.device import FileDevice


@pytest.mark.parametrize("release", [False, True])
def test_ranges_are_started_once_and_released_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: bool) -> None:
    monkeypatch.setattr(writeback, "BATCH_BYTES", 100)
    monkeypatch.setattr(writeback, "KEPT_BYTES", 250)
    fd = os.open(tmp_path / "image", os.O_RDWR | os.O_CREAT)
    device = FileDevice(fd)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(device, "start_writeback", lambda offset, size: told.append((offset, size)))
    behind = WriteBehind(device, release=release)
    for number in range(20):
        behind.wrote(number * 50, 50)
    os.close(fd)
    everything = [(number * 50, 50) for number in range(20)]
    assert [span for span in everything if span in told] == everything
    again = [span for span in everything if told.count(span) == 2]
    assert again == (everything[:15] if release else [])
