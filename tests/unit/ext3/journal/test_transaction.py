"""Several transactions in a log: where they lie, what the journal superblock says of them, and what a replay of them gives."""

from __future__ import annotations

import random

import pytest

from ext3.constants import JBD_MAGIC
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.errors import CheckpointError, DeviceError, JournalFullError
from ext3.format.block_map import Extents
from ext3.format.group_desc import read_groups
from ext3.format.jbd_schema import JOURNAL_SUPERBLOCK
from ext3.format.superblock import read_superblock
from ext3.journal import transaction
from ext3.journal.log import FEATURE_REVOKE, Journal, read_journal, scan_log
from ext3.journal.transaction import LogWriter

from ....support.sessions import empty_image, shorten_log

SIZE = 1024
PLACE = 5000
"""Blocks from here on are free in the image."""


def journal_of(device: MemoryDevice) -> Journal:
    superblock = read_superblock(device)
    return read_journal(device, superblock, read_groups(device, superblock))


def writer(device: MemoryDevice, recorded: RecordingDevice | None = None) -> LogWriter:
    journal = journal_of(device)
    return LogWriter(recorded or device, journal, journal.sequence)


def short(blocks: int, sequence: int = 7) -> MemoryDevice:
    """An image whose log has ``blocks`` blocks."""
    device = empty_image()
    shorten_log(device, blocks)
    JOURNAL_SUPERBLOCK.view(device.data, 1, journal_of(device).offset(0))["s_sequence"] = sequence
    return device


def content(number: int) -> bytes:
    return b"%08d" % number * (SIZE // 8)


def replayed(device: MemoryDevice) -> dict[int, bytes]:
    """What a replay of the log on ``device`` would write."""
    replay = scan_log(device, journal_of(device), blocks_count=8192)
    return {block: replay.load(device, block) for block in replay.blocks}


def state_of_log(device: MemoryDevice) -> tuple[int, int]:
    fields = JOURNAL_SUPERBLOCK.record(device.read(journal_of(device).offset(0), 1024))
    return fields["s_start"], fields["s_sequence"]


def test_a_log_in_several_runs() -> None:
    """Runs of the log are its blocks one by one, wherever it begins, and behind its end it goes on at its first block."""
    extents = Extents([(0, 100, 3), (3, 200, 4), (7, 50, 3)])
    journal = Journal(block_size=SIZE, extents=extents, first=1, start=0, sequence=1, errno=0, version=2, raw=b"")
    assert (journal.maxlen, journal.runs) == (10, [(50, 3), (100, 3), (200, 4)])
    for position in range(1, 10):
        for count in range(10):
            blocks = [block for first, length in journal.log_runs(position, count) for block in range(first, first + length)]
            places = [journal.offset(journal.wrapped(position + step)) for step in range(count)]
            assert [block * SIZE for block in blocks] == places
    with pytest.raises(IndexError, match="journal block 10"):
        journal.offset(10)


def test_the_journal_superblock_is_written_for_the_first_one_only() -> None:
    device = short(60)
    recorded = RecordingDevice(device)
    log = writer(device, recorded)
    for number in range(3):
        log.commit({PLACE + number: content(number)}, (), nanoseconds=0)
        assert state_of_log(device) == (1, 7)
    start = log.journal.offset(0)
    assert sum(event.offset == start for event in recorded.events if event.kind == "write") == 1
    assert sum(event.kind == "sync" for event in recorded.events) == 6
    assert replayed(device) == {PLACE + number: content(number) for number in range(3)}
    assert device.read(PLACE * SIZE, SIZE) == bytes(SIZE)
    log.checkpoint()
    assert state_of_log(device) == (0, 10)
    assert [device.read((PLACE + number) * SIZE, SIZE) for number in range(3)] == [content(number) for number in range(3)]
    assert not log.blocks


def test_the_tail_moves_past_what_is_in_place() -> None:
    """A log of 20 blocks and transactions of 4: the sixth drops the three oldest, and what only they held is in its place."""
    device = short(20)
    log = writer(device)
    for number in range(5):
        log.commit({PLACE: content(number), PLACE + 1 + number: content(100 + number)}, (), nanoseconds=0)
    assert state_of_log(device) == (1, 7)
    log.commit({PLACE: content(5), PLACE + 6: content(105)}, (), nanoseconds=0)
    assert state_of_log(device) == (13, 10)
    kept = {PLACE: content(5), PLACE + 4: content(103), PLACE + 5: content(104), PLACE + 6: content(105)}
    assert replayed(device) == kept
    assert {block: log.read(block) for block in log.blocks} == kept
    assert device.read(PLACE * SIZE, SIZE) == bytes(SIZE)  # the newest content is in the log
    assert device.read((PLACE + 1) * SIZE, 3 * SIZE) == b"".join(content(100 + number) for number in range(3))
    assert device.read((PLACE + 4) * SIZE, SIZE) == bytes(SIZE)


def test_the_tail_is_on_storage_before_its_blocks_are_used_again() -> None:
    device = short(8)
    recorded = RecordingDevice(device)
    log = writer(device, recorded)
    log.commit({PLACE: content(1)}, (), nanoseconds=0)
    log.commit({PLACE + 1: content(2)}, (), nanoseconds=0)
    del recorded.events[:]
    log.commit({PLACE + 2: content(3)}, (), nanoseconds=0)
    superblock, first = log.journal.offset(0), log.journal.offset(1)
    names = {superblock: "superblock", PLACE * SIZE: "in place", log.journal.offset(7): "log", first: "commit"}
    found = [names.get(event.offset, "other") if event.kind == "write" else event.kind for event in recorded.events]
    assert found == ["in place", "sync", "superblock", "sync", "log", "sync", "commit", "sync"]
    assert replayed(device) == {PLACE + 1: content(2), PLACE + 2: content(3)}


def test_revokes() -> None:
    """The first revoke sets the feature, beside the oldest transaction. A checkpoint leaves revoked blocks alone."""
    device = short(60)
    log = writer(device)
    log.commit({PLACE: content(1), PLACE + 1: content(2), PLACE + 2: JBD_MAGIC.to_bytes(4, "big") * 256}, (), nanoseconds=0)
    assert not JOURNAL_SUPERBLOCK.record(journal_of(device).raw)["s_feature_incompat"] & FEATURE_REVOKE
    log.commit({}, [PLACE, PLACE + 1], nanoseconds=0)
    assert JOURNAL_SUPERBLOCK.record(journal_of(device).raw)["s_feature_incompat"] & FEATURE_REVOKE
    assert state_of_log(device) == (1, 7)
    log.commit({PLACE + 1: content(3)}, (), nanoseconds=0)
    expected = {PLACE + 1: content(3), PLACE + 2: JBD_MAGIC.to_bytes(4, "big") * 256}
    assert replayed(device) == expected
    device.write(PLACE * SIZE, content(9))  # by now the data of a file
    log.checkpoint()
    assert device.read(PLACE * SIZE, SIZE) == content(9)
    assert {block: device.read(block * SIZE, SIZE) for block in expected} == expected


def test_any_size_that_fits() -> None:
    device = short(20)
    log = writer(device)
    log.commit({PLACE: content(0)}, (), nanoseconds=0)
    log.commit({PLACE + number: content(number) for number in range(18)}, (), nanoseconds=0)
    assert state_of_log(device) == (1, 8)
    assert len(replayed(device)) == 18
    with pytest.raises(JournalFullError):
        log.commit({PLACE + number: content(number) for number in range(19)}, (), nanoseconds=0)
    log.commit({PLACE + 1: content(50)}, (), nanoseconds=0)
    assert state_of_log(device) == (1, 9)
    assert device.read(PLACE * SIZE, SIZE) == content(0)
    assert replayed(device) == {PLACE + 1: content(50)}


@pytest.mark.parametrize("log_bytes", [1 << 30, 40 << 10])
@pytest.mark.parametrize("seed", range(4))
def test_random_transactions(seed: int, log_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each commit a replay gives what the transactions left; numbers go past 2**32 and blocks around the log."""
    monkeypatch.setattr(transaction, "LOG_BYTES", log_bytes)
    chance = random.Random(seed)
    device = short(chance.randrange(12, 90), 0xFFFFFFF0)
    log = writer(device)
    wanted = {PLACE + number: bytes(SIZE) for number in range(40)}
    starts = set()
    for number in range(60):
        blocks = {block: content(100 * number + block) for block in chance.sample(sorted(wanted), chance.randrange(0, 9))}
        revoked = chance.sample(sorted(set(wanted) - set(blocks)), chance.randrange(0, 3))
        if not blocks and not revoked:
            continue
        log.commit(blocks, revoked, nanoseconds=0)
        wanted.update(blocks)
        for block in revoked:  # freed, and at once the data of a file
            wanted[block] = content(block)
            device.write(block * SIZE, content(block))
        if chance.random() < 0.03:
            log.checkpoint()
        starts.add(state_of_log(device))
        found = replayed(device)
        assert found.items() >= {block: log.read(block) for block in log.blocks}.items()
        assert {block: found.get(block, device.read(block * SIZE, SIZE)) for block in wanted} == wanted
        assert len(log.blocks) * SIZE <= log_bytes
    assert len(starts) > 3
    log.checkpoint()
    assert {block: device.read(block * SIZE, SIZE) for block in wanted} == wanted


class Failing(MemoryDevice):
    """Fails at its ``left``-th sync."""

    left = 1 << 30

    def sync(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise DeviceError("the disk is gone")


def test_a_checkpoint_that_fails() -> None:
    """On its own it says that the changes are safe; before a commit it does not, as that one's are lost."""
    device = Failing(short(8).data)
    log = writer(device)
    log.commit({PLACE: content(1)}, (), nanoseconds=0)
    log.commit({PLACE: content(2)}, (), nanoseconds=0)
    device.left = 1
    with pytest.raises(DeviceError, match=r"the disk is gone$"):
        log.commit({PLACE: content(3)}, (), nanoseconds=0)
    device.left = 1
    with pytest.raises(CheckpointError):
        log.checkpoint()
    assert replayed(device) == {PLACE: content(2)}
