"""``overlay trim``: space of deleted files goes back to the host; the content stays."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sifkit.file_locks import lock_range

from .....support.commands import Run, good, read_in, refused

MIB = 1 << 20


def on_disk(path: str) -> int:
    return os.stat(path).st_blocks * 512


@pytest.fixture
def full(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An image from which a large file was removed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source/large").write_bytes(os.urandom(8 * MIB))
    (tmp_path / "source/kept").write_bytes(b"kept" * 50_000)
    good(run, "-q", "overlay", "create", "--size", "32M", "--from-dir", "source", "a.img")
    good(run, "-q", "rm", "a.img:/upper/large")
    return "a.img"


def test_a_file(run: Run, full: str) -> None:
    size, before = os.stat(full).st_size, on_disk(full)
    found = json.loads(good(run, "overlay", "trim", "--json", full))
    if found["freed_bytes"] == 0:
        pytest.skip("this filesystem has no holes")
    assert 8 * MIB - 65536 <= found["freed_bytes"] <= 9 * MIB
    assert found["file_bytes"] == os.stat(full).st_size == size
    assert (found["allocated_before_bytes"], found["allocated_after_bytes"]) == (before, on_disk(full))
    assert on_disk(full) <= before - 7 * MIB
    assert read_in(full, "/upper/kept") == b"kept" * 50_000
    data = Path(full).read_bytes()
    assert json.loads(good(run, "overlay", "trim", "--json", full))["freed_bytes"] == 0
    assert Path(full).read_bytes() == data


def test_a_partition(run: Run, full: str) -> None:
    good(run, "-q", "sif", "new", "a.sif")
    good(run, "-q", "sif", "add", "--parttype", "overlay", "a.sif", full)
    before = on_disk("a.sif")
    _, out, err = run("overlay", "trim", "-v", "a.sif")
    assert not out and "a.sif: freed 8" in err
    assert on_disk("a.sif") <= before - 7 * MIB
    good(run, "sif", "check", "-q", "a.sif")
    assert good(run, "cat", "--partition", "overlay", "a.sif", "/upper/kept") == "kept" * 50_000


def test_no_journal(run: Run, full: str) -> None:
    good(run, "-q", "overlay", "create", "--no-journal", "--size", "32M", "--from-dir", "source", "b.img")
    good(run, "-q", "rm", "b.img:/upper/large")
    good(run, "-q", "overlay", "trim", "b.img")
    assert on_disk("b.img") < 4 * MIB
    assert read_in("b.img", "/upper/kept") == b"kept" * 50_000


def test_a_locked_image_is_left_alone(run: Run, full: str) -> None:
    before, data = on_disk(full), Path(full).read_bytes()
    with open(full, "rb+") as file:
        if not lock_range(file.fileno(), write=False):
            pytest.skip("no locks here")
        assert "in use" in refused(run, "overlay", "trim", full)
    assert on_disk(full) == before and Path(full).read_bytes() == data


def test_a_larger_file(run: Run, full: str) -> None:
    """Nothing outside the filesystem is touched."""
    head, tail, data = os.urandom(70_000), os.urandom(70_000), Path(full).read_bytes()
    Path("disk").write_bytes(head + data + tail)
    good(run, "-q", "overlay", "trim", "--offset", "70000", "disk")
    found = Path("disk").read_bytes()
    assert found[:70_000] == head and found[-70_000:] == tail
    assert on_disk("disk") < len(found) - 20 * MIB
    Path("b.img").write_bytes(found[70_000:-70_000])
    assert read_in("b.img", "/upper/kept") == b"kept" * 50_000
