"""Sessions whose commits stay in the log: their order, what is read meanwhile, and blocks that are freed or written over."""

from __future__ import annotations

from pathlib import Path

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import CheckpointError, DeviceError
from ext3.format.superblock import read_superblock

from ....support.image_checks import check_counts
from ....support.recorded_edits import state, state_of
from ....support.sessions import clock, empty_image, grow, inode_of, sample, session, set_size, shorten_log
from .test_session import described


def late(device: MemoryDevice | RecordingDevice) -> WritableFilesystem:
    return WritableFilesystem(device, clock=clock, late_checkpoint=True)


def crashed(device: MemoryDevice) -> MemoryDevice:
    """The image as it is on storage now, recovered."""
    left = MemoryDevice(bytes(device.data))
    with ext3.Filesystem.open(left, "r+", clock=clock):
        pass
    with ext3.Filesystem.open(left) as fs:
        check_counts(fs)
    return left


def test_order_of_the_writes() -> None:
    """Two syncs for each commit; the journal superblock for the first one; everything else at the end."""
    device = sample()
    recorded = RecordingDevice(device)
    with session(recorded, late_checkpoint=True) as edit:
        for number in range(2):
            with edit.operation():
                set_size(edit, inode_of(number), 0)
                grow(edit, inode_of(number), 3, 0xDA)
            edit.sync()
    assert described(device, recorded) == [
        "data", "flag set", "sync", "log", "journal start 1 sequence 1", "sync", "commit", "sync",
        "data", "log", "sync", "commit", "sync",
        "in place", "sync", "journal start 0 sequence 3", "sync", "flag clear", "sync",
    ]  # fmt: skip


def test_reads_see_what_is_in_the_log_only() -> None:
    device = empty_image()
    with late(device) as fs:
        fs.mkdir("/d")
        for number in range(30):
            fs.write_bytes(b"/d/%d" % number, b"content %d" % number)
        fs.set_xattr("/d/1", b"user.long", b"v" * 600)
        fs.sync()
        fs.truncate("/d/3", 4)
        fs.sync()
        seen = state_of(fs)
        assert fs.read_bytes("/d/3") == b"cont"
        assert {entry.name for entry in fs.scandir("/d")} == {b"%d" % number for number in range(30)}
        assert next(row.name for listing in fs.scan_many([fs.lookup("/d")]) for row in listing.rows) == b"0"
        free = fs.superblock.free_blocks
        assert int((~fs.block_bitmap(0))[: fs.superblock.blocks_count - 1].sum()) == free
        root = int(fs.groups["bg_inode_table"][0]) * 1024
        assert fs.device.read(root, 4096) != device.read(root, 4096)
    assert state(device) == seen


def test_a_block_of_a_file_that_went_through_the_journal() -> None:
    """The end of a file that was cut is zeroed through the journal. What is written there next must not be lost to a replay."""
    device = empty_image()
    with late(device) as fs:
        fs.write_bytes("/f", b"o" * 3000)
        fs.sync()
        fs.truncate("/f", 1500)
        fs.sync()
        with fs.open_file("/f", "r+") as file:
            file.write_at(1024, b"n" * 1024)
        fs.sync()
        expected = b"o" * 1024 + b"n" * 1024
        assert fs.read_bytes("/f") == expected
        with ext3.Filesystem.open(crashed(device)) as after:
            assert after.read_bytes("/f") == expected
    with ext3.Filesystem.open(device) as after:
        assert after.read_bytes("/f") == expected


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_freed_block_that_becomes_data(kind: str) -> None:
    """Neither a replay nor a checkpoint writes what the log has of a block that was a directory's, or was zeroed in part."""
    device = empty_image()
    with late(device) as fs:
        fs.write_bytes("/fill", bytes(fs.superblock.free_blocks * 1000))
        if kind == "directory":
            ino = fs.mkdir("/old")
        else:
            fs.write_bytes("/old", b"o" * 1000)
            fs.sync()
            fs.truncate("/old", 500)
            ino = fs.lookup("/old")
        block = fs.data_extents(ino)[0][1]
        fs.sync()
        assert block in fs._session._logged
        fs.remove_tree("/old")
        fs.sync()
        assert block not in fs._session._logged
        fs.create("/new")
        with pytest.raises(ext3.NoSpaceError), fs.open_file("/new", "r+") as file:
            while True:
                file.write(b"n" * 1024)
        assert any(first <= block < first + count for _, first, count in fs.data_extents("/new"))
        fs.sync()
        expected = fs.read_bytes("/new")
        assert set(expected) == {ord("n")}
        for image in (crashed(device), device):
            with ext3.Filesystem.open(image) as after:
                assert after.read_bytes("/new") == expected
        fs.checkpoint()
        assert not read_superblock(device).needs_recovery
        with ext3.Filesystem.open(device) as after:
            assert after.read_bytes("/new") == expected


def test_trim_beside_a_log() -> None:
    """Blocks that are free by what is in the log only are punched: a replay does not bring them back."""
    device = empty_image()
    with late(device) as fs:
        fs.mkdir("/kept")
        ino = fs.mkdir("/gone")
        block = fs.data_extents(ino)[0][1]
        fs.sync()
        fs.rmdir("/gone")
        assert fs.trim() > 0
        seen = state_of(fs)
        left = crashed(device)
        assert state(left) == seen
        assert left.read(block * 1024, 1024) == bytes(1024)
    assert state(device) == seen


def test_checkpoint_goes_on_and_abandon_keeps_what_was_synced() -> None:
    device = empty_image()
    fs = late(device)
    fs.mkdir("/a")
    fs.checkpoint()
    assert read_superblock(device).clean
    fs.mkdir("/b")
    fs.sync()
    assert read_superblock(device).needs_recovery
    fs.mkdir("/c")
    fs.abandon()
    assert read_superblock(device).clean
    with ext3.Filesystem.open(device) as after:
        assert sorted(entry.name for entry in after.scandir()) == [b"a", b"b", b"lost+found"]
        check_counts(after)


def test_a_rollback_beside_committed_changes() -> None:
    """Freed in an operation that fails: blocks in the log are neither revoked nor lost."""
    device = empty_image()
    with late(device) as fs:
        fs.write_bytes("/f", b"f" * 5000)
        fs.truncate("/f", 4500)
        fs.mkdir("/d")
        fs.sync()
        seen = state_of(fs)

        def fail() -> None:
            fs.unlink("/f")
            fs.rmdir("/d")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fs.atomically(fail)
        assert state_of(fs) == seen
        fs.mkdir("/e")
        fs.sync()
        seen = state_of(fs)
        assert state(crashed(device)) == seen
    assert state(device) == seen


def test_failing_storage() -> None:
    """It fails at every sync in turn: earlier commits are found again, the session writes nothing more."""

    class Failing(MemoryDevice):
        left = 1 << 30

        def sync(self) -> None:
            self.left -= 1
            if self.left <= 0:
                raise DeviceError("the disk is gone")

    pristine = empty_image()
    shorten_log(pristine, 60)
    outcomes = []
    for at in range(1, 60):
        device = Failing(bytes(pristine.data))
        fs = late(device)
        device.left = at
        done = 0
        try:
            for number in range(8):
                fs.mkdir(b"/%d" % number)
                fs.sync()
                done = number + 1
            fs.close()
            outcomes.append("done")
        except DeviceError as error:
            outcomes.append("checkpoint" if isinstance(error, CheckpointError) else "lost")
            before = bytes(device.data)
            with pytest.raises(DeviceError, match=r"earlier write|closed"):
                fs.mkdir("/more")
            fs.close()
            assert bytes(device.data) == before
        device.left = 1 << 30
        with ext3.Filesystem.open(crashed(device)) as after:
            found = {entry.name for entry in after.scandir()} - {b"lost+found"}
        assert found in ({b"%d" % number for number in range(done)}, {b"%d" % number for number in range(done + 1)})
        if outcomes[-1] == "done":
            break
    assert outcomes[-4:] == ["checkpoint", "checkpoint", "checkpoint", "done"]
    assert outcomes.count("lost") == len(outcomes) - 4 > 18


def test_without_a_journal(tmp_path: Path) -> None:
    """There is no log: as without the option."""
    device = empty_image(journal=False)
    with late(device) as fs:
        fs.mkdir("/d")
        fs.sync()
        fs.checkpoint()
        fs.write_bytes("/d/f", b"f" * 5000)
        seen = state_of(fs)
    assert read_superblock(device).clean
    assert state(device) == seen


def test_a_file_opened_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(empty_image().data)
    with WritableFilesystem.open_for_changes(path, late_checkpoint=True) as fs:
        fs.write_bytes("/f", b"f" * 5000)
        fs.sync()
        with ext3.Filesystem.open(path) as seen:
            assert seen.needs_recovery
            assert seen.read_bytes("/f") == b"f" * 5000
    with ext3.Filesystem.open(path) as seen:
        assert not seen.needs_recovery
        assert seen.read_bytes("/f") == b"f" * 5000
