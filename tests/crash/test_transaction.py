"""Whatever moment a session is interrupted at: the next open finds the state before or after, and nothing synced is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import Event, RecordingDevice, play
from ext3.edit.orphan_list import add_orphan, remove_orphan
from ext3.edit.session import Session
from ext3.format.superblock import read_superblock

from ..support.sessions import COMMIT_START, FILES, grow, inode_of, sample, session, set_size, signature

State = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """``states[n]``: what the image holds after sync ``n``; ``synced[n]``: how many events had happened by then."""

    before: bytes
    events: list[Event]
    states: list[State]
    synced: list[int]


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


def record(block_size: int, steps: int) -> Recording:
    device = sample(block_size=block_size, size=8 << 20 if block_size == 1024 else 24 << 20)
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    states, synced = [signature(device)], [0]
    with session(recorded) as edit:
        for number in range(steps):
            with edit.operation():
                step(edit, number)
            edit.sync()
            states.append(signature(device))
            synced.append(len(recorded.events))
    return Recording(before, recorded.events, states, synced)


def cuts(recording: Recording, seed: int) -> Iterator[tuple[int, MemoryDevice]]:
    """(events that surely happened, what is left): cut after every event, the rest since the last sync lost in part."""
    generator = random.Random(seed)
    events = recording.events
    for end in range(len(events) + 1):
        yield end, play(recording.before, events[:end])
        if not end or events[end - 1].kind != "write":
            continue
        sectors = events[end - 1].size // 512
        if sectors > 1:
            torn = sorted(generator.sample(range(sectors), generator.randrange(1, sectors)))
            yield end - 1, play(recording.before, events[:end], torn=torn)
        last_sync = max((n + 1 for n in range(end) if events[n].kind == "sync"), default=0)
        loose = events[last_sync:end]
        if len(loose) > 1:
            kept = [event for event in loose if generator.random() < 0.5]
            generator.shuffle(kept)
            yield last_sync, play(recording.before, [*events[:last_sync], *kept])


def allowed(recording: Recording, happened: int) -> list[State]:
    """The states an image may be in when ``happened`` events are on storage: of the last sync, or the one under way."""
    last = max(n for n, at in enumerate(recording.synced) if at <= happened)
    return recording.states[last : last + 2]


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_cut_anywhere(block_size: int) -> None:
    recording = record(block_size, 8)
    assert len(set(recording.states)) == 9
    for happened, left in cuts(recording, seed=block_size):
        expected = allowed(recording, happened)
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
    left = play(recording.before, recording.events[: commits[-1] + 1])
    expected = signature(left)
    assert expected == recording.states[3]
    before = bytes(left.data)
    recorded = RecordingDevice(left)
    with session(recorded):
        pass
    again = Recording(before, recorded.events, [expected, expected], [0, len(recorded.events)])
    assert len(recorded.events) > 10
    for _, torn in cuts(again, seed=3):
        assert signature(torn) == expected
        with session(torn):
            pass
        assert signature(torn) == expected
        assert read_superblock(torn).clean
