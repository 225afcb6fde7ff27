"""What is remembered of inodes while they are edited: nothing of it is old, however few are remembered or what went wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress

import pytest

import ext3
from ext3.constants import InodeFlag
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.edit import inode_cache
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.orphan_list import OrphanLinks
from ext3.format.inode import parse_inode
from ext3.journal.transaction import LogWriter

from ....support.edits import Edits
from ....support.image_checks import check_counts
from ....support.operations import ImageTree
from ....support.random_operations import FULL_PHASES
from ....support.sessions import clock, empty_image


@pytest.mark.parametrize("exchange", [False, True])
def test_moved_deeper_than_inodes_are_remembered(exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way up from the new place leads through the old one, which was forgotten meanwhile."""
    monkeypatch.setattr(inode_cache, "CACHE_SIZE", 8)
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        deep = 2
        for _ in range(20):
            deep = fs.mkdir_at(deep, b"d")
        for number in range(10):
            name = b"%d" % number
            fs.mkdir_at(2, name)
            if exchange:
                fs.create_at(deep, name)
            fs.rename_at(2, name, deep, name, exchange=exchange)
            fs.mkdir_at(2, b"n%d" % number)
        at_top = [b"%d" % number for number in range(10)] if exchange else []
        expected = sorted([b"d", b"lost+found", *at_top, *(b"n%d" % number for number in range(10))])
        assert sorted(entry.name for entry in fs.scandir(2)) == expected
        assert fs.stat(2).links == 2 + 2 + 10
    with ext3.Filesystem.open(device) as fs:
        assert sorted(entry.name for entry in fs.scandir(2)) == expected
        assert fs.stat(2).links == 2 + 2 + 10
        check_counts(fs)


def named_again(fs: WritableFilesystem) -> int:
    """A large file that was nameless, and is still held."""
    ino = fs.create_nameless(2)
    fs.write_bytes(ino, b"f" * (18 << 20))
    fs.name_at(ino, 2, b"f")
    return ino


def kept_by_failure(fs: WritableFilesystem) -> int:
    """A large file that is held, and kept its name for deleting it failed at the end."""
    fs.write_bytes("/f", b"f" * (18 << 20))
    ino = fs.lookup("/f")
    fs.hold(ino)
    with pytest.MonkeyPatch.context() as patch:

        def fails(self: inode_cache.InodeCache) -> None:
            raise ext3.PathError("/f", "not now")

        def drop_unlinked(self: inode_cache.InodeCache, node: inode_cache.Node) -> None:
            self.make_orphan(node)
            patch.setattr(inode_cache.InodeCache, "write_out", fails)

        patch.setattr(inode_cache.InodeCache, "drop_unlinked", drop_unlinked)
        with pytest.raises(ext3.PathError):
            fs.unlink("/f")
    return ino


@pytest.mark.parametrize("prepare", [named_again, kept_by_failure])
def test_a_held_file_with_a_name_is_cut_in_steps(
    prepare: Callable[[WritableFilesystem], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever that is interrupted, the rest of the cut is made up for: no blocks are left behind the end."""
    device = empty_image(24 << 20)
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        ino = prepare(fs)
        fs.sync()
        before, done = MemoryDevice(bytes(device.data)), len(recorded.events)
        with monkeypatch.context() as patch:
            patch.setattr(LogWriter, "capacity", 10)
            fs.truncate(ino, 300 * 1024)
        fs.release(ino)
    events = recorded.events[done:]
    ends = [number for number, event in enumerate(events) if event.kind == "sync"]
    assert len(ends) > 4
    for end in ends[1:]:
        cut = play(before, events[:end])
        with ext3.Filesystem.open(cut, "r+", clock=clock) as opened:
            assert opened.stat("/f").size in (18 << 20, 300 * 1024)
            blocks = opened.stat("/f").blocks * 512
            assert opened.stat("/f").size <= blocks < opened.stat("/f").size + (1 << 20)
        with ext3.Filesystem.open(cut) as after:
            check_counts(after)


def test_a_failing_storage_is_named_and_not_what_came_of_it() -> None:
    """A file without a name cannot be given back where nothing is written any more: the next open does that."""

    class Failing(MemoryDevice):
        left = 1 << 60

        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            self.left -= 1
            if self.left < 0:
                raise ext3.DeviceError("the storage is gone")
            super().write(offset, data)

    device = Failing(bytes(empty_image().data))
    with pytest.raises(ext3.DeviceError, match="the storage is gone"), ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/open", b"open")
        free = fs.superblock.free_blocks
        file = fs.open_file("/open", "r+")
        fs.unlink("/open")
        ino = fs.create_nameless(2)
        fs.write_bytes(ino, b"n" * 100_000)
        device.left = 2
        try:
            fs.sync()
        finally:
            fs.release(ino)
            file.close()
    left = MemoryDevice(bytes(device.data))
    with ext3.Filesystem.open(left, "r+", clock=clock) as fs:
        assert fs.superblock.free_blocks > free
    with ext3.Filesystem.open(left) as fs:
        check_counts(fs)


def test_a_large_new_file_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the journal takes at once: until all of it is there it has no name."""
    device = empty_image(24 << 20)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    content = b"f" * (18 << 20)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        free = fs.superblock.free_blocks
        monkeypatch.setattr(LogWriter, "capacity", 30)
        fs.write_bytes("/f", content)
        monkeypatch.undo()
    ends = [number for number, event in enumerate(recorded.events) if event.kind == "sync"]
    seen = set()
    for end in ends:
        cut = play(before, recorded.events[:end])
        with ext3.Filesystem.open(cut, "r+", clock=clock) as opened:
            there = opened.find_name(2, b"f") is not None
            seen.add(there)
            assert opened.read_bytes("/f") == content if there else opened.superblock.free_blocks == free
    assert seen == {False, True}
    assert len(ends) > 12


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [None, 60])
@pytest.mark.parametrize("kept", [6, inode_cache.CACHE_SIZE])
def test_all_that_is_remembered_is_what_is_stored(kept: int, capacity: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of many random edits, those that failed and those that were begun again after a commit among them."""
    monkeypatch.setattr(inode_cache, "CACHE_SIZE", kept)
    if capacity is not None:
        monkeypatch.setattr(LogWriter, "capacity", capacity)
    device = empty_image(6 << 20)
    edits = Edits(kept + (capacity or 0), phases=FULL_PHASES)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        image = ImageTree(fs)
        for number in range(500):
            edits.step(image)
            if number % 5 == 0:
                name_later(fs, edits, b"n%d" % number)
            check_remembered(fs)
        edits.check(fs)
    assert len(edits.outcomes) == 3
    with ext3.Filesystem.open(device) as fs:
        edits.check(fs)
        check_counts(fs)


def name_later(fs: WritableFilesystem, edits: Edits, name: bytes) -> None:
    """A file that has its content, or as much of it as there is room for, before it has its name."""
    with suppress(ext3.NoFreeInodesError):
        ino = fs.create_nameless(2)
        try:
            with suppress(ext3.NoSpaceError):
                fs.write_bytes(ino, b"n" * 3000)
            with suppress(ext3.NoSpaceError):
                fs.name_at(ino, 2, name)
                edits.model.write_bytes(b"/" + name, fs.read_bytes(ino))
        finally:
            fs.release(ino)


def check_remembered(fs: WritableFilesystem) -> None:
    remembered, session = fs._nodes, fs._session
    if session.rollbacks != remembered._rollbacks:
        return  # all of it is void, and will not be used
    for ino, node in remembered._nodes.items():
        raw = node.record.pack()
        assert session.read_inode(ino)[: len(raw)] == raw, ino
        assert node.decoded is None or node.decoded == parse_inode(session.read_inode(ino), ino)
        if node.map is not None:
            assert (node.map.i_block, node.map.sectors) == (node.record.i_block, node.record.sectors)
        if node.directory is not None:
            assert node.directory.mapping is node.map
            assert (node.directory.size, node.directory.indexed) == (
                node.record.size,
                bool(node.record.flags & InodeFlag.INDEX),
            )
    for path, ino in remembered.parents.items():
        assert fs.lookup(path) == ino
    if remembered._orphan_links is not None:
        assert remembered._orphan_links._before == OrphanLinks(session)._before


def test_what_cannot_get_its_name_is_refused() -> None:
    """A directory that does not change, a name that is too long: the file without a name is deleted with its last hold."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fixed = fs.mkdir("/fixed")
        fs._nodes.edit(fixed).record.flags |= InodeFlag.IMMUTABLE
        with pytest.raises(ext3.PathError) as caught:
            fs.create_nameless(fixed)
        assert caught.value.errno == errno.EPERM
        ino = fs.create_nameless(2)
        with pytest.raises(ext3.PathError) as caught:
            fs.name_at(ino, 2, b"n" * 256)
        assert caught.value.errno == errno.ENAMETOOLONG
        fs.release(ino)
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)


def test_what_is_no_file_without_a_name_gets_none() -> None:
    """A directory that was removed while it was held, a file that has a name: the books would be wrong."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        removed, named = fs.mkdir("/removed"), fs.create("/named")
        fs.hold(removed)
        fs.rmdir("/removed")
        for ino in (removed, named, 2):
            with pytest.raises(ext3.PathError) as caught:
                fs.name_at(ino, 2, b"again")
            assert caught.value.errno == errno.EINVAL
        fs.release(removed)
    with ext3.Filesystem.open(device) as fs:
        assert fs.find_name(2, b"again") is None
        check_counts(fs)
