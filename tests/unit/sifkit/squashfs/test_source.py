"""Windows of bytes: exact reads, and none outside."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sifkit.squashfs.errors import TruncatedSquashfsError
from sifkit.squashfs.source import ByteSource, FileWindow, SeekableWindow

CONTENT = bytes(range(256)) * 10


@pytest.fixture(params=["file", "seekable"])
def window(request: pytest.FixtureRequest, tmp_path: Path) -> ByteSource:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    file = path.open("rb")
    request.addfinalizer(file.close)
    if request.param == "file":
        return FileWindow(file.fileno(), 100, 1000)
    return SeekableWindow(io.BytesIO(CONTENT), 100, 1000)


def test_a_window_is_read_exactly(window: ByteSource) -> None:
    assert window.size == 1000
    assert window.read_at(0, 1000) == CONTENT[100:1100]
    assert window.read_at(999, 1) == CONTENT[1099:1100]
    assert window.read_at(1000, 0) == b""


@pytest.mark.parametrize(("offset", "size"), [(999, 2), (1000, 1), (5000, 1), (-1, 1), (0, 1001), (1 << 63, 1)])
def test_nothing_outside_is_read(window: ByteSource, offset: int, size: int) -> None:
    with pytest.raises(TruncatedSquashfsError) as caught:
        window.read_at(offset, size)
    assert caught.value.available_bytes == 1000


def test_a_window_ends_with_its_file(tmp_path: Path) -> None:
    assert SeekableWindow(io.BytesIO(CONTENT), 2000, 10_000).size == 560
    assert SeekableWindow(io.BytesIO(CONTENT), 9999).size == 0
    with pytest.raises(OSError, match="begin at byte -1"):
        SeekableWindow(io.BytesIO(CONTENT), -1)


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    with path.open("r+b") as file:
        window = FileWindow(file.fileno())
        file.truncate(100)
        with pytest.raises(TruncatedSquashfsError, match="at most 100"):
            window.read_at(50, 100)
        seekable = SeekableWindow(file)
        file.truncate(60)
        with pytest.raises(TruncatedSquashfsError, match="at most 60"):
            seekable.read_at(50, 50)
