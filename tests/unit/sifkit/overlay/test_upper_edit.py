"""What takes the place of a file or a whiteout: one of both is there at any time, and a failure leaves the old one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ext3
from ext3.constants import S_IFCHR
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.edit.session import Session
from ext3.journal.transaction import LogWriter
from sifkit.overlay.upper_edit import OverlayEditor
from sifkit.vfs.whiteouts import OPAQUE_XATTRS

from ....support.image_checks import check_counts
from ....support.sessions import COMMIT_START, clock, empty_image


@pytest.fixture
def device() -> MemoryDevice:
    """upper/ with a large file, a small one with two names, and whiteouts of both kinds."""
    device = empty_image(24 << 20)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/upper")
        fs.write_bytes("/upper/large", b"f" * (18 << 20))
        fs.write_bytes("/upper/small", b"s")
        fs.link("/upper/small", "/upper/second")
        fs.mknod("/upper/gone", S_IFCHR)
        fs.create("/upper/.wh.fuse")
    return device


@pytest.fixture
def editor(device: MemoryDevice) -> Iterator[OverlayEditor]:
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        yield OverlayEditor(fs, upper=True)
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def replace_by_symlink(editor: OverlayEditor, path: bytes, target: bytes = b"target") -> int:
    found = editor.resolve(path, follow=False)
    return editor.replace(found, lambda: editor.filesystem.symlink_at(target, *found.location))


@pytest.mark.parametrize("path", [b"/large", b"/small", b"/second", b"/gone", b"/fuse", b"/new"])
def test_replace(editor: OverlayEditor, path: bytes) -> None:
    ino = replace_by_symlink(editor, path)
    assert editor.lookup(path, follow=False) == ino
    assert editor.filesystem.readlink(ino) == b"target"
    assert editor.filesystem.find_name(editor.tree.root, b".wh" + path.replace(b"/", b".")) is None


@pytest.mark.parametrize("path", [b"/large", b"/small", b"/gone", b"/fuse"])
def test_a_failure_leaves_what_was_there(editor: OverlayEditor, path: bytes) -> None:
    fs = editor.filesystem
    names = sorted(entry[:2] for entry in fs.scandir("/upper"))
    free = fs.superblock.free_blocks, fs.superblock.free_inodes
    with pytest.raises(ext3.PathError):
        replace_by_symlink(editor, path, b"t" * 5000)
    assert sorted(entry[:2] for entry in fs.scandir("/upper")) == names
    assert (fs.superblock.free_blocks, fs.superblock.free_inodes) == free


def test_more_than_the_journal_holds(editor: OverlayEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of what is replaced are freed afterwards, in steps."""
    editor.filesystem.sync()
    free = editor.filesystem.superblock.free_blocks
    monkeypatch.setattr(LogWriter, "capacity", 10)
    replace_by_symlink(editor, b"/large")
    assert editor.filesystem.superblock.free_blocks > free + (17 << 10)


def test_in_a_full_image(editor: OverlayEditor) -> None:
    """What is removed makes room for what takes its place: an inode at once, blocks after a commit."""
    fs = editor.filesystem
    for number in range(fs.superblock.free_inodes):
        fs.mknod(f"/used-{number}", S_IFCHR)
    with fs.open_file("/upper/large", "r+") as file, pytest.raises(ext3.NoSpaceError):
        while True:
            file.write_at(file.size, bytes(1024))
    replace_by_symlink(editor, b"/large", b"t" * 200)
    assert fs.readlink("/upper/large") == b"t" * 200


@pytest.mark.parametrize("path", [b"/small", b"/gone"])
def test_at_any_time_there_is_one_of_both(device: MemoryDevice, path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "should_commit", True)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        replace_by_symlink(OverlayEditor(fs, upper=True), path)
    seen = set()
    for end in range(len(recorded.events) + 1):
        with ext3.Filesystem.open(play(before, recorded.events[:end]), "r+", clock=clock) as fs:
            ino = fs.lookup(b"/upper" + path, follow=False)
            seen.add(fs.stat(ino).mode)
    assert len(seen) == 2


def test_a_directory_that_replaces_a_whiteout_is_opaque_at_once(device: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what the whiteout hides would show through; what the caller sets is part of the operation."""
    monkeypatch.setattr(Session, "should_commit", True)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        editor = OverlayEditor(fs, upper=True)
        found = editor.resolve(b"/gone", follow=False)
        editor.make_directory(found, 0o700, uid=1, gid=2, finish=lambda ino: fs.set_attributes(ino, mode=0o2755))
    commits = [at for at, event in enumerate(recorded.events) if event.data[:8] == COMMIT_START]
    assert len(commits) == 1
    for end in (0, commits[0] + 1):
        with ext3.Filesystem.open(play(before, recorded.events[:end])) as fs:
            found_mode = fs.stat("/upper/gone").mode
            assert found_mode == (0o042755 if end else S_IFCHR)
            assert set(fs.xattrs("/upper/gone")) == (set(OPAQUE_XATTRS) if end else set())
