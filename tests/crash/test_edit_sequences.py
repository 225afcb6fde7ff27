"""Random edits of every kind, interrupted anywhere: what is found is the tree after one of them, none before the last sync."""

from __future__ import annotations

import random

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.format.superblock import read_superblock
from ext3.journal.transaction import LogWriter

from ..support.crashes import key_of
from ..support.image_checks import check_counts
from ..support.recorded_edits import KINDS, record_random_edits, state, state_of
from ..support.sessions import COMMIT_START, clock, empty_image


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere(kind: str, block_size: int) -> None:
    recording = record_random_edits(kind, block_size, syncs=6)
    seen: dict[int, str] = {}
    found = set()
    for number, (happened, left) in enumerate(recording.cuts(seed=block_size)):
        if number % 2:
            continue
        expected = recording.allowed(happened)
        key = key_of(left)
        if key not in seen:
            seen[key] = state(left)
        assert seen[key] in expected
        found.add(seen[key])
        with ext3.Filesystem.open(left, "r+", clock=clock) as fs:
            assert state_of(fs) == seen[key]
            fs.write_bytes("/after", b"a" * 50_000)
            fs.unlink("/after")
        assert read_superblock(left).clean
        with ext3.Filesystem.open(left) as fs:
            check_counts(fs)
    assert len(found) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("how", ["truncate", "unlink", "replace"])
def test_a_large_file_goes_in_steps(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More groups than the journal takes at once: at every moment the file is there, or cut, and the image can be used."""
    device = empty_image(24 << 20, inodes=64)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/f", b"f" * (18 << 20))
        fs.symlink("g", "/g")
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        monkeypatch.setattr(LogWriter, "capacity", 9)
        states = [state_of(fs)]
        {
            "truncate": lambda: fs.truncate("/f", 300 * 1024),
            "unlink": lambda: fs.unlink("/f"),
            "replace": lambda: fs.rename("/g", "/f"),
        }[how]()
        states.append(state_of(fs))
    monkeypatch.undo()
    assert sum(event.data[:8] == COMMIT_START for event in recorded.events) > 2
    orphans = 0
    for end in random.Random(5).choices(range(len(recorded.events)), k=40):
        left = play(before, recorded.events[:end])
        seen = state(left)
        assert seen in states
        orphans += bool(read_superblock(left).last_orphan)
        with ext3.Filesystem.open(left, "r+", clock=clock) as fs:
            assert state_of(fs) == seen
        with ext3.Filesystem.open(left) as fs:
            check_counts(fs)
    assert orphans > 3
