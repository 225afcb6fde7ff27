"""Edits of images without a journal, in place as inside a SIF: cut anywhere, they are whole or say that they are not."""

from __future__ import annotations

import pytest

import ext3
from ext3.constants import SUPERBLOCK_OFFSET
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import Event, RecordingDevice

from ..support.crashes import key_of
from ..support.image_checks import check_counts
from ..support.recorded_edits import STEPS, is_valid, record_steps, state
from ..support.sessions import clock, empty_image


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_cut_anywhere(block_size: int) -> None:
    """What says that it is in order holds a synced state; the rest is refused until it was checked."""
    recording = record_steps(block_size, journal=False)
    seen = {True: 0, False: 0}
    for happened, left in recording.cuts(seed=block_size):
        valid = is_valid(left)
        seen[valid] += 1
        if not valid:
            before = key_of(left)
            with pytest.raises(ext3.NeedsCheckError):
                ext3.Filesystem.open(left, "r+", clock=clock)
            assert key_of(left) == before
            continue
        assert state(left) in recording.allowed(happened)
        with ext3.Filesystem.open(left) as fs:
            check_counts(fs)
    assert min(seen.values()) > 20


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_disorder_is_on_storage_before_the_first_change_and_gone_after_the_last(block_size: int) -> None:
    """Of every transaction: the mark alone, a sync, the changes, a sync, the mark's end alone, a sync."""
    recording = record_steps(block_size, journal=False)
    device = MemoryDevice(recording.before)
    valid, loose, turns = True, [], 0
    for event in recording.events:
        if event.kind == "sync":
            loose = []
            continue
        device.write(event.offset, event.data)
        if is_valid(device) != valid:
            assert event.offset == SUPERBLOCK_OFFSET and event.size == 512
            # File data may wait to be synced when disorder begins, nothing when it ends.
            assert not loose or not is_valid(device)
            valid, turns = is_valid(device), turns + 1
            loose = ["mark"]
            continue
        if not valid:
            assert "mark" not in loose, "a change before the mark is on storage"
        loose.append("change")
    assert valid and turns == 2 * len(STEPS)


def test_an_abandoned_edit_leaves_the_last_sync() -> None:
    device = empty_image(journal=False)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/kept")
        fs.sync()
        before = state(device)
        fs.write_bytes("/kept/lost", b"l" * 100_000)
        fs.abandon()
    assert is_valid(device) and state(device) == before
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)


def test_storage_that_fails_leaves_the_mark() -> None:
    """An error of the storage in the middle of a commit: the image is not in order, and says so."""

    class Failing(RecordingDevice):
        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            if Event("sync") in self.events and offset != SUPERBLOCK_OFFSET:
                raise ext3.DeviceError("no more")
            super().write(offset, data)

    device = empty_image(journal=False)
    with pytest.raises(ext3.DeviceError), ext3.Filesystem.open(Failing(device), "r+", clock=clock) as fs:
        fs.mkdir("/new")
        fs.sync()
    assert not is_valid(device)
