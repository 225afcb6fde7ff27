"""Edits of images without a journal, in place as inside a SIF: cut anywhere, they are whole or say that they are not."""

from __future__ import annotations

import pytest

import ext3
from ext3.constants import STATE_VALID, SUPERBLOCK_OFFSET
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import Event, RecordingDevice
from ext3.format.superblock import read_superblock
from ext3.newfs.plan import ImageOptions
from ext3.newfs.stamp import Stamp

from ..support.image_checks import check_counts
from ..support.sessions import clock, empty_tree
from .test_edit_filesystem import STEPS, state
from .test_transaction import Recording, allowed, cuts

SIZE = {1024: 8 << 20, 4096: 24 << 20}


def image(block_size: int) -> MemoryDevice:
    device = MemoryDevice(SIZE[block_size])
    options = ImageOptions(size=SIZE[block_size], block_size=block_size, journal=False)
    ext3.build_image(empty_tree(), device, options=options, stamp=Stamp(1_700_000_000, b"u" * 16, b"h" * 16))
    return device


def record(block_size: int) -> Recording:
    """All steps, each followed by a sync."""
    device = image(block_size)
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    states, synced = [state(device)], [0]
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        assert not fs.superblock.has_journal
        for step in STEPS:
            step(fs)
            fs.sync()
            states.append(state(device))
            synced.append(len(recorded.events))
    assert len(set(states)) == len(states)
    return Recording(before, recorded.events, states, synced)


def is_valid(device: MemoryDevice) -> bool:
    return bool(read_superblock(device).state & STATE_VALID)


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_cut_anywhere(block_size: int) -> None:
    """What says that it is in order holds a synced state; the rest is refused until it was checked."""
    recording = record(block_size)
    seen = {True: 0, False: 0}
    for happened, left in cuts(recording, seed=block_size):
        valid = is_valid(left)
        seen[valid] += 1
        if not valid:
            before = bytes(left.data)
            with pytest.raises(ext3.NeedsCheckError):
                ext3.Filesystem.open(left, "r+", clock=clock)
            assert bytes(left.data) == before
            continue
        assert state(left) in allowed(recording, happened)
        with ext3.Filesystem.open(left) as fs:
            check_counts(fs)
    assert min(seen.values()) > 20


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_disorder_is_on_storage_before_the_first_change_and_gone_after_the_last(block_size: int) -> None:
    """Of every transaction: the mark alone, a sync, the changes, a sync, the mark's end alone, a sync."""
    recording = record(block_size)
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
    device = image(1024)
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

    device = image(1024)
    with pytest.raises(ext3.DeviceError), ext3.Filesystem.open(Failing(device), "r+", clock=clock) as fs:
        fs.mkdir("/new")
        fs.sync()
    assert not is_valid(device)
