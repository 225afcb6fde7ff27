"""Repairs killed at every write: a second check ends clean, and what the first would have kept is still there."""

from __future__ import annotations

import random
import stat
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import ext3
from ext3.constants import JOURNAL_INO, ROOT_INO, InodeFlag
from ext3.device.base import BlockDevice, MemoryDevice
from ext3.device.copy_on_write import CopyOnWriteDevice, RecordingDevice, play
from ext3.format.inode_table import inode_offset
from ext3.format.resize_inode import reserved_blocks
from ext3.format.schema import DX_ROOT_INFO, INODE_CORE, SUPERBLOCK
from ext3.fsck import CheckOnly, CheckOptions, Report, UndoRecorder, Yes, check, put_back

from ..support.crashes import Recording, key_of
from ..support.facts import content_digest
from ..support.sessions import STAMP, clock, empty_image

MOST_WRITES = 200
SEEDS = 4
"""Random orders in which what was not synced is lost, of each moment."""
TREE = b"/tree"
LARGE = b"/large"


@cache
def sound() -> bytes:
    """An image of three groups: a tree of files, an indexed directory, links, attributes."""
    device = empty_image(18 << 20, inodes=2048)
    generator = random.Random(3)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir(TREE)
        for number in range(6):
            directory = TREE + b"/%d" % number
            fs.mkdir(directory)
            for name in range(4):
                fs.write_bytes(directory + b"/f%d" % name, generator.randbytes(generator.randrange(1, 20_000)))
            fs.symlink(b"f0", directory + b"/link")
            fs.set_xattr(directory, b"user.number", b"%d" % number * 200)
        fs.mkdir(LARGE)
        for number in range(300):
            fs.write_bytes(LARGE + b"/%d-" % number + b"n" * 60, b"%d" % number)
        fs.write_bytes(b"/one", generator.randbytes(30_000))
        fs.write_bytes(b"/two", generator.randbytes(30_000))
        assert fs.stat(LARGE).flags & InodeFlag.INDEX
    return bytes(device.data)


def patch(device: MemoryDevice, path: bytes | int, **fields: Any) -> None:
    """Set fields of an inode; ``i_block`` is a dict of words."""
    with ext3.Filesystem.open(MemoryDevice(device.data)) as fs:
        ino = path if isinstance(path, int) else fs.lookup(path)
        row = INODE_CORE.view(device.data, 1, inode_offset(fs.superblock, fs.groups, ino))
    for name, value in fields.items():
        if name == "i_block":
            for slot, block in value.items():
                row[name][0, slot] = block
        else:
            row[name] = value


def blocks_of(device: MemoryDevice, path: bytes) -> list[int]:
    with ext3.Filesystem.open(MemoryDevice(device.data)) as fs:
        return [block + step for _, block, count in fs.data_extents(path) for step in range(count)]


def unlink_entry(device: MemoryDevice, directory: bytes, name: bytes) -> None:
    """Clear the inode number of a directory entry."""
    for block in blocks_of(device, directory):
        at = bytes(device.data).find(name, block * 1024, (block + 1) * 1024)
        if at >= 0:
            device.data[at - 8 : at - 4] = bytes(4)
            return
    raise AssertionError(name)


def shared_blocks(device: MemoryDevice) -> None:
    """Two files with the same blocks: each gets a copy."""
    first = blocks_of(device, b"/one")
    patch(device, b"/two", i_block=dict(enumerate(first[:12])))


def broken_index(device: MemoryDevice) -> None:
    """A directory whose index is of an unknown kind: it is made anew."""
    root = blocks_of(device, LARGE)[0] * 1024
    DX_ROOT_INFO.view(device.data, 1, root + 24)["hash_version"] = 77


def lost_directories(device: MemoryDevice) -> None:
    """Directories without a name, and no lost+found."""
    for number in range(3):
        unlink_entry(device, TREE, b"%d" % number)
    unlink_entry(device, b"/", b"lost+found")
    unlink_entry(device, b"/", b"one")


def lost_root(device: MemoryDevice) -> None:
    """No root: all directories are linked into lost+found."""
    patch(device, ROOT_INO, i_mode=0, i_links_count=0)


def lost_superblock(device: MemoryDevice) -> None:
    """No superblock, descriptors of zeros: both come from a copy, the bitmaps from what is in use."""
    device.data[1024:3072] = bytes(2048)


def lost_journal(device: MemoryDevice) -> None:
    """A journal inode that leads nowhere: a new journal."""
    patch(device, JOURNAL_INO, i_block={0: 5_000_000, 1: 0, 12: 7_000_000})
    SUPERBLOCK.view(device.data, 1, 1024)["s_jnl_backup_type"] = 0


def bad_pointers(device: MemoryDevice) -> None:
    """Pointers out of the image, wrong sizes and counts, an entry that leads to nothing."""
    patch(device, b"/one", i_block={3: 9_999_999}, i_blocks=1)
    patch(device, b"/two", i_size=5)
    patch(device, TREE, i_links_count=77)
    patch(device, TREE + b"/1/f1", i_mode=0, i_links_count=0)


def in_recovery(device: MemoryDevice) -> None:
    """A change that is committed to the journal and not yet in its place, a removed file that is still open."""
    recording = RecordingDevice(MemoryDevice(device.data))
    with ext3.Filesystem.open(recording, "r+", clock=clock) as fs:
        for number in range(40):
            fs.write_bytes(TREE + b"/3/new%d" % number, b"%d" % number * 500)
        fs.unlink(TREE + b"/4/f1")
    for end in range(len(recording.events)):
        left = play(MemoryDevice(device.data), recording.events[:end])
        with ext3.Filesystem.open(left) as fs:
            names = {entry.name for entry in fs.scandir(TREE + b"/3")}
            if fs.needs_recovery and fs.journal_problem is None and b"new39" in names:
                device.data[:] = left.read(0, left.size)
                return
    raise AssertionError("no moment of the change has a log")


def reserved_block_in_a_file(device: MemoryDevice) -> None:
    """A file with a block of reserved descriptors, whose pointers are wrong: the file gets a copy before they are written."""
    with ext3.Filesystem.open(MemoryDevice(device.data)) as fs:
        block = int(reserved_blocks(fs.superblock.geometry)[0])
    patch(device, b"/one", i_block={0: block})
    device.data[block * 1024 : block * 1024 + 64] = b"content!" * 8


DAMAGE = [
    shared_blocks,
    broken_index,
    lost_directories,
    lost_root,
    lost_superblock,
    lost_journal,
    bad_pointers,
    reserved_block_in_a_file,
    in_recovery,
]


def run(device: BlockDevice, *, force: bool = False) -> Report:
    return check(device, Yes(), options=CheckOptions(force=force), stamp=STAMP)


def contents(device: BlockDevice) -> tuple[Counter[str], dict[bytes, str]]:
    """(contents of all files and links, those by path of what is not in lost+found)."""
    found: Counter[str] = Counter()
    paths: dict[bytes, str] = {}
    with ext3.Filesystem.open(device) as fs:
        for path, entry in fs.walk("/"):
            now = fs.stat(entry.ino)
            if stat.S_ISREG(now.mode):
                what = content_digest([(0, fs.read_bytes(entry.ino))])
            else:
                what = repr((now.mode, fs.readlink(entry.ino) if stat.S_ISLNK(now.mode) else b""))
            found[what] += 1
            if not path.startswith(b"lost+found"):
                paths[path] = what
    return found, paths


def test_the_image_is_sound() -> None:
    report = check(MemoryDevice(sound()), CheckOnly(), options=CheckOptions(force=True))
    assert report.clean and not report.findings


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_repair_that_is_killed_is_done_again(damage: Callable[[MemoryDevice], None]) -> None:
    device = MemoryDevice(sound())
    damage(device)
    before = bytes(device.data)
    recording = RecordingDevice(MemoryDevice(before))
    first = run(recording, force=True)
    assert first.clean and (first.corrected or first.replayed)
    kept, named = contents(recording.device)
    assert not check(recording.device, CheckOnly(), options=CheckOptions(force=True)).findings
    events = recording.events
    writes = [number for number, event in enumerate(events) if event.kind != "sync"]
    limit = writes[MOST_WRITES] if len(writes) > MOST_WRITES else len(events)
    recorded = Recording(before, events[:limit], [], [(0, 0)])
    tried: set[int] = set()
    for _, left in (cut for seed in range(SEEDS) for cut in recorded.cuts(seed)):
        key = key_of(left)
        if key in tried:
            continue
        tried.add(key)
        _check_left(left, kept, named, force=left.read(0, left.size) == before)
    assert len(tried) > 8


def _check_left(left: CopyOnWriteDevice, kept: Counter[str], named: dict[bytes, str], *, force: bool) -> None:
    second = run(left, force=force)
    assert second.clean, [str(finding) for finding in second.findings]
    again = check(left, CheckOnly(), options=CheckOptions(force=True))
    assert not again.left and not again.findings, [str(finding) for finding in again.findings]
    found, paths = contents(left)
    lost = kept - found
    assert not lost, lost
    assert named.items() <= paths.items()


class UndoSink:
    """Undo file in memory. ``synced``: bytes of it that are on storage."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = 0

    def append(self, data: bytes) -> None:
        self.data += data

    def sync(self) -> None:
        self.synced = len(self.data)


class Watched(RecordingDevice):
    """Recording device that notes the undo file before each event: (bytes on storage, bytes)."""

    def __init__(self, device: BlockDevice, sink: UndoSink) -> None:
        super().__init__(device)
        self.sink = sink
        self.lengths: list[tuple[int, int]] = []

    def _note(self) -> None:
        self.lengths.append((self.sink.synced, len(self.sink.data)))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._note()
        super().write(offset, data)

    def make_zero(self, offset: int, size: int) -> None:
        self._note()
        super().make_zero(offset, size)

    def sync(self) -> None:
        self._note()
        super().sync()


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_repair_that_is_killed_is_undone(damage: Callable[[MemoryDevice], None]) -> None:
    device = MemoryDevice(sound())
    damage(device)
    before = bytes(device.data)
    sink = UndoSink()
    watched = Watched(MemoryDevice(before), sink)
    recorder = UndoRecorder(watched, sink, made=0)
    assert run(recorder, force=True).clean
    recorder.finish()
    after = MemoryDevice(watched.device.read(0, device.size))
    assert put_back(MemoryDevice(sink.data), after).complete and bytes(after.data) == before
    generator = random.Random(7)
    events = watched.events
    for end in range(1, len(events) + 1):
        synced = watched.lengths[end - 1][0]
        appended = watched.lengths[end][1] if end < len(events) else len(sink.data)
        last_sync = max((number + 1 for number in range(end) if events[number].kind == "sync"), default=0)
        loose = [event for event in events[last_sync:end] if generator.random() < 0.5]
        sectors = events[end - 1].size // 512
        torn = sorted(generator.sample(range(sectors), sectors // 2)) if events[end - 1].kind == "write" else ()
        for left in (
            play(MemoryDevice(before), events[:end]),
            play(MemoryDevice(before), [*events[:last_sync], *loose]),
            play(MemoryDevice(before), events[:end], torn=torn),
        ):
            for length in {synced, generator.randrange(synced, appended + 1), appended if end < len(events) else synced}:
                copy = MemoryDevice(left.read(0, left.size))
                put_back(MemoryDevice(sink.data[:length]), copy)
                assert bytes(copy.data) == before
