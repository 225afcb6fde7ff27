"""Sessions and their transactions: the binding order of writes, undone operations, refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ext3
from ext3.constants import JBD_MAGIC, SUPERBLOCK_OFFSET, Incompat
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.edit.orphan_list import add_orphan, delete_inode, orphan_chain, remove_orphan
from ext3.edit.session import Session
from ext3.errors import (
    CorruptError,
    DeviceError,
    JournalFullError,
    NeedsCheckError,
    NoFreeInodesError,
    NoSpaceError,
    PathNotFoundError,
    UnsupportedError,
)
from ext3.format.group_desc import read_groups
from ext3.format.jbd_schema import JOURNAL_HEADER, JOURNAL_SUPERBLOCK
from ext3.format.schema import INODE_CORE, SUPERBLOCK
from ext3.format.superblock import read_superblock
from ext3.journal.log import read_journal, scan_log

from ....support.sessions import FILES, clock, empty_image, grow, inode_of, sample, session, set_size, signature


def described(device: MemoryDevice, recorded: RecordingDevice) -> list[str]:
    """The events of a recording, named by what they write."""
    superblock = read_superblock(device)
    journal = read_journal(device, superblock, read_groups(device, superblock))
    names = []
    places = {journal.offset(position): position for position in range(journal.maxlen)}
    for event in recorded.events:
        if event.kind != "write":
            names.append(event.kind)
        elif event.offset == SUPERBLOCK_OFFSET and event.size == 512:
            raw = SUPERBLOCK.view(event.data.ljust(1024, b"\0"))
            names.append("flag set" if raw["s_feature_incompat"][0] & Incompat.NEEDS_RECOVERY else "flag clear")
        elif event.offset == journal.offset(0):
            row = JOURNAL_SUPERBLOCK.record(event.data)
            names.append(f"journal start {row['s_start']} sequence {row['s_sequence']}")
        elif event.offset in places:
            kind = JOURNAL_HEADER.packer.unpack_from(event.data)[1]
            names.append("commit" if kind == 2 else "log")
        else:
            names.append("data" if event.data[0] == 0xDA else "in place")
    return [name for number, name in enumerate(names) if number == 0 or name != names[number - 1]]


def test_order_of_a_transaction() -> None:
    device = sample()
    recorded = RecordingDevice(device)
    with session(recorded) as edit:
        for number in range(2):
            with edit.operation():
                set_size(edit, inode_of(number), 0)
                grow(edit, inode_of(number), 3, 0xDA)
            edit.sync()
    first = ["flag set", "sync"]
    body = ["commit", "sync", "in place", "sync"]
    assert described(device, recorded) == [
        "data", *first, "log", "journal start 1 sequence 1", "sync", *body, "journal start 0 sequence 2", "sync",
        "data", "log", "journal start 1 sequence 2", "sync", *body, "journal start 0 sequence 3", "sync",
        "flag clear", "sync",
    ]  # fmt: skip


def test_nothing_done_is_nothing_written() -> None:
    recorded = RecordingDevice(sample())
    with session(recorded) as edit:
        assert edit.read_inode(2) != bytes(256)
        with edit.operation():
            pass
    assert recorded.events == []


def test_every_logged_superblock_says_that_recovery_is_needed() -> None:
    device = sample()
    recorded = RecordingDevice(device)
    with session(recorded) as edit, edit.operation():
        set_size(edit, inode_of(0), 0)
    images = [
        event.data[at : at + 1024]
        for event in recorded.events
        for at in range(0, event.size, 1024)
        if event.size > 512 and event.data[at + 56 : at + 58] == b"\x53\xef"
    ]
    assert len(images) == 2
    assert all(SUPERBLOCK.record(raw)["s_feature_incompat"] & Incompat.NEEDS_RECOVERY for raw in images)


def test_revokes_and_escapes() -> None:
    """A freed block is revoked; one that is written again in the same transaction is not; the magic survives."""
    device = sample()
    recorded = RecordingDevice(device)
    content = JBD_MAGIC.to_bytes(4, "big") + b"m" * 1020
    with session(recorded) as edit:
        with edit.operation():
            ((first, _),) = edit.allocate(4, 5000)
            for block in range(first, first + 4):
                edit.write(block, content)
            edit.free([(first, 2)], metadata=True)
            edit.write(first, content)
        edit.sync()
    commit = next(n for n, e in enumerate(recorded.events) if e.kind == "write" and e.data[4:8] == b"\0\0\0\2")
    torn = play(sample(), recorded.events[: commit + 1])
    superblock = read_superblock(torn)
    journal = read_journal(torn, superblock, read_groups(torn, superblock))
    replay = scan_log(torn, journal, blocks_count=superblock.blocks_count)
    assert first in replay.blocks
    assert first + 1 not in replay.blocks
    assert replay.load(torn, first) == replay.load(torn, first + 2) == content
    assert device.read((first + 3) * 1024, 1024) == content


def test_operation_that_fails_leaves_nothing() -> None:
    device = sample()
    with session(device) as edit:
        with edit.operation():
            set_size(edit, inode_of(0), 5000)
        edit.sync()
        before, files = bytes(device.data), signature(device)
        with pytest.raises(ZeroDivisionError), edit.operation():
            set_size(edit, inode_of(1), 100)
            ino = edit.allocate_inode(2, is_dir=True)
            add_orphan(edit, inode_of(2))
            edit.write_inode(ino, bytes(256))
            ((first, _),) = edit.allocate(1, 0)
            edit.write(first, bytes(1024))
            assert edit.groups["bg_used_dirs_count"][0] == 3
            _ = 1 // 0
        assert not edit.inode_in_use(ino)
        assert edit.last_orphan == 0
        edit.flush()
        edit.sync()
        assert signature(device) == files
        changed = [at for at in range(0, len(before), 1024) if before[at : at + 1024] != device.read(at, 1024)]
        superblock = read_superblock(device)
        journal = read_journal(device, superblock, read_groups(device, superblock))
        assert set(changed) <= {1024, *map(journal.offset, range(journal.maxlen))}


def test_data_over_a_block_that_waits() -> None:
    """Data written where a changed block is not in place yet: the later one stays."""
    device = sample()
    with session(device) as edit:
        with edit.operation():
            ((first, _),) = edit.allocate(3, 4000)
            edit.write(first + 1, b"a" * 1024)
            edit.write_data(first, b"b" * 2500)
        assert edit.device.read(first * 1024, 3072)[:2500] == b"b" * 2500
    assert device.read(first * 1024, 3072)[:2500] == b"b" * 2500


def test_inner_operation_is_undone_alone() -> None:
    device = sample()
    with session(device) as edit, edit.operation():
        set_size(edit, inode_of(0), 0)
        with pytest.raises(KeyError), edit.operation():
            set_size(edit, inode_of(1), 0)
            raise KeyError
        set_size(edit, inode_of(2), 0)
    with ext3.Filesystem.open(device) as fs:
        assert [fs.stat(f"f{number}").size for number in range(3)] == [0, 30_000, 0]
        assert fs.superblock.free_blocks == int(fs.groups["bg_free_blocks_count"].sum())


def test_freed_blocks_wait_for_the_commit() -> None:
    with session(sample()) as edit:
        with edit.operation():
            everything = edit.allocate(edit.blocks.available, 0)
            with pytest.raises(NoSpaceError) as caught:
                edit.allocate(1, 0)
            assert caught.value.needed_bytes == 1024
            edit.free(everything, metadata=False)
            with pytest.raises(NoSpaceError):
                edit.allocate(1, 0)
        edit.sync()
        with edit.operation():
            assert edit.allocate(1, everything[0][0]) == [(everything[0][0], 1)]


def test_run_commits_and_tries_again() -> None:
    with session(sample()) as edit:
        calls = []

        def work() -> list[tuple[int, int]]:
            calls.append(edit.blocks.total_held)
            return edit.allocate(edit.blocks.total_free, 0)

        with edit.operation():
            edit.free(edit.allocate(100, 0), metadata=False)
        edit.run(work)
        assert calls == [100, 0]


def test_more_than_the_journal_holds() -> None:
    device = sample()
    with session(device) as edit:
        before = edit.log_space
        with pytest.raises(JournalFullError), edit.operation():
            for first, count in edit.allocate(1200, 0):
                for block in range(first, first + count):
                    edit.write(block, bytes(1024))
        assert edit.log_space == before
        assert not edit.pending
        for _ in range(3):
            with edit.operation():
                for first, count in edit.allocate(before - 20, 0):
                    for block in range(first, first + count):
                        edit.write(block, bytes(1024))
            assert not edit.pending  # committed by itself: far more than a quarter of the journal


def test_orphans_are_processed_at_the_next_open() -> None:
    device = sample()
    with session(device) as edit:
        free = edit.superblock.free_blocks
        with edit.operation():
            for number in range(4):
                add_orphan(edit, inode_of(number))
                add_orphan(edit, inode_of(number))
            remove_orphan(edit, inode_of(1))
            raw = bytearray(edit.read_inode(inode_of(0)))
            INODE_CORE.view(raw)["i_size"] = 1500
            edit.write_inode(inode_of(0), raw)
        assert list(orphan_chain(edit)) == [inode_of(3), inode_of(2), inode_of(0)]
        with pytest.raises(CorruptError), edit.operation():
            remove_orphan(edit, inode_of(1))
    with session(device) as edit:
        assert edit.orphans == (0, 3)
        assert edit.last_orphan == 0
        assert edit.superblock.free_blocks == free + 29  # 30 blocks and a pointer block, 2 of them kept
        assert edit.device.read(0, edit.device.size)[: 1 << 16] == bytes(device.data[: 1 << 16])
    with ext3.Filesystem.open(device) as fs:
        assert [fs.stat(f"f{number}").blocks for number in range(4)] == [4, 62, 62, 62]


@pytest.mark.parametrize("chain", ["out of range", "loop", "reserved"])
def test_damaged_orphan_list(chain: str) -> None:
    device = sample()
    with session(device) as edit, edit.operation():
        add_orphan(edit, inode_of(0))
        edit.last_orphan = {"out of range": 1 << 30, "loop": inode_of(0), "reserved": 7}[chain]
        if chain == "loop":
            raw = bytearray(edit.read_inode(inode_of(0)))
            INODE_CORE.view(raw)["i_dtime"] = inode_of(0)
            edit.write_inode(inode_of(0), raw)
    with pytest.raises(CorruptError):
        session(device)
    assert len(signature(device)) == FILES


def test_deleted_inode_gives_everything_back() -> None:
    device = sample()
    with session(device) as edit:
        before = edit.superblock
        with edit.operation():
            delete_inode(edit, inode_of(5))
        assert edit.superblock.free_blocks == before.free_blocks + 31
        assert edit.superblock.free_inodes == before.free_inodes + 1
        with pytest.raises(CorruptError), edit.operation():
            edit.free_inode(inode_of(5), is_dir=False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda edit, zone: edit.free([(zone, 1)], metadata=False),
        lambda edit, zone: edit.write(zone, bytes(1024)),
        lambda edit, zone: edit.write_data(zone, b"x"),
    ],
)
def test_the_filesystems_own_blocks_are_left_alone(damage: Callable[[Session, int], None]) -> None:
    """Whatever a damaged file claims: bitmaps, tables, descriptors and the journal are neither written nor freed."""
    device = sample()
    superblock = read_superblock(device)
    groups = read_groups(device, superblock)
    journal = read_journal(device, superblock, groups)
    own = [1, 2, *(int(groups[name][0]) for name in ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table"))]
    with session(device) as edit:
        for zone in (*own, journal.runs[0][0], sum(journal.runs[-1]) - 1, 0, superblock.blocks_count):
            with pytest.raises(CorruptError), edit.operation():
                damage(edit, zone)
        assert not edit.pending


def test_refused() -> None:
    with session(sample()) as edit:
        for ino in (0, edit.superblock.inodes_count + 1):
            with pytest.raises(PathNotFoundError):
                edit.read_inode(ino)
        with pytest.raises(ValueError, match="not a block"):
            edit.write(5000, b"short")
        with pytest.raises(ValueError, match="not an inode"):
            edit.write_inode(12, b"short")
        with edit.operation(), pytest.raises(ValueError, match="inside an operation"):
            edit.sync()
        with pytest.raises(NoFreeInodesError), edit.operation():
            while True:
                edit.allocate_inode(2, is_dir=False)
    with pytest.raises(DeviceError, match="closed"), edit.operation():
        pass


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"s_state": 3}, NeedsCheckError),
        ({"s_state": 0}, NeedsCheckError),
        ({"s_feature_ro_compat": 0x13}, UnsupportedError),
        ({"s_feature_ro_compat": 0x403}, UnsupportedError),
    ],
)
def test_images_that_are_not_changed(fields: dict[str, int], error: type[Exception]) -> None:
    device = sample()
    row = SUPERBLOCK.view(device.data, 1, SUPERBLOCK_OFFSET)
    for name, value in fields.items():
        row[name] = value
    before = bytes(device.data)
    with pytest.raises(error):
        session(device)
    assert bytes(device.data) == before


def test_group_that_lies_about_its_bitmap() -> None:
    device = sample()
    superblock = read_superblock(device)
    bitmap = int(read_groups(device, superblock)["bg_block_bitmap"][0])
    device.data[bitmap * 1024 + 700] ^= 1
    with session(device) as edit:
        with pytest.raises(CorruptError, match="bg_free_blocks_count") as caught, edit.operation():
            edit.allocate(1, 0)
        assert caught.value.needs_check
        assert not edit.pending


class Failing(MemoryDevice):
    """Fails at its ``left``-th sync."""

    left = 1 << 30

    def sync(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise DeviceError("the disk is gone")


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_failing_storage(at: int) -> None:
    """After a failed write nothing more is written, and what was there before or what was meant is found again."""
    device = Failing(bytes(sample().data))
    before = signature(device)
    edit = session(device)
    device.left = at
    with edit.operation():
        set_size(edit, inode_of(0), 10)
    with pytest.raises(DeviceError, match="gone"):
        edit.sync()
    state = bytes(device.data)
    with pytest.raises(DeviceError, match="earlier write"), edit.operation():
        pass
    edit.close()
    assert bytes(device.data) == state
    device.left = 1 << 30
    with session(device):
        pass
    after = signature(device)
    assert (after == before) == (at < 3)
    assert not read_superblock(device).needs_recovery


def test_without_journal_the_state_is_cleared_first_and_set_last() -> None:
    device = sample(journal=False)
    recorded = RecordingDevice(device)
    with session(recorded) as edit, edit.operation():
        set_size(edit, inode_of(0), 10)
    kinds = [event.kind for event in recorded.events]
    marks = [event.data for event in recorded.events if event.offset == SUPERBLOCK_OFFSET and event.size == 512]
    states = [SUPERBLOCK.view(mark.ljust(1024, b"\0"))["s_state"][0] for mark in marks]
    assert states == [0, 1]
    assert kinds[0] == "write"
    assert kinds[1] == kinds[-1] == "sync"
    with pytest.raises(NeedsCheckError):
        session(play(sample(journal=False), recorded.events[:4]))
    assert read_superblock(device).clean
    assert clock() // 10**9 == read_superblock(device).write_time


@pytest.mark.parametrize("links", [0, 1])
def test_orphan_larger_than_the_journal_takes_at_once(links: int) -> None:
    """A file over more groups than a transaction has room for is freed in steps, each of which may be the last."""
    device = sample(size=160 << 20, length=22 << 20)
    superblock = read_superblock(device)
    groups = read_groups(device, superblock)
    with session(device) as edit:
        before = edit.superblock.free_blocks
        with edit.operation():
            add_orphan(edit, inode_of(3))
            raw = bytearray(edit.read_inode(inode_of(3)))
            INODE_CORE.view(raw)["i_links_count"] = links
            INODE_CORE.view(raw)["i_size"] = 0 if links else 22 << 20
            edit.write_inode(inode_of(3), raw)
    journal = read_journal(device, superblock, groups)
    JOURNAL_SUPERBLOCK.view(device.data, 1, journal.offset(0))["s_maxlen"] = 11
    recorded = RecordingDevice(device)
    with session(recorded) as edit:
        assert edit.orphans == (1 - links, links)
        assert edit.superblock.free_blocks - before == (22 << 10) + 88 + 1  # with its pointer blocks
    assert described(device, recorded).count("commit") > 2


def test_checkpoint_empties_the_log_and_goes_on() -> None:
    device = empty_image()
    with Session(device, clock=clock) as session:
        runs = session.allocate(3, 0)
        session.checkpoint()
        superblock = read_superblock(device)
        assert superblock.clean
        assert not read_journal(device, superblock, read_groups(device, superblock)).start
        session.free(runs, metadata=False)
        session.sync()
        assert read_superblock(device).needs_recovery
    assert read_superblock(device).clean
