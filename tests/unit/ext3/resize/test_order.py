"""Order of writes: what a change of the geometry, or of the journal's map, finds on storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ext3
from ext3.constants import SECTOR, SUPERBLOCK_OFFSET
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import CopyOnWriteDevice, Event, play
from ext3.format.group_desc import read_groups
from ext3.format.inode_table import inode_offset
from ext3.format.superblock import read_superblock
from ext3.journal.log import read_journal
from ext3.resize import prepare

from ....support.resizes import aged_image, findings_of, late_journal, made_by_mke2fs, record_resize
from ....support.sessions import clock

MIB = 1 << 20


def _emptied(device: CopyOnWriteDevice) -> bool:
    """Whether the log is empty, and the superblock says that nothing is to be replayed."""
    superblock = read_superblock(device)
    journal = read_journal(device, superblock, read_groups(device, superblock))
    return superblock.clean and not journal.start


def _steps(before: bytes, events: list[Event]) -> Iterator[tuple[int, CopyOnWriteDevice, Event]]:
    device = play(MemoryDevice(before), [])
    for number, event in enumerate(events):
        yield number, device, event
        device = play(device, [event])


@pytest.mark.parametrize("grow", [True, False])
def test_the_switch(grow: bool) -> None:
    """One sector, alone between two syncs, with an empty log; the device has grown before, and is cut as the last thing."""
    device = aged_image(18 * MIB, files=20)
    size = 40 * MIB if grow else prepare(device).minimum().size_bytes
    before, events = record_resize(device, size)
    old = read_superblock(MemoryDevice(before)).blocks_count
    switches = []
    for number, state, event in _steps(before, events):
        if event.kind != "write" or event.offset != SUPERBLOCK_OFFSET:
            continue
        if int.from_bytes(event.data[4:8], "little") != read_superblock(state).blocks_count:
            switches.append(number)
            assert event.size == SECTOR
            assert _emptied(state)
            assert events[number - 1].kind == events[number + 1].kind == "sync"
            assert int.from_bytes(event.data[4:8], "little") != old
    assert len(switches) == 1
    sizes = [number for number, event in enumerate(events) if event.kind == "size"]
    assert sizes == [0] if grow else sizes == [len(events) - 2]
    assert events[-1].kind == "sync"


def test_the_map_of_the_journal(tmp_path: Path) -> None:
    """Its inode changes with an empty log, alone between two syncs, when the new blocks read as zero."""
    device = late_journal(tmp_path / "image", 24 * MIB)
    before, events = record_resize(device, 12 * MIB)
    superblock = read_superblock(MemoryDevice(before))
    at = inode_offset(superblock, read_groups(MemoryDevice(before), superblock), superblock.journal_ino)
    changes = 0
    for number, state, event in _steps(before, events):
        if event.kind == "write" and event.offset <= at < event.offset + event.size:
            record = event.data[at - event.offset :][:128]
            if record[40:100] == state.read(at + 40, 60):
                continue
            changes += 1
            assert event.size == SECTOR
            assert _emptied(state)
            assert events[number - 1].kind == events[number + 1].kind == "sync"
            after = play(state, [event])
            journal = read_journal(after, read_superblock(after), read_groups(after, superblock))
            old = read_journal(state, superblock, read_groups(state, superblock))
            assert journal.sequence == old.sequence > 1
            assert not any(after.read(journal.offset(block), 1024).strip(b"\0") for block in range(1, journal.maxlen))
    assert changes == 1


def test_the_resize_inode_is_dropped_and_freed_at_once(tmp_path: Path) -> None:
    """Beyond the reserve; no state on storage has blocks of it that belong to nobody."""
    options = ["-b", "1024", "-g", "512", "-N", "600", "-E", "resize=20000"]
    before, events = record_resize(made_by_mke2fs(tmp_path / "image", options, 9 * MIB), 34 * MIB)
    dropped = 0
    for end in [number for number, event in enumerate(events) if event.kind == "sync"]:
        left = play(MemoryDevice(before), events[:end])
        with ext3.Filesystem.open(left, "r+", clock=clock):
            pass  # the journal is replayed
        if read_superblock(left).size_bytes > 9 * MIB:
            break
        assert not [text for text in findings_of(left) if text.startswith("block-bitmap")]
        dropped += not read_superblock(left).geometry.resize_inode
    assert dropped
