"""A filesystem open for writing: what each call changes, what it refuses and with which words, hostile images included."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ext3
from ext3 import hostio
from ext3.constants import JOURNAL_INO, LINK_MAX, S_IFCHR, FileType, InodeFlag
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.inode_cache import Node
from ext3.format.schema import INODE_CORE
from ext3.journal.transaction import LogWriter
from ext3.newfs.plan import ImageOptions
from ext3.newfs.stamp import Stamp

from ....support.image_checks import check_counts
from ....support.sessions import clock, empty_tree

NOW = clock()
ACL = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")


def blank(*, size: int = 8 << 20, block_size: int = 1024, inode_size: int = 256, journal: bool = True) -> MemoryDevice:
    device = MemoryDevice(size)
    options = ImageOptions(size=size, block_size=block_size, inode_size=inode_size, journal=journal)
    ext3.build_image(empty_tree(), device, options=options, stamp=Stamp(1_600_000_000, b"u" * 16, b"h" * 16))
    return device


@pytest.fixture
def device() -> MemoryDevice:
    return blank()


@pytest.fixture
def fs(device: MemoryDevice) -> Iterator[WritableFilesystem]:
    """An empty image that is edited, and whose books are judged afterwards."""
    with ext3.Filesystem.open(device, "r+", clock=clock) as opened:
        yield opened
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def number_of(work: Callable[[], object]) -> int:
    """The errno something fails with."""
    with pytest.raises(OSError) as caught:
        work()
    assert isinstance(caught.value, ext3.Ext3Error)
    assert "\n" not in str(caught.value)
    return caught.value.errno or 0


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


def test_times(fs: WritableFilesystem) -> None:
    """The directory changes with its names, an inode with its links, owner and content."""
    fs.mkdir("/d")
    fs.write_bytes("/d/f", b"x")
    for path in ("/", "/d", "/d/f"):
        found = fs.stat(path)
        assert (found.mtime, found.ctime) == (NOW, NOW), path
    assert fs.stat("/d/f").crtime == NOW
    fs.utimens("/d/f", 5, 7_000_000_000 * 10**9 + 3)
    fs.utimens("/d/f", None, None)
    found = fs.stat("/d/f")
    assert (found.atime, found.mtime, found.ctime) == (5, 7_000_000_000 * 10**9 + 3, NOW)
    fs.utimens("/d/f", 1 << 80, -(1 << 80))
    assert fs.stat("/d/f").atime == (2**34 - 2**31 - 1) * 10**9
    assert fs.stat("/d/f").mtime == -(2**31) * 10**9


def test_small_inodes_have_whole_seconds_to_2038() -> None:
    with ext3.Filesystem.open(blank(inode_size=128), "r+", clock=clock) as fs:
        fs.create("/f")
        fs.utimens("/f", 10**9 + 1, 7_000_000_000 * 10**9)
        assert fs.stat("/f").atime == 10**9
        assert fs.stat("/f").mtime == (2**31 - 1) * 10**9
        fs.set_xattr("/f", b"user.a", b"1")
        assert fs.stat("/f").blocks == 2
        assert fs.xattrs("/f") == {b"user.a": b"1"}


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
    assert number_of(lambda: fs.create_at(d, b"nowhere")) == errno.EEXIST
    assert number_of(lambda: fs.chmod("/d/none", 0)) == errno.ENOENT
    assert number_of(lambda: fs.create("/d", exclusive=False)) == errno.EISDIR


@pytest.mark.parametrize(
    ("work", "number", "words"),
    [
        (lambda fs: fs.mkdir("/d"), errno.EEXIST, "/d: File exists"),
        (lambda fs: fs.mkdir("/"), errno.EEXIST, "/: File exists"),
        (lambda fs: fs.mkdir("/d/."), errno.EEXIST, "/d/.: File exists"),
        (lambda fs: fs.create("/d/f"), errno.EEXIST, "/d/f: File exists"),
        (lambda fs: fs.mkdir("/none/x"), errno.ENOENT, "/none: No such file or directory"),
        (lambda fs: fs.create(""), errno.ENOENT, "No such file"),
        (lambda fs: fs.create("/d/f/x"), errno.ENOTDIR, "/d/f/x: a part of the path is not a directory"),
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
        (lambda fs: fs.link("/file/", "/x"), errno.ENOTDIR, "/file/: not a directory"),
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
    assert number_of(lambda: fs.mkdir("/d/more")) == errno.EMLINK
    assert number_of(lambda: fs.link("/f", "/g")) == errno.EMLINK
    fs.mkdir("/e")
    assert number_of(lambda: fs.rename("/e", "/d/e")) == errno.EMLINK
    fs._nodes.forget()


def test_rename(fs: WritableFilesystem) -> None:
    fs.write_bytes("/a", b"a")
    fs.write_bytes("/b", b"b")
    fs.rename("/a", "/b")
    assert fs.read_bytes("/b") == b"a"
    fs.link("/b", "/c")
    fs.rename("/b", "/c")  # two names of one file: nothing happens
    assert fs.stat("/b").links == 2
    fs.mkdir("/d")
    fs.mkdir("/e")
    fs.mkdir("/d/inner")
    fs.rename("/d", "/e")
    assert fs.lookup("/e/inner/..") == fs.lookup("/e")
    fs.rename("/e", "/c", exchange=True)
    assert fs.lookup("/c/inner/../..") == 2
    assert fs.read_bytes("/e") == b"a"
    fs.mkdir("/other")
    fs.rename("/c/inner", "/other/x")
    fs.write_bytes("/c/file", b"file")
    fs.rename("/c/file", "/other/x", exchange=True)
    assert (fs.stat("/c").links, fs.stat("/other").links) == (3, 2)
    assert fs.lookup("/c/file/..") == fs.lookup("/c")
    fs.rename("/other/x", "/other/y", whiteout=True)
    mark = fs.stat("/other/x", follow=False)
    assert (mark.mode, mark.major, mark.minor) == (S_IFCHR, 0, 0)
    with pytest.raises(ValueError, match="whiteout"):
        fs.rename("/c", "/other", exchange=True, whiteout=True)


def test_looked_up_directories_are_forgotten_when_they_move(fs: WritableFilesystem) -> None:
    fs.mkdir("/a")
    fs.mkdir("/b")
    fs.create("/a/f")
    fs.rename("/a", "/c")
    fs.rename("/b", "/a")
    fs.create("/a/g")
    assert [entry.name for entry in fs.scandir("/a")] == [b"g"]
    fs.symlink("/c", "/link")
    fs.create("/link/through")
    fs.unlink("/link")
    fs.symlink("/a", "/link")
    fs.create("/link/through")
    assert fs.lookup("/a/through") != fs.lookup("/c/through")


def test_inherited_from_the_directory(fs: WritableFilesystem) -> None:
    fs.mkdir("/g", 0o2755, gid=77)
    fs.mkdir("/g/d", gid=5)
    fs.create("/g/f", gid=5)
    assert (fs.stat("/g/d").gid, fs.stat("/g/d").mode & 0o7777) == (77, 0o2755)
    assert (fs.stat("/g/f").gid, fs.stat("/g/f").mode & 0o7777) == (77, 0o644)
    fs.mkdir("/acl")
    fs.set_xattr("/acl", b"system.posix_acl_default", ACL)
    fs.mkdir("/acl/d", 0o777)
    fs.create("/acl/f", 0o600)
    fs.symlink("x", "/acl/s")
    assert fs.xattrs("/acl/d")[b"system.posix_acl_default"] == ACL
    assert fs.stat("/acl/d").mode & 0o777 == 0o674
    assert set(fs.xattrs("/acl/f")) == {b"system.posix_acl_access"}
    assert fs.stat("/acl/f").mode & 0o777 == 0o600
    assert fs.xattrs("/acl/s", follow=False) == {}


def test_mode_and_acl_follow_each_other(fs: WritableFilesystem) -> None:
    fs.create("/f", 0o600)
    fs.set_xattr("/f", b"system.posix_acl_access", ACL)
    assert fs.stat("/f").mode & 0o777 == 0o674
    fs.chmod("/f", 0o711)
    acl = fs.xattrs("/f")[b"system.posix_acl_access"]
    assert acl != ACL
    assert fs.stat("/f").mode & 0o777 == 0o711
    plain = bytes.fromhex("02000000 01000600ffffffff 04000400ffffffff 20000000ffffffff")
    fs.set_xattr("/f", b"system.posix_acl_access", plain)
    assert fs.xattrs("/f") == {}
    assert fs.stat("/f").mode & 0o777 == 0o640


def test_chown_takes_privileges(fs: WritableFilesystem) -> None:
    fs.create("/f", 0o6755)
    fs.set_xattr("/f", b"security.capability", b"cap")
    fs.chown("/f", 5, 6)
    assert fs.stat("/f").mode & 0o7777 == 0o755
    assert fs.xattrs("/f") == {}
    fs.mkdir("/d", 0o2755)
    fs.chown("/d", 5, 6)
    assert fs.stat("/d").mode & 0o7777 == 0o2755
    with pytest.raises(ValueError, match="no user"):
        fs.chown("/f", 1 << 32, None)


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.mark.parametrize(
    "change",
    [
        lambda fs: fs.write_bytes("/f", b"new"),
        lambda fs: fs.truncate("/f", 1),
        lambda fs: fs.truncate("/f", 5000),
        lambda fs: fs.punch_hole("/f", 0, 1024),
        lambda fs: fs.open_file("/f", "r+").write(b"x"),
        lambda fs: fs.write_from("/f", io.BytesIO(b"new")),
    ],
)
def test_other_content_has_no_capabilities(fs: WritableFilesystem, change: Callable[[WritableFilesystem], object]) -> None:
    """They go whoever writes; set-id bits stay, as when root writes."""
    fs.write_bytes("/f", b"x" * 3000)
    fs.chmod("/f", 0o6755)
    for name in (b"security.capability", b"user.a"):
        fs.set_xattr("/f", name, CAPABILITY)
    fs.chmod("/f", 0o6755)
    fs.rename("/f", "/g")
    fs.link("/g", "/f")
    assert len(fs.xattrs("/f")) == 2
    change(fs)
    assert fs.xattrs("/f") == {b"user.a": CAPABILITY}
    assert fs.stat("/f").mode == 0o106755


def test_what_can_only_grow(fs: WritableFilesystem) -> None:
    """A file marked as append-only."""
    fs.write_bytes("/f", b"abc")
    node = fs._nodes.edit(fs.lookup("/f"))
    node.record.flags |= InodeFlag.APPEND.value
    fs._run(lambda: fs._nodes.store(node))
    works: list[Callable[[], object]] = [
        lambda: fs.write_bytes("/f", b""),
        lambda: fs.truncate("/f", 0),
        lambda: fs.truncate("/f", 10),
        lambda: fs.punch_hole("/f", 0, 3),
        lambda: fs.open_file("/f", "r+").write_at(2, b"x"),
        lambda: fs.write_from("/f", io.BytesIO(b"")),
        lambda: fs.unlink("/f"),
    ]
    for work in works:
        assert number_of(work) == errno.EPERM
    with fs.open_file("/f", "r+") as file:
        file.write_at(3, b"def")
    assert fs.read_bytes("/f") == b"abcdef"


def test_owners_and_modes_that_are_none(fs: WritableFilesystem) -> None:
    for uid, gid in ((-1, 0), (0, -1), (1 << 32, 0), (0, 0xFFFFFFFF)):
        works: list[Callable[[], object]] = [
            lambda uid=uid, gid=gid: fs.create("/f", uid=uid, gid=gid),  # type: ignore[misc]
            lambda uid=uid, gid=gid: fs.mkdir("/f", uid=uid, gid=gid),  # type: ignore[misc]
            lambda uid=uid, gid=gid: fs.symlink("t", "/f", uid=uid, gid=gid),  # type: ignore[misc]
            lambda uid=uid, gid=gid: fs.chown("/", uid, gid),  # type: ignore[misc]
        ]
        for work in works:
            with pytest.raises(ValueError, match="no user"):
                work()
    fs.create("/f", 0o1_000_644)
    fs.mknod("/p", 0o1_010_600)
    assert (fs.stat("/f").mode, fs.stat("/p").mode) == (0o100644, 0o010600)


def test_an_acl_without_entries_takes_it_out(fs: WritableFilesystem) -> None:
    fs.mkdir("/d")
    for nothing in (b"", b"\2\0\0\0"):
        for name in (b"system.posix_acl_access", b"system.posix_acl_default"):
            fs.set_xattr("/d", name, ACL)
            fs.set_xattr("/d", name, nothing)
            assert fs.xattrs("/d") == {}
        assert fs.stat("/d").mode == 0o040674
    assert number_of(lambda: fs.set_xattr("/d", b"system.posix_acl_access", b"\2\0")) == errno.EINVAL


def test_what_changes_nothing_is_no_change() -> None:
    """The same value once more, and times that are to stay: the time of change stays too, as in the kernel."""
    ticks = iter(range(10**9, 2 * 10**9))
    with ext3.Filesystem.open(blank(), "r+", clock=lambda: next(ticks)) as fs:
        fs.create("/f")
        fs.set_xattr("/f", b"user.a", b"1")
        before = fs.stat("/f").ctime
        fs.set_xattr("/f", b"user.a", b"1")
        fs.utimens("/f", None, None)
        assert fs.stat("/f").ctime == before
        fs.set_xattr("/f", b"user.a", b"2")
        assert fs.stat("/f").ctime > before


def test_the_umask_counts_where_there_is_no_default_acl(fs: WritableFilesystem) -> None:
    acl = bytes.fromhex("02000000 01000700ffffffff 04000700ffffffff 20000500ffffffff")
    for path in ("/plain", "/acl"):
        fs.mkdir(path)
    fs.set_xattr("/acl", b"system.posix_acl_default", acl)
    for path, mode in (("/plain", 0o700), ("/acl", 0o775)):
        above = fs.lookup(path)
        fs.mkdir_at(above, b"d", 0o777, umask=0o077)
        fs.create_at(above, b"f", 0o777, umask=0o077)
        fs.mknod_at(above, b"p", 0o010777, umask=0o077)
        assert [fs.stat(f"{path}/{name}").mode & 0o7777 for name in "dfp"] == [mode] * 3


def test_content(fs: WritableFilesystem) -> None:
    fs.create("/f")
    with fs.open_file("/f", "r+") as file:
        model = bytearray()
        for offset, length in ((0, 10), (5, 2000), (100_000, 3), (1024, 1024), (99_990, 20), (700_000, 5000)):
            data = bytes((offset + at) % 255 + 1 for at in range(length))
            file.seek(offset)
            assert file.write(data) == length
            model.extend(bytes(max(0, offset + length - len(model))))
            model[offset : offset + length] = data
            assert fs.read_bytes("/f") == model
        for size in (690_000, 100_001, 5000, 6000, 0, 100):
            file.truncate(size)
            del model[size:]
            model.extend(bytes(size - len(model)))
            assert fs.read_bytes("/f") == model
        file.seek(-50, io.SEEK_END)
        assert file.read(100) == bytes(50)
        assert file.read(100) == b""
    with pytest.raises(ValueError, match="closed"):
        file.read()
    with fs.open_file("/f") as file, pytest.raises(io.UnsupportedOperation):
        file.write(b"x")


def test_holes(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", b"x" * 300_000)
    used = fs.stat("/f").blocks
    fs.punch_hole("/f", 1000, 100_000)
    model = b"x" * 1000 + bytes(100_000) + b"x" * 199_000
    assert fs.read_bytes("/f") == model
    assert fs.stat("/f").blocks < used - 190
    fs.punch_hole("/f", 10, 5)
    fs.punch_hole("/f", 299_999, 10**12)
    assert fs.read_bytes("/f") == model[:10] + bytes(5) + model[15:299_999] + b"\0"
    fs.punch_hole("/f", 0, 10**12)
    assert (fs.stat("/f").size, fs.stat("/f").blocks) == (300_000, 0)


def test_what_lay_behind_the_end_is_not_seen(fs: WritableFilesystem) -> None:
    """A file that grows reads as zeros there, whatever its last block held."""
    fs.write_bytes("/f", b"x" * 100)
    block = fs.data_extents("/f")[0][1]
    fs._session.write_data(block, b"x" * 100 + b"garbage")
    fs.truncate("/f", 500)
    assert fs.read_bytes("/f") == b"x" * 100 + bytes(400)
    fs.truncate("/f", 100)
    fs._session.write_data(block, b"x" * 100 + b"garbage")
    with fs.open_file("/f", "r+") as file:
        file.write_at(3000, b"y")
    assert fs.read_bytes("/f") == b"x" * 100 + bytes(2900) + b"y"


def test_deleted_while_open(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", b"content")
    free = fs.superblock.free_inodes
    one, two = fs.open_file("/f", "r+"), fs.open_file("/f")
    fs.unlink("/f")
    assert fs.superblock.last_orphan == one.ino
    fs.sync()
    one.write_at(7, b" and more")
    assert two.read() == b"content and more"
    one.close()
    assert two.read_at(0, 7) == b"content"
    assert number_of(lambda: fs.link(two.ino, "/again")) == errno.ENOENT
    two.close()
    assert fs.superblock.last_orphan == 0
    assert fs.superblock.free_inodes == free + 1


def test_several_deleted_while_open(fs: WritableFilesystem, device: MemoryDevice) -> None:
    """The list of orphans runs through inodes that are written themselves, and given up in any order."""
    handles = []
    for number in range(4):
        fs.create(f"/{number}")
        handles.append(fs.open_file(f"/{number}", "r+"))
        fs.unlink(f"/{number}")
    for order in (1, 2, 3, 0):
        for handle in handles:
            if not handle.closed:
                handle.write(b"x" * 2000)
        handles[order].close()
        fs.sync()
        with ext3.Filesystem.open(MemoryDevice(bytes(device.data)), "r+", clock=clock) as recovered:
            assert recovered.superblock.free_inodes == fs.superblock.free_inodes + 4 - sum(h.closed for h in handles)
    assert fs.superblock.last_orphan == 0


def test_an_attribute_block_counts_among_the_blocks(fs: WritableFilesystem) -> None:
    with fs.open_file(fs.create("/f"), "r+") as file:
        file.write(b"x" * 1024)
        fs.set_xattr("/f", b"user.a", bytes(500))
        file.write(b"x" * 1024)
        assert fs.stat("/f").blocks == 6
        fs.remove_xattr("/f", b"user.a")
        file.write(b"x" * 1024)
        assert fs.stat("/f").blocks == 6


def test_a_failing_unlink_of_an_open_file_keeps_it(fs: WritableFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that is undone after the file became an orphan must not cost the file."""
    fs.write_bytes("/f", b"kept")
    fs.write_bytes("/g", b"g")
    handle = fs.open_file("/f")

    drop_unlinked = fs._nodes.drop_unlinked

    def fail(node: Node) -> None:
        drop_unlinked(node)
        raise ext3.DeviceError("fails")

    with monkeypatch.context() as patched:
        patched.setattr(fs._nodes, "drop_unlinked", fail)
        with pytest.raises(ext3.DeviceError):
            fs.rename("/g", "/f")
    handle.close()
    assert fs.read_bytes("/f") == b"kept"
    assert fs.read_bytes("/g") == b"g"


@pytest.mark.parametrize("way", ["kernel", "no copy_file_range", "no copy in the kernel"])
def test_write_from(fs: WritableFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "no copy_file_range":
        monkeypatch.setattr(hostio, "copy_range", lambda *_: 0)
    if way == "no copy in the kernel":
        monkeypatch.setattr(hostio, "kernel_copy", lambda *_: 0)
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.write(b"begin" * 1000)
        file.seek(1 << 20)
        file.write(b"end")
        file.truncate(3 << 20)
    told: list[int] = []
    fs.create("/f")
    with source.open("rb") as file:
        assert fs.write_from("/f", file, advance=told.append) == 3 << 20
    assert fs.read_bytes("/f") == source.read_bytes()
    assert 5000 <= sum(told) <= 3 << 20
    if os.stat(source).st_blocks * 512 < 1 << 20:
        assert fs.stat("/f").blocks * 512 < 1 << 20
    assert fs.write_from("/f", io.BytesIO(b"stream")) == 6
    assert fs.read_bytes("/f") == b"stream"
    with source.open("wb") as file:
        file.write(b"x" * (9 << 20))
    with source.open("rb") as file, pytest.raises(ext3.NoSpaceError):
        fs.write_from("/f", file)
    assert fs.read_bytes("/f") == b"stream"


def test_interrupted_copies(fs: WritableFilesystem, tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves no part of a file behind."""
    (tmp_path / "large").write_bytes(os.urandom(3 << 20))

    class Stop:
        def phase(self, name: str, total: int | None, unit: str) -> None: ...
        def done(self) -> None: ...
        def advance(self, count: int) -> None:
            raise KeyboardInterrupt

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(errno.EIO, "unreadable")
            return super().read(size)

    fs.write_bytes("/f", b"old")
    with (tmp_path / "large").open("rb") as file, pytest.raises(KeyboardInterrupt):
        fs.write_from("/f", file, advance=Stop().advance)
    assert fs.stat("/f").size == 0
    with pytest.raises(OSError, match="unreadable"):
        fs.write_from("/f", Source(bytes(2 << 20)))
    assert (fs.stat("/f").size, fs.stat("/f").blocks) == (0, 0)


def test_room_is_used_up_and_given_back(fs: WritableFilesystem) -> None:
    free = fs.superblock.free_blocks
    number = 0
    with pytest.raises(ext3.NoSpaceError):
        while True:
            fs.write_bytes(f"/f{number}", bytes(1 << 19))
            number += 1
    assert number > 5
    left = fs.superblock.free_blocks
    assert number_of(lambda: fs.write_bytes("/f0", bytes(8 << 20))) == errno.ENOSPC
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
    device = MemoryDevice(8 << 20)
    options = ImageOptions(size=8 << 20, block_size=1024, inodes=32)
    ext3.build_image(empty_tree(), device, options=options)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        with pytest.raises(ext3.NoFreeInodesError):
            for number in range(100):
                fs.create(f"/{number}")
        names = sorted(entry.name for entry in fs.scandir("/"))
        assert number_of(lambda: fs.mkdir("/more")) == errno.ENOSPC
        assert number_of(lambda: fs.symlink("x" * 100, "/more")) == errno.ENOSPC
        assert sorted(entry.name for entry in fs.scandir("/")) == names
        fs.unlink("/0")
        fs.mkdir("/more")
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def test_more_than_the_journal_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose blocks are all over is deleted, cut and punched in steps where the journal is too small for one."""
    device = blank(size=16 << 20)
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


def test_immutable(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", b"fixed")
    node = fs._nodes.edit(fs.lookup("/f"))
    node.record.flags |= 0x10
    for work in (
        lambda: fs.write_bytes("/f", b""),
        lambda: fs.unlink("/f"),
        lambda: fs.rename("/f", "/g"),
        lambda: fs.chmod("/f", 0),
        lambda: fs.link("/f", "/g"),
    ):
        assert number_of(work) == errno.EPERM


@pytest.mark.parametrize("ino", [1, 7, JOURNAL_INO, 9, 500])
def test_names_that_lead_to_what_is_no_file(ino: int) -> None:
    """The journal, reserved or free inodes are not deleted or written through a planted name."""
    device = blank()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.create("/trap")
        block = fs.data_extents("/")[0][1]
    at = bytes(device.data).index(b"trap", block * 1024) - 8
    device.data[at : at + 4] = ino.to_bytes(4, "little")
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        before = bytes(device.data)
        for work in (
            lambda: fs.unlink("/trap"),
            lambda: fs.remove_tree("/trap"),
            lambda: fs.rename("/trap", "/x"),
            lambda: fs.write_bytes("/trap", b"x"),
            lambda: fs.chmod("/trap", 0),
            lambda: fs.link("/trap", "/x"),
        ):
            with pytest.raises(ext3.CorruptError) as caught:
                work()
            assert caught.value.hint
        fs.sync()
        assert bytes(device.data) == before


def test_directories_in_a_circle() -> None:
    """A ".." that leads nowhere, and a directory that holds itself, end in an error."""
    device = blank()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        a = fs.mkdir("/a")
        b = fs.mkdir("/a/b")
        fs.mkdir("/c")
        node = fs._nodes.edit(a)
        with fs._session.operation():
            fs._nodes.directory(node).set_parent(b)
            fs._nodes.directory(fs._nodes.edit(b)).insert(b"loop", a, FileType.DIRECTORY)
        with pytest.raises(ext3.CorruptError, match="loop"):
            fs.rename("/c", "/a/b/c")
        with pytest.raises(ext3.CorruptError, match="two or more"):
            fs.remove_tree("/a")


def test_a_file_over_metadata_is_not_written() -> None:
    """A planted pointer to the inode table: writing the file does not touch it."""
    device = blank()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/f", b"x" * 1024)
        ino = fs.lookup("/f")
        table = int(fs.groups["bg_inode_table"][0])
        raw = bytearray(fs._session.read_inode(ino))
        INODE_CORE.view(raw)["i_block"][0, 0] = table
        with fs._session.operation():
            fs._session.write_inode(ino, raw)
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for work in (
            lambda: fs.open_file("/f", "r+").write_at(0, b"y" * 1024),
            lambda: fs.truncate("/f", 5),
            lambda: fs.unlink("/f"),
        ):
            with pytest.raises(ext3.CorruptError):
                work()
    assert bytes(device.data)[table * 1024 : (table + 8) * 1024] == before[table * 1024 : (table + 8) * 1024]


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
