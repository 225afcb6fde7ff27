"""Attributes of inodes: times, owners, modes and ACLs, what they inherit, and marks that forbid changes."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable

import pytest

import ext3
from ext3.constants import InodeFlag
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.session import Session
from ext3.journal.transaction import LogWriter

from ....support.image_checks import check_counts
from ....support.sessions import COMMIT_START, OLD_STAMP, clock, empty_image, errno_of

NOW = clock()
ACL = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")


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
    with ext3.Filesystem.open(empty_image(stamp=OLD_STAMP, inode_size=128), "r+", clock=clock) as fs:
        fs.create("/f")
        fs.utimens("/f", 10**9 + 1, 7_000_000_000 * 10**9)
        assert fs.stat("/f").atime == 10**9
        assert fs.stat("/f").mtime == (2**31 - 1) * 10**9
        fs.set_xattr("/f", b"user.a", b"1")
        assert fs.stat("/f").blocks == 2
        assert fs.xattrs("/f") == {b"user.a": b"1"}


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


def test_an_owner_that_stays_takes_privileges_too(fs: WritableFilesystem) -> None:
    """As the kernel's chown(-1, -1) does."""
    fs.create("/f", 0o6755, uid=5, gid=6)
    fs.set_xattr("/f", b"security.capability", b"cap")
    fs.chown("/f", None, None)
    found = fs.stat("/f")
    assert (found.uid, found.gid, found.mode & 0o7777, fs.xattrs("/f")) == (5, 6, 0o755, {})


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


# All of them at once


def test_what_is_given_wins_over_what_follows(fs: WritableFilesystem) -> None:
    """A new owner clears set-id bits, a size sets the time, a mode changes the ACL; capabilities go for good."""
    fs.write_bytes("/f", b"x" * 5000)
    for name, value in ((b"system.posix_acl_access", ACL), (b"security.capability", CAPABILITY), (b"user.a", b"1")):
        fs.set_xattr("/f", name, value)
    fs.set_attributes(fs.lookup("/f"), mode=0o6711, uid=5, gid=6, size=1500, atime=7, mtime=9)
    found = fs.stat("/f")
    assert (found.mode, found.uid, found.gid, found.size) == (0o106711, 5, 6, 1500)
    assert (found.atime, found.mtime, found.ctime) == (7, 9, NOW)
    assert fs.read_bytes("/f") == b"x" * 1500
    fs.chmod("/f", 0o6711)
    xattrs = fs.xattrs("/f")
    assert xattrs.keys() == {b"system.posix_acl_access", b"user.a"}
    assert xattrs[b"system.posix_acl_access"][-8:] == bytes.fromhex("20000100ffffffff")


def test_what_is_not_given_stays(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", b"x")
    ino = fs.lookup("/f")
    fs.set_attributes(ino, mode=0o4750, uid=1, gid=2, atime=3, mtime=4)
    for given in ({"atime": 10}, {"mtime": 11}, {"mode": 0o4711}, {"size": 1, "mtime": 12}):
        before = fs.stat(ino)
        fs.set_attributes(ino, **given)
        after = fs.stat(ino)
        assert after == before._replace(**{name: 0o104711 if name == "mode" else value for name, value in given.items()})
    fs.set_attributes(ino, gid=9)
    assert (fs.stat(ino).uid, fs.stat(ino).gid, fs.stat(ino).mode) == (1, 9, 0o100711)


@pytest.mark.parametrize(
    ("path", "given", "error"),
    [
        ("/f", {"size": 1 << 60}, errno.EFBIG),
        ("/d", {"size": 0}, errno.EISDIR),
        ("/l", {"size": 0}, errno.EINVAL),
        ("/f", {"size": -1}, None),
        ("/f", {"uid": -2}, None),
    ],
)
def test_all_of_them_or_none(fs: WritableFilesystem, path: str, given: dict[str, int], error: int | None) -> None:
    fs.write_bytes("/f", b"x")
    fs.mkdir("/d")
    fs.symlink("f", "/l")
    ino = fs.lookup(path, follow=False)
    before = fs.stat(ino)
    with pytest.raises((ext3.PathError, ValueError)) as caught:
        fs.set_attributes(ino, **{"mode": 0o777, "uid": 5, "mtime": 1, **given})
    assert error is None or (isinstance(caught.value, ext3.PathError) and caught.value.errno == error)
    assert fs.stat(ino) == before


def test_one_operation(device: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a commit after each operation there is one."""
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        fs.write_bytes("/f", b"x" * 5000)
        fs.sync()
        monkeypatch.setattr(Session, "should_commit", True)
        before = len(recorded.events)
        fs.set_attributes(fs.lookup("/f"), mode=0o600, uid=1, gid=2, size=10, atime=3, mtime=4)
        commits = [event for event in recorded.events[before:] if event.data[:8] == COMMIT_START]
        assert len(commits) == 1
        fs.set_attributes(fs.lookup("/f"))
        assert len([event for event in recorded.events[before:] if event.data[:8] == COMMIT_START]) == 1


def test_a_size_that_takes_several_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever that is interrupted, all attributes have changed with the size, or none."""
    device = empty_image(24 << 20)
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        fs.write_bytes("/f", b"f" * (18 << 20))
        fs.set_attributes(fs.lookup("/f"), mtime=1)
        fs.sync()
        before, done = MemoryDevice(bytes(device.data)), len(recorded.events)
        with monkeypatch.context() as patch:
            patch.setattr(LogWriter, "capacity", 10)
            fs.set_attributes(fs.lookup("/f"), mode=0o4711, uid=5, size=300 * 1024, mtime=2)
    events = recorded.events[done:]
    ends = [number for number, event in enumerate(events) if event.kind == "sync"]
    seen = set()
    for end in ends:
        cut = play(before, events[:end])
        with ext3.Filesystem.open(cut, "r+", clock=clock) as opened:
            found = opened.stat("/f")
            seen.add((found.mode, found.uid, found.size, found.mtime))
            assert found.size <= found.blocks * 512 < found.size + (1 << 20)
        with ext3.Filesystem.open(cut) as after:
            check_counts(after)
    assert len(ends) > 12
    assert seen == {(0o100644, 0, 18 << 20, 1), (0o104711, 5, 300 * 1024, 2)}


# Content


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
        assert errno_of(work) == errno.EPERM
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
    assert errno_of(lambda: fs.set_xattr("/d", b"system.posix_acl_access", b"\2\0")) == errno.EINVAL


def test_what_changes_nothing_is_no_change() -> None:
    """The same value once more, and times that are to stay: the time of change stays too, as in the kernel."""
    ticks = iter(range(10**9, 2 * 10**9))
    with ext3.Filesystem.open(empty_image(stamp=OLD_STAMP), "r+", clock=lambda: next(ticks)) as fs:
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
        assert errno_of(work) == errno.EPERM
