"""Files without a name, of every type: they get one when they are whole, and are deleted otherwise, by whoever opens next."""

from __future__ import annotations

import errno
from functools import partial
from typing import Any

import pytest

import ext3
from ext3.constants import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.orphan_list import cut_in_steps
from ext3.edit.session import Session
from ext3.journal.transaction import LogWriter

from ....support.image_checks import check_counts
from ....support.sessions import clock, empty_image, errno_of

KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "regular": (S_IFREG | 0o640, {}),
    "fast symlink": (S_IFLNK, {"target": b"t" * 59}),
    "slow symlink": (S_IFLNK | 0o777, {"target": b"t" * 60}),
    "old device": (S_IFCHR | 0o600, {"rdev": (5, 1)}),
    "new device": (S_IFBLK | 0o600, {"rdev": (300, 70_000)}),
    "fifo": (S_IFIFO | 0o644, {}),
    "socket": (S_IFSOCK | 0o755, {}),
}


def make_all(fs: WritableFilesystem, *, with_block: bool) -> dict[str, int]:
    """One of each kind; ``with_block``: with an attribute block, which counts in i_blocks."""
    made = {}
    for kind, (mode, more) in KINDS.items():
        made[kind] = fs.create_nameless(2, mode, uid=1, gid=2, **more)
        if with_block:
            fs.set_xattr(made[kind], b"trusted.long", kind.encode() + b"v" * 300)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_all_that_is_missing(fs: WritableFilesystem, kind: str) -> None:
    """With its name it is what is made under a name at once."""
    mode, more = KINDS[kind]
    ino = fs.create_nameless(2, mode, uid=1, gid=2, **more)
    assert (fs.stat(ino).links, fs.stat(ino).mode & 0o170000) == (0, mode & 0o170000)
    fs.set_attributes(ino, mtime=77)
    fs.name_at(ino, 2, b"nameless")
    fs.release(ino)
    if "target" in more:
        fs.symlink_at(more["target"], 2, b"named", uid=1, gid=2)
        assert fs.readlink(ino) == more["target"]
    else:
        fs.mknod_at(2, b"named", mode, uid=1, gid=2, **more)
    fs.utimens("/named", None, 77, follow=False)
    found, expected = fs.stat(ino), fs.stat("/named", follow=False)
    assert found == expected._replace(ino=ino, generation=found.generation)
    assert {entry.name: entry.file_type for entry in fs.scandir(2)}[b"nameless"] is expected.file_type


def test_a_mode_without_a_type_is_that_of_a_regular_file(fs: WritableFilesystem) -> None:
    ino = fs.create_nameless(2, 0o1640)
    fs.name_at(ino, 2, b"f")
    fs.release(ino)
    assert fs.stat("/f").mode == S_IFREG | 0o1640


@pytest.mark.parametrize("with_block", [False, True])
@pytest.mark.parametrize("how", ["release", "close", "crash"])
def test_without_a_name_nothing_is_left(how: str, with_block: bool) -> None:
    """A device number or a target in the place of a block map frees no blocks of others."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/f", bytes(6_600_000))  # the blocks that such a map would name
        free = fs.superblock.free_blocks, fs.superblock.free_inodes
        made = make_all(fs, with_block=with_block)
        fs.sync()
        left = MemoryDevice(bytes(device.data))
        if how == "release":
            for ino in made.values():
                fs.release(ino)
            assert (fs.superblock.free_blocks, fs.superblock.free_inodes) == free
    with ext3.Filesystem.open(left if how == "crash" else device, "r+", clock=clock) as fs:
        assert (fs.superblock.free_blocks, fs.superblock.free_inodes) == free
    with ext3.Filesystem.open(left if how == "crash" else device) as fs:
        check_counts(fs)
        assert fs.stat("/f").size == 6_600_000


def test_what_has_no_map_is_not_cut(fs: WritableFilesystem) -> None:
    """Deleting it in steps, as for a journal that is too small, looks for no blocks of it."""
    made = make_all(fs, with_block=False)
    fs.sync()
    for kind in set(made) - {"regular", "slow symlink"}:
        cut_in_steps(fs._session, made[kind], 0)
    fs._nodes.forget()
    assert fs.readlink(made["fast symlink"]) == b"t" * 59
    assert (fs.stat(made["new device"]).major, fs.stat(made["new device"]).minor) == (300, 70_000)


def test_named_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is what it would be if it were read from the inodes, and a crash deletes what is in it."""
    monkeypatch.setattr(Session, "should_commit", True)
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        made = list(make_all(fs, with_block=False).values())
        for number in (3, 0, 6):
            fs.name_at(made[number], 2, b"n%d" % number)
        fs.release(made[2])
        left = MemoryDevice(bytes(device.data))
        for ino in made[:2] + made[3:]:
            fs.release(ino)
    for image in (left, device):
        with ext3.Filesystem.open(image, "r+", clock=clock) as fs:
            assert {entry.name for entry in fs.scandir(2)} - {b".", b"..", b"lost+found"} == {b"n3", b"n0", b"n6"}
        with ext3.Filesystem.open(image) as fs:
            check_counts(fs)


@pytest.mark.parametrize(
    ("mode", "more", "number"),
    [
        (S_IFDIR | 0o755, {}, errno.EINVAL),
        (0o150000, {}, errno.EINVAL),
        (S_IFREG, {"target": b"t"}, errno.EINVAL),
        (S_IFLNK, {}, errno.EINVAL),
        (S_IFLNK, {"target": b""}, errno.ENOENT),
        (S_IFLNK, {"target": b"a\0b"}, errno.EINVAL),
        (S_IFLNK, {"target": b"t" * 1024}, errno.ENAMETOOLONG),
        (S_IFCHR, {"rdev": (1 << 12, 0)}, errno.EINVAL),
    ],
)
def test_refused(fs: WritableFilesystem, mode: int, more: dict[str, Any], number: int) -> None:
    before = fs.superblock.free_inodes
    assert errno_of(lambda: fs.create_nameless(2, mode, **more)) == number
    assert fs.superblock.free_inodes == before


# Several calls as one operation


def test_calls_together_take_effect_or_none(fs: WritableFilesystem) -> None:
    fs.write_bytes("/f", b"old")
    fs.mkdir("/d")

    def work() -> int:
        fs.unlink_at(2, b"f")
        ino = fs.symlink_at(b"t" * 200, 2, b"f", uid=1)
        fs.set_xattr(ino, b"trusted.long", b"v" * 500)
        fs.set_attributes(ino, mtime=5)
        return ino

    before = fs.superblock.free_blocks
    for failing in (lambda: fs.mkdir_at(2, b"d"), lambda: fs.set_xattr(2, b"user.a", b"v" * 5000)):
        with pytest.raises((ext3.PathError, ext3.XattrError)):
            fs.atomically(lambda failing=failing: (work(), failing()))
        assert fs.read_bytes("/f") == b"old"
        assert fs.superblock.free_blocks == before
    ino = fs.atomically(work)
    assert (fs.stat("/f", follow=False).ino, fs.stat(ino).mtime, fs.readlink(ino)) == (ino, 5, b"t" * 200)


def test_a_call_that_fails_alone(fs: WritableFilesystem) -> None:
    """What its caller catches undoes that call, not the others."""

    def work() -> int:
        ino = fs.mkdir_at(2, b"d", uid=3)
        for value in (b"short", b"v" * 5000):
            try:
                fs.set_xattr(ino, b"user.a", value)
            except ext3.XattrError:
                fs.set_attributes(ino, mode=0o700)
        return ino

    ino = fs.atomically(work)
    assert (fs.stat(ino).uid, fs.stat(ino).mode & 0o777, fs.xattrs(ino)) == (3, 0o700, {b"user.a": b"short"})


def test_calls_together_that_the_journal_has_no_room_for_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are done again after a commit; one that is too much by itself is refused, and nothing is committed halfway."""
    device = empty_image(24 << 20)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/large", b"f" * (18 << 20))
        fs.sync()
        monkeypatch.setattr(Session, "should_commit", False)
        monkeypatch.setattr(LogWriter, "capacity", 16)
        runs = 0

        def work(number: int) -> None:
            nonlocal runs
            runs += 1
            ino = fs.mkdir_at(2, b"%d" % number)
            fs.set_xattr(ino, b"trusted.long", b"%d" % number * 400)

        for number in range(8):
            fs.atomically(partial(work, number))
        assert runs > 8
        fs.sync()
        monkeypatch.setattr(LogWriter, "capacity", 10)
        with pytest.raises(ext3.JournalFullError):
            fs.atomically(lambda: fs.unlink_at(2, b"large"))
        with pytest.raises(ext3.JournalFullError):
            fs.atomically(lambda: fs.set_attributes(fs.lookup("/large"), size=300 * 1024))
        assert fs.stat("/large").size == 18 << 20
        fs.unlink("/large")
    with ext3.Filesystem.open(device) as fs:
        assert sorted(entry.name for entry in fs.scandir(2)) == sorted([b"lost+found", *(b"%d" % n for n in range(8))])
        check_counts(fs)
