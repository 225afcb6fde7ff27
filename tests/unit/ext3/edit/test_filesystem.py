"""WritableFilesystem: opening, paths and inodes, refusals with their words, space and inodes that run out."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

import ext3
from ext3.constants import LINK_MAX, S_IFCHR
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.journal.transaction import LogWriter

from ....support.image_checks import check_counts
from ....support.sessions import OLD_STAMP, clock, empty_image, errno_of

ACL = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")


def test_open_modes(device: MemoryDevice, tmp_path: Path) -> None:
    with ext3.Filesystem.open(device) as reader:
        assert not reader.writable
    with ext3.Filesystem.open(device, "r+") as writer:
        assert writer.writable
        assert isinstance(writer, ext3.WritableFilesystem)
    with pytest.raises(ValueError, match="'w'"):
        ext3.Filesystem.open(device, "w")  # type: ignore[call-overload]
    with pytest.raises(FileNotFoundError):
        ext3.Filesystem.open(tmp_path / "none", "r+")
    assert not (tmp_path / "none").exists()


def test_in_a_window_of_a_file(device: MemoryDevice, tmp_path: Path) -> None:
    path = tmp_path / "inside"
    path.write_bytes(b"a" * 4096 + bytes(device.data) + b"z" * 4096)
    with ext3.Filesystem.open(path, "r+", offset=4096, size=device.size) as fs:
        fs.write_bytes("/f", b"inside")
    with path.open("rb") as file, ext3.Filesystem.open(file, offset=4096, size=device.size) as fs:
        assert fs.read_bytes("/f") == b"inside"
    data = path.read_bytes()
    assert data[:4096] == b"a" * 4096
    assert data[-4096:] == b"z" * 4096


def test_links(fs: WritableFilesystem) -> None:
    fs.mkdir("/d")
    fs.mkdir("/d/e")
    assert fs.stat("/d").links == 3
    fs.rename("/d/e", "/e")
    assert (fs.stat("/d").links, fs.stat("/").links) == (2, 5)
    fs.rmdir("/e")
    assert fs.stat("/").links == 4
    fs.create("/f")
    fs.link("/f", "/d/g")
    assert fs.stat("/f").links == 2
    fs.unlink("/f")
    assert fs.stat("/d/g").links == 1


def test_paths_and_inodes(fs: WritableFilesystem) -> None:
    """A path can be the inode of what it leads to; entries can be named by their directory's inode and a name."""
    d = fs.mkdir_at(2, b"d")
    ino = fs.create_at(d, b"f", 0o600, uid=70_000, gid=80_000)
    assert fs.lookup("/d/f") == ino
    assert fs.stat(ino).uid == 70_000
    fs.chmod(ino, 0o640)
    fs.chown(ino, 1, None)
    fs.write_bytes(ino, b"abc")
    fs.rename_at(d, b"f", 2, b"g")
    assert fs.read_bytes("/g") == b"abc"
    assert (fs.stat(ino).mode & 0o7777, fs.stat(ino).uid, fs.stat(ino).gid) == (0o640, 1, 80_000)
    assert fs.create("/g", exclusive=False) == ino
    fs.symlink_at(b"f", d, b"through")
    assert fs.create("/d/through", exclusive=False) == fs.lookup("/d/f")
    fs.symlink_at(b"made", d, b"nowhere")
    fs.write_bytes("/d/nowhere", b"there")
    assert fs.read_bytes("/d/made") == b"there"
    assert errno_of(lambda: fs.create_at(d, b"nowhere")) == errno.EEXIST
    assert errno_of(lambda: fs.chmod("/d/none", 0)) == errno.ENOENT
    assert errno_of(lambda: fs.create("/d", exclusive=False)) == errno.EISDIR


@pytest.mark.parametrize(
    ("work", "number", "words"),
    [
        (lambda fs: fs.mkdir("/d"), errno.EEXIST, "/d: File exists"),
        (lambda fs: fs.mkdir("/"), errno.EEXIST, "/: File exists"),
        (lambda fs: fs.mkdir("/d/."), errno.EEXIST, "/d/.: File exists"),
        (lambda fs: fs.create("/d/f"), errno.EEXIST, "/d/f: File exists"),
        (lambda fs: fs.mkdir("/none/x"), errno.ENOENT, "/none: No such file or directory"),
        (lambda fs: fs.create(""), errno.ENOENT, "No such file"),
        (lambda fs: fs.create("/d/f/x"), errno.ENOTDIR, "/d/f/x: Not a directory"),
        (lambda fs: fs.create("/" + "n" * 256), errno.ENAMETOOLONG, "File name too long"),
        (lambda fs: fs.create(b"/a\0b"), errno.EINVAL, "not a name"),
        (lambda fs: fs.symlink("", "/s"), errno.ENOENT, "needs a target"),
        (lambda fs: fs.symlink("t" * 1024, "/s"), errno.ENAMETOOLONG, "at most 1023 bytes"),
        (lambda fs: fs.unlink("/none"), errno.ENOENT, "/none: No such file or directory"),
        (lambda fs: fs.unlink("/d"), errno.EISDIR, "/d: Is a directory"),
        (lambda fs: fs.rmdir("/d"), errno.ENOTEMPTY, "/d: Directory not empty"),
        (lambda fs: fs.rmdir("/d/f"), errno.ENOTDIR, "/d/f: Not a directory"),
        (lambda fs: fs.create("/x/"), errno.EISDIR, "/x/: Is a directory"),
        (lambda fs: fs.write_bytes("/x/", b""), errno.EISDIR, "/x/: Is a directory"),
        (lambda fs: fs.mknod("/x/", S_IFCHR), errno.ENOENT, "/x/: No such file or directory"),
        (lambda fs: fs.symlink("t", "/x/"), errno.ENOENT, "/x/: No such file or directory"),
        (lambda fs: fs.link("/file", b"/x/"), errno.ENOENT, "/x/: No such file or directory"),
        (lambda fs: fs.link("/file/", "/x"), errno.ENOTDIR, "/file/: Not a directory"),
        (lambda fs: fs.unlink("/file/"), errno.ENOTDIR, "/file/: Not a directory"),
        (lambda fs: fs.unlink("/s/"), errno.ENOTDIR, "/s/: Not a directory"),
        (lambda fs: fs.remove_tree("/s/"), errno.ENOTDIR, "/s/: Not a directory"),
        (lambda fs: fs.rename("/file/", "/x"), errno.ENOTDIR, "/file/: Not a directory"),
        (lambda fs: fs.rename("/file", "/x/"), errno.ENOTDIR, "/x/: Not a directory"),
        (lambda fs: fs.rename("/d", "/file/", exchange=True), errno.ENOTDIR, "/file/: Not a directory"),
        (lambda fs: fs.rename("/file", "/d/", replace=False), errno.EEXIST, "/d/: File exists"),
        (lambda fs: fs.rename("/file", "/d/.", replace=False), errno.EEXIST, "/d/.: File exists"),
        (lambda fs: fs.rename("/d/f", "/d"), errno.ENOTEMPTY, "/d: Directory not empty"),
        (lambda fs: fs.rmdir("/"), errno.EBUSY, "the root directory"),
        (lambda fs: fs.rmdir("/d/."), errno.EINVAL, "Invalid argument"),
        (lambda fs: fs.rmdir("/d/.."), errno.ENOTEMPTY, "not empty"),
        (lambda fs: fs.rename("/none", "/x"), errno.ENOENT, "/none: No such file or directory"),
        (lambda fs: fs.rename("/d", "/d/e/x"), errno.EINVAL, "/d/e/x: cannot move a directory to a subdirectory of itself"),
        (lambda fs: fs.rename("/d", "/file"), errno.ENOTDIR, "/file: Not a directory"),
        (lambda fs: fs.rename("/file", "/d"), errno.EISDIR, "/d: Is a directory"),
        (lambda fs: fs.rename("/e", "/d"), errno.ENOTEMPTY, "/d: Directory not empty"),
        (lambda fs: fs.rename("/d/e", "/d"), errno.ENOTEMPTY, "/d: Directory not empty"),
        (lambda fs: fs.rename("/d/f", "/file", replace=False), errno.EEXIST, "/file: File exists"),
        (lambda fs: fs.rename("/d/..", "/x"), errno.EBUSY, "busy"),
        (lambda fs: fs.rename("/d", "/d/e", exchange=True), errno.EINVAL, "subdirectory of itself"),
        (lambda fs: fs.rename("/d", "/none", exchange=True), errno.ENOENT, "/none: No such file"),
        (lambda fs: fs.link("/d", "/x"), errno.EPERM, "hard link not allowed for directory"),
        (lambda fs: fs.link("/file", "/d/f"), errno.EEXIST, "/d/f: File exists"),
        (lambda fs: fs.mknod("/x", 0o644), errno.EINVAL, "no type"),
        (lambda fs: fs.mknod("/x", S_IFCHR, (1 << 12, 0)), errno.EINVAL, "12 and 20 bits"),
        (lambda fs: fs.open_file("/d", "r+"), errno.EISDIR, "/d: Is a directory"),
        (lambda fs: fs.write_bytes("/d", b""), errno.EISDIR, "/d: Is a directory"),
        (lambda fs: fs.truncate("/file", 1 << 50), errno.EFBIG, "File too large"),
        (lambda fs: fs.open_file("/file", "r+").write_at(1 << 50, b"x"), errno.EFBIG, "File too large"),
        (lambda fs: fs.set_xattr("/s", b"user.a", b"", follow=False), errno.EPERM, "files and directories only"),
        (lambda fs: fs.set_xattr("/file", b"system.posix_acl_default", ACL), errno.EACCES, "directories only"),
        (lambda fs: fs.set_xattr("/file", b"system.posix_acl_access", b"x"), errno.EINVAL, "ACL"),
        (lambda fs: fs.set_xattr("/file", b"user.a", b"", replace=True), errno.ENODATA, "is not there"),
        (lambda fs: fs.set_xattr("/file", b"other.a", b""), errno.EOPNOTSUPP, "other.a"),
        (lambda fs: fs.set_xattr("/file", b"user.a", bytes(2000)), errno.ENOSPC, "no room"),
        (lambda fs: fs.remove_xattr("/file", b"user.a"), errno.ENODATA, "no attribute user.a"),
        (lambda fs: fs.remove_tree("/d/."), errno.EEXIST, "refusing to remove"),
        (lambda fs: fs.remove_tree("/none"), errno.ENOENT, "/none: No such file"),
    ],
)
def test_refused(
    fs: WritableFilesystem, device: MemoryDevice, work: Callable[[WritableFilesystem], object], number: int, words: str
) -> None:
    """The right errno, the words coreutils use, and nothing changed."""
    fs.mkdir("/d")
    fs.mkdir("/d/e")
    fs.mkdir("/e")
    fs.create("/d/f")
    fs.create("/file")
    fs.symlink("file", "/s")
    fs.sync()
    before = bytes(device.data)
    with pytest.raises(OSError, match=words) as caught:
        work(fs)
    assert isinstance(caught.value, ext3.Ext3Error)
    assert caught.value.errno == number
    fs.sync()
    assert bytes(device.data) == before


def test_link_limit(fs: WritableFilesystem) -> None:
    fs.mkdir("/d")
    fs.create("/f")
    for path in ("/d", "/f"):
        node = fs._nodes.edit(fs.lookup(path))
        node.record.links = LINK_MAX
    assert errno_of(lambda: fs.mkdir("/d/more")) == errno.EMLINK
    assert errno_of(lambda: fs.link("/f", "/g")) == errno.EMLINK
    fs.mkdir("/e")
    assert errno_of(lambda: fs.rename("/e", "/d/e")) == errno.EMLINK
    fs._nodes.forget()


def test_room_is_used_up_and_given_back(fs: WritableFilesystem) -> None:
    free = fs.superblock.free_blocks
    number = 0
    with pytest.raises(ext3.NoSpaceError):
        while True:
            fs.write_bytes(f"/f{number}", bytes(1 << 19))
            number += 1
    assert number > 5
    left = fs.superblock.free_blocks
    assert errno_of(lambda: fs.write_bytes("/f0", bytes(8 << 20))) == errno.ENOSPC
    assert fs.stat("/f0").size == 1 << 19
    assert fs.superblock.free_blocks == left
    # A new content for which there is only room once the old one is gone.
    fs.write_bytes("/f0", b"n" * (1 << 19))
    assert fs.read_bytes("/f0") == b"n" * (1 << 19)
    fs.unlink("/f1")
    fs.write_bytes("/again", bytes(1 << 19))
    for at in [0, *range(2, number)]:
        fs.unlink(f"/f{at}")
    fs.unlink("/again")
    assert fs.superblock.free_blocks == free


def test_inodes_run_out() -> None:
    device = empty_image(inodes=32)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        with pytest.raises(ext3.NoFreeInodesError):
            for number in range(100):
                fs.create(f"/{number}")
        names = sorted(entry.name for entry in fs.scandir("/"))
        assert errno_of(lambda: fs.mkdir("/more")) == errno.ENOSPC
        assert errno_of(lambda: fs.symlink("x" * 100, "/more")) == errno.ENOSPC
        assert sorted(entry.name for entry in fs.scandir("/")) == names
        fs.unlink("/0")
        fs.mkdir("/more")
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def test_more_than_the_journal_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose blocks are all over is deleted, cut and punched in steps where the journal is too small for one."""
    device = empty_image(stamp=OLD_STAMP, size=16 << 20)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.create("/f")
        with fs.open_file("/f", "r+") as file:
            for number in range(150):  # each in a pointer block of its own
                file.write_at(number * 300_000, b"x")
        fs.sync()
        monkeypatch.setattr(LogWriter, "capacity", 60)
        fs.punch_hole("/f", 0, 10_000_000)
        assert fs.read_bytes("/f")[:10_200_001] == bytes(10_200_000) + b"x"
        fs.truncate("/f", 40_000_000)
        assert fs.stat("/f").size == 40_000_000
        fs.truncate("/f", 11_000_000)
        assert fs.stat("/f").size == 11_000_000
        assert fs.superblock.last_orphan == 0
        with fs.open_file("/f", "r+") as file:
            for number in range(150):
                file.write_at(number * 300_000, b"x")
        fs.create("/g")
        fs.rename("/g", "/f")
        assert fs.superblock.last_orphan == 0
        fs.write_bytes("/f", b"y" * (3 << 20))
        assert fs.read_bytes("/f") == b"y" * (3 << 20)
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def test_the_view_is_always_the_present_one(fs: WritableFilesystem) -> None:
    fs.mkdir("/d")
    for number in range(300):
        fs.create(f"/d/{number}")
    assert len(list(fs.scandir("/d"))) == 300
    assert fs.stat("/d").flags & 0x1000
    bitmap = fs.inode_bitmap(0)
    fs.create("/d/one more")
    assert int(fs.inode_bitmap(0).sum()) == int(bitmap.sum()) + 1
    assert int((~fs.block_bitmap(0)).sum()) == fs.superblock.free_blocks
    assert len(dict(fs.walk("/"))) == 303


def test_what_is_given_up_is_nowhere(device: MemoryDevice) -> None:
    """Bitmaps that were looked at show changes which are not committed; nothing of these gets into the superblock."""
    fs = ext3.Filesystem.open(device, "r+", clock=clock)
    fs.write_bytes("/f", b"x" * 5000)
    fs.sync()
    fs.hold(fs.lookup("/f"))
    fs.unlink("/f")
    fs.write_bytes("/g", b"y" * 50_000)
    assert fs.block_bitmap(0).any()
    fs.abandon()
    with ext3.Filesystem.open(device) as after:
        assert not after.needs_recovery
        assert after.superblock.last_orphan == 0
        assert after.read_bytes("/f") == b"x" * 5000
        check_counts(after)
