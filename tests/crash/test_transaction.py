"""Whatever moment a session is interrupted at: the next open finds the state before or after, and nothing synced is lost."""

from __future__ import annotations

import pytest

from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.format.superblock import read_superblock

from ..support.crashes import Recording, content_of
from ..support.sessions import COMMIT_START, inode_of, record_session, session, set_size, signature


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_cut_anywhere(block_size: int) -> None:
    recording = record_session(block_size, 8)
    assert len(set(recording.states)) == 9
    for happened, left in recording.cuts(seed=block_size):
        expected = recording.allowed(happened)
        # The view through the journal and the recovered image agree.
        seen = signature(left)
        assert seen in expected
        with session(left) as edit:
            for group in range(edit.superblock.groups_count):
                edit.blocks.bitmap(group)
                edit.inodes.bitmap(group)
            with edit.operation():
                set_size(edit, inode_of(5), edit.block_size)
        assert not read_superblock(left).needs_recovery
        assert signature(left)[:5] == seen[:5]


def test_cut_while_recovering() -> None:
    """Recovery itself may be interrupted anywhere, and begun again."""
    recording = record_session(1024, 3)
    commits = [n for n, event in enumerate(recording.events) if event.kind == "write" and event.data[:8] == COMMIT_START]
    assert len(commits) == 3
    left = play(MemoryDevice(recording.before), recording.events[: commits[-1] + 1])
    expected = signature(left)
    assert expected == recording.states[3]
    before = content_of(left)
    recorded = RecordingDevice(left)
    with session(recorded):
        pass
    again = Recording(before, recorded.events, [expected, expected], [(0, 0), (len(recorded.events), 1)])
    assert len(recorded.events) > 10
    for _, torn in again.cuts(seed=3):
        assert signature(torn) == expected
        with session(torn):
            pass
        assert signature(torn) == expected
        assert read_superblock(torn).clean
