"""Whatever moment a session is interrupted at: the next open finds the state before or after, and nothing synced is lost."""

from __future__ import annotations

import pytest

from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.edit.orphan_list import add_orphan, remove_orphan
from ext3.edit.session import Session
from ext3.format.superblock import read_superblock

from ..support.crashes import Recording, content_of, replay
from ..support.recorded_edits import SIZE
from ..support.sessions import COMMIT_START, FILES, grow, inode_of, sample, session, set_size, signature

State = tuple[str, ...]


def step(edit: Session, number: int) -> None:
    """One change: of a file's length and blocks, its data, attribute-like blocks that come and go, the orphan list."""
    ino = inode_of(number % FILES)
    set_size(edit, ino, (number * 977) % 14_000)
    if number % 3 == 0:
        set_size(edit, ino, 0)
        grow(edit, ino, 1 + number % 12, 1 + number)
    if number % 4 == 1:
        add_orphan(edit, inode_of((number + 1) % FILES))
    if number % 4 == 3 and edit.last_orphan:
        remove_orphan(edit, edit.last_orphan)
    runs = edit.allocate(3, 0)
    for first, count in runs:
        for block in range(first, first + count):
            edit.write(block, bytes((number,)) * edit.block_size)
    edit.free(runs, metadata=True)


def record(block_size: int, steps: int) -> Recording[State]:
    device = sample(block_size=block_size, size=SIZE[block_size])
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    states, syncs = [signature(device)], [(0, 0)]
    with session(recorded) as edit:
        for number in range(steps):
            with edit.operation():
                step(edit, number)
            edit.sync()
            states.append(signature(device))
            syncs.append((len(recorded.events), len(states) - 1))
    return Recording(before, recorded.events, states, syncs)


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_cut_anywhere(block_size: int) -> None:
    recording = record(block_size, 8)
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
    recording = record(1024, 3)
    commits = [n for n, event in enumerate(recording.events) if event.kind == "write" and event.data[:8] == COMMIT_START]
    assert len(commits) == 3
    left = replay(MemoryDevice(recording.before), recording.events[: commits[-1] + 1])
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
