"""Edits of a tree, interrupted anywhere: what is found is the tree of the last sync, or of the one under way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.edit.session import Session
from ext3.format.superblock import read_superblock

from ..support.image_checks import check_counts
from ..support.recorded_edits import record_steps, state
from ..support.sessions import clock, empty_image


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_cut_anywhere(block_size: int) -> None:
    recording = record_steps(block_size)
    for happened, left in recording.cuts(seed=block_size):
        seen = state(left)
        assert seen in recording.allowed(happened)
        with ext3.Filesystem.open(left, "r+", clock=clock) as fs:
            fs.write_bytes("/after", b"a" * 50_000)
            fs.unlink("/after")
        assert read_superblock(left).clean
        assert state(left) == seen
        with ext3.Filesystem.open(left) as fs:
            check_counts(fs)


def test_abandoned() -> None:
    """What was not synced never happened."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/kept")
        fs.sync()
        before = state(device)
        fs.write_bytes("/kept/lost", b"l" * 100_000)
        fs.abandon()
    assert state(device) == before
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)


def test_files_without_names_are_deleted_by_the_next_open() -> None:
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        free = fs.superblock.free_blocks
        handles = []
        for number in range(4):
            fs.write_bytes(f"/f{number}", bytes(20_000))
            handles.append(fs.open_file(f"/f{number}", "r+"))
            fs.unlink(f"/f{number}")
        fs.sync()
        left = MemoryDevice(bytes(device.data))
        assert fs.superblock.last_orphan
        for handle in handles:
            assert handle.read_at(0, 30_000) == bytes(20_000)
        handles[1].close()
        handles[3].close()
        fs.sync()
        later = MemoryDevice(bytes(device.data))
    for image in (left, later, device):
        with ext3.Filesystem.open(image, "r+", clock=clock) as fs:
            assert fs.superblock.free_blocks == free
            assert not fs.superblock.last_orphan
        with ext3.Filesystem.open(image) as fs:
            check_counts(fs)


def test_a_failing_write_leaves_what_was_synced() -> None:
    """The storage fails at every write in turn: typed errors, nothing synced lost."""

    class Failing(RecordingDevice):
        left = 0

        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            if self.left <= 0:
                raise ext3.DeviceError("no more")
            self.left -= 1
            super().write(offset, data)

    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/kept", b"k" * 5000)
    pristine = bytes(device.data)
    done = False
    writes = 0
    while not done:
        image = MemoryDevice(pristine)
        failing = Failing(image)
        failing.left = writes
        writes += 1
        try:
            with ext3.Filesystem.open(failing, "r+", clock=clock) as fs:
                fs.write_bytes("/new", b"n" * 5000)
                fs.sync()
                fs.unlink("/new")
            done = True
        except ext3.DeviceError:
            pass
        with ext3.Filesystem.open(image) as fs:
            assert fs.read_bytes("/kept") == b"k" * 5000
    assert writes > 10


def test_a_copied_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a copy is cut off, with a commit after each of its steps: its name leads to all of it, or its space is free."""
    content = os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(content)
    device = empty_image()
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    monkeypatch.setattr(Session, "should_commit", True)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        free = fs.superblock.free_blocks
        ino = fs.create_nameless(2)
        with (tmp_path / "large").open("rb") as file:
            fs.write_from(ino, file)
        fs.name_at(ino, 2, b"copied")
        fs.release(ino)
    ends = [number for number, event in enumerate(recorded.events) if event.kind == "sync"]
    assert len(ends) > 12
    seen = set()
    for end in ends:
        cut = play(MemoryDevice(before), recorded.events[:end])
        with ext3.Filesystem.open(cut, "r+", clock=clock) as fs:
            there = fs.find_name(2, b"copied") is not None
            seen.add(there)
            assert fs.read_bytes("/copied") == content if there else fs.superblock.free_blocks == free
        with ext3.Filesystem.open(cut) as after:
            check_counts(after)
    assert seen == {False, True}
