"""Random edits of every kind, interrupted anywhere: what is found is the tree after one of them, none before the last sync.

Data is only appended, or gets new blocks: what is written over old data is there at once, as on every filesystem.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import pytest

import ext3
from ext3.constants import FileType
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import Event, RecordingDevice, play
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.superblock import read_superblock
from ext3.journal.transaction import LogWriter
from ext3.newfs.plan import ImageOptions
from ext3.newfs.stamp import Stamp

from ..support.image_checks import check_counts
from ..support.model_edits import ModelEdits
from ..support.model_tree import compare
from ..support.sessions import COMMIT_START, clock, empty_tree
from .test_transaction import Recording, cuts

ATOMIC = {"mkdir", "mknod", "symlink", "link", "unlink", "rmdir", "rename", "exchange", "chmod", "chown", "append"}
KINDS = {
    "moves": ATOMIC,
    "attributes": {*ATOMIC, "set_xattr", "remove_xattr"},
    "orphans": {*ATOMIC, "write_bytes", "orphan", "truncate", "punch"},
}


def state(device: MemoryDevice) -> str:
    """All that an image holds, through its journal."""
    with ext3.Filesystem.open(device) as fs:
        assert fs.journal_problem is None
        return state_of(fs)


def state_of(fs: ext3.Filesystem) -> str:
    """Names, facts, attributes, targets and data; a hole is the same as zeros, and takes no time."""
    digest = sha256()
    size = fs.superblock.block_size
    for path, entry in sorted(fs.walk("/")):
        facts = fs.stat(entry.ino)
        links = 0 if facts.is_dir else facts.links
        shown = (path, entry.file_type, facts.mode, facts.uid, facts.gid, facts.major, facts.minor, facts.mtime, links)
        digest.update(repr((shown, facts.is_dir or facts.size, sorted(fs.xattrs(entry.ino).items()))).encode())
        if entry.file_type is FileType.SYMLINK:
            digest.update(fs.readlink(entry.ino))
        elif entry.file_type is FileType.REGULAR:
            with fs.open_file(entry.ino) as file:
                for logical, _, count in fs.data_extents(entry.ino):
                    file.seek(logical * size)
                    data = file.read(count * size)
                    for at in range(0, len(data), size):
                        block = data[at : at + size]
                        if block.count(0) != len(block):
                            digest.update(b"%d" % (logical * size + at) + block)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Sequence:
    """``states``: after each operation; ``syncs``: (events, operations) that had happened when a sync was over."""

    before: bytes
    events: list[Event]
    states: list[str]
    syncs: list[tuple[int, int]]

    def cuts(self, seed: int) -> Iterator[tuple[int, MemoryDevice]]:
        return cuts(Recording(self.before, self.events, [], []), seed)

    def allowed(self, happened: int) -> list[str]:
        """What may be found when ``happened`` events are on storage. The journal may have been full between two syncs."""
        last = max(number for number, (events, _) in enumerate(self.syncs) if events <= happened)
        end = self.syncs[min(last + 1, len(self.syncs) - 1)][1]
        return self.states[self.syncs[last][1] : end + 1]


def record(kind: str, block_size: int, *, syncs: int, journal_bytes: int | None = None) -> Sequence:
    """Some random edits, a sync, more edits; at the end files without names are still open."""
    size = 8 << 20 if block_size == 1024 else 24 << 20
    device = MemoryDevice(size)
    options = ImageOptions(size=size, block_size=block_size, inode_size=128 if kind == "attributes" else 256)
    ext3.build_image(empty_tree(), device, options=options, stamp=Stamp(1_700_000_000, b"u" * 16, b"h" * 16))
    edits = ModelEdits(block_size, block_size=block_size, largest=20_000, only=KINDS[kind])
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        _prepare(fs, edits, block_size)
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    fs = ext3.Filesystem.open(recorded, "r+", clock=clock)
    states = [state_of(fs)]
    marks = [(0, 0)]
    for number in range(syncs):
        for _ in range(1 + number % 7):
            edits.step(fs)
            states.append(state_of(fs))
        fs.sync()
        marks.append((len(recorded.events), len(states) - 1))
        assert state(device) == states[-1]
    compare(fs, edits.tree)
    fs.abandon()
    edits.held.clear()
    assert len(set(states)) > len(states) // 2
    return Sequence(before, recorded.events, states, marks)


def _prepare(fs: WritableFilesystem, edits: ModelEdits, block_size: int) -> None:
    """Something of every kind to begin with; files of which the maps are large among it."""
    for number in range(40):
        edits.apply(
            fs, ("mkdir", b"/dir%d" % number, 0o755, 0, 0) if number % 4 == 0 else ("write_bytes", b"/f%d" % number, b"")
        )
    pointers = block_size // 4
    for number in range(1, 30, 4):
        edits.apply(fs, ("append", b"/f%d" % number, b"large" * 4000))
        for place in range(1, 9):
            edits.apply(
                fs, ("write", b"/f%d" % number, (12 + place * pointers + pointers**2 * (place > 4)) * block_size, b"far")
            )
        edits.apply(fs, ("set_xattr", b"/f%d" % number, b"trusted.long", b"value" * 100))


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere(kind: str, block_size: int) -> None:
    sequence = record(kind, block_size, syncs=6)
    seen: dict[bytes, str] = {}
    found = set()
    for number, (happened, left) in enumerate(sequence.cuts(seed=block_size)):
        if number % 2:
            continue
        expected = sequence.allowed(happened)
        digest = sha256(left.data).digest()
        if digest not in seen:
            seen[digest] = state(left)
        assert seen[digest] in expected
        found.add(seen[digest])
        with ext3.Filesystem.open(left, "r+", clock=clock) as fs:
            assert state_of(fs) == seen[digest]
            fs.write_bytes("/after", b"a" * 50_000)
            fs.unlink("/after")
        assert read_superblock(left).clean
        with ext3.Filesystem.open(left) as fs:
            check_counts(fs)
    assert len(found) >= 6


@pytest.mark.parametrize("how", ["truncate", "unlink", "replace"])
def test_a_large_file_goes_in_steps(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More groups than the journal takes at once: at every moment the file is there, or cut, and the image can be used."""
    size = 24 << 20
    device = MemoryDevice(size)
    options = ImageOptions(size=size, block_size=1024, inodes=64)
    ext3.build_image(empty_tree(), device, options=options, stamp=Stamp(1_700_000_000, b"u" * 16, b"h" * 16))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/f", b"f" * (18 << 20))
        fs.symlink("g", "/g")
    before = bytes(device.data)
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
