"""Calls by inode, as a server of a mounted image makes them."""

from __future__ import annotations

import errno

import pytest

import ext3
from ext3.constants import FileType
from ext3.device.base import MemoryDevice
from ext3.edit import directory, inode_cache
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.inode_filesystem import InodeFilesystem

from ....support.image_checks import check_counts
from ....support.sessions import clock, empty_image, errno_of

ROOT = 2


def test_content(fs: WritableFilesystem) -> None:
    ino = fs.create_at(ROOT, b"f")
    fs.write_at(ino, 3000, b"second")
    fs.write_at(ino, 0, memoryview(b"first"))
    assert fs.read_at(ino, 0, 1 << 20) == b"first".ljust(3000, b"\0") + b"second"
    assert fs.read_at(ino, 3003, 2) == b"on"
    assert fs.read_at(ino, 4000, 2) == b""
    fs.truncate(ino, 3)
    assert fs.read_at(ino, 0, 100) == b"fir"
    fs.write_at(ino, 0, b"")
    assert fs.stat(ino).size == 3
    assert errno_of(lambda: fs.read_at(ROOT, 0, 1)) == errno.EISDIR
    assert errno_of(lambda: fs.write_at(ROOT, 0, b"x")) == errno.EISDIR
    assert errno_of(lambda: fs.read_at(fs.superblock.inodes_count + 1, 0, 1)) == errno.ENOENT


def test_a_file_without_names_that_is_held(fs: WritableFilesystem) -> None:
    free = fs.superblock.free_blocks
    ino = fs.create_at(ROOT, b"f")
    fs.hold(ino)
    fs.unlink_at(ROOT, b"f")
    fs.write_at(ino, 0, b"x" * 50_000)
    fs.set_attributes(ino, mode=0o600, uid=5, gid=6, size=40_000, mtime=7 * 10**9)
    assert fs.read_at(ino, 39_999, 10) == b"x"
    stat = fs.stat(ino)
    assert (stat.mode & 0o7777, stat.uid, stat.gid, stat.links, stat.mtime) == (0o600, 5, 6, 0, 7 * 10**9)
    fs.release(ino)
    assert fs.superblock.free_blocks == free


def test_a_full_image_takes_all_of_a_write_or_nothing(fs: WritableFilesystem) -> None:
    ino = fs.create_at(ROOT, b"f")
    accepted = 0
    with pytest.raises(ext3.NoSpaceError):
        while True:
            fs.write_at(ino, accepted, b"a" * (1 << 17))
            accepted += 1 << 17
    assert fs.stat(ino).size == accepted
    assert fs.read_at(ino, 0, accepted + 1) == b"a" * accepted
    assert fs.superblock.free_blocks < 140


@pytest.mark.parametrize("inode_size", [128, 256])
def test_one_attribute(inode_size: int) -> None:
    device = empty_image(inode_size=inode_size)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        ino = fs.create_at(ROOT, b"f")
        assert fs.xattr(ino, b"user.a") is None
        fs.set_xattr(ino, b"user.a", b"one")
        fs.set_xattr(ino, b"trusted.b", b"two" * 200)
        for name, value in fs.xattrs(ino).items():
            assert fs.xattr(ino, name) == value
        assert fs.xattr(ino, b"user.c") is None
        assert fs.xattr(ino, b"no prefix") is None


def test_names_of_a_directory(fs: WritableFilesystem) -> None:
    top = fs.mkdir_at(ROOT, b"top")
    inos = {b"dir": fs.mkdir_at(top, b"dir"), b"file": fs.create_at(top, b"file"), b"link": fs.symlink_at(b"t", top, b"link")}
    found = fs.list_directory(top)
    kinds = {b"dir": FileType.DIRECTORY, b"file": FileType.REGULAR, b"link": FileType.SYMLINK}
    dots = [(b".", top, FileType.DIRECTORY), (b"..", ROOT, FileType.DIRECTORY)]
    assert sorted(found.entries) == sorted([*dots, *((name, ino, kinds[name]) for name, ino in inos.items())])
    assert found.generation == fs.stat(top).generation
    fs.unlink_at(top, b"file")
    assert len(found.entries) == 5
    assert len(fs.list_directory(top).entries) == 4
    assert errno_of(lambda: fs.list_directory(inos[b"link"])) == errno.ENOTDIR
    fs.rmdir_at(top, b"dir")
    again = fs.mkdir_at(top, b"again")
    assert again == inos[b"dir"]
    assert fs.list_directory(again).generation != found.generation


def test_what_is_not_synced(fs: WritableFilesystem) -> None:
    assert not fs.unsynced
    ino = fs.create_at(ROOT, b"f")
    assert fs.unsynced
    fs.sync()
    assert not fs.unsynced
    assert fs.read_at(ino, 0, 5) == b""
    fs.list_directory(ROOT)
    assert not fs.unsynced
    fs.write_at(ino, 0, b"x")
    assert fs.unsynced
    fs.checkpoint()
    assert not fs.unsynced


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More files than it holds, written in turn without being opened."""
    monkeypatch.setattr(inode_cache, "CACHE_SIZE", 8)
    device = empty_image()
    with InodeFilesystem(device, clock=clock, late_checkpoint=True) as fs:
        inos = [fs.create_at(ROOT, b"%d" % number) for number in range(30)]
        for turn in range(4):
            for number, ino in enumerate(inos):
                fs.write_at(ino, turn * 700, b"%02d" % number * 350)
            fs.sync()
        assert len(fs._nodes._nodes) <= 8
        for number, ino in enumerate(inos):
            assert fs.read_at(ino, 0, 4000) == b"%02d" % number * 1400
    with ext3.Filesystem.open(MemoryDevice(bytes(device.data))) as after:
        check_counts(after)


def test_blocks_of_many_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are kept in memory are bounded together, not for each directory."""
    monkeypatch.setattr(directory, "KEPT_BYTES", 8 << 10)
    with InodeFilesystem(empty_image(), clock=clock) as fs:
        tops = [fs.mkdir_at(ROOT, b"%d" % number) for number in range(20)]
        for turn in range(3):
            for top in tops:
                fs.create_at(top, b"%d" % turn)
                assert len(fs._nodes._checked_blocks) <= 8
        assert all(fs.find_name(top, b"%d" % turn) for top in tops for turn in range(3))
        assert not any(fs.find_name(top, b"3") for top in tops)
        assert 0 < len(fs._nodes._checked_blocks) <= 8
