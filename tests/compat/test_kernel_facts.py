"""What each call changes besides names and content: times, links, sizes, blocks, free counts, as after the kernel's."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import ext3
from ext3.edit.filesystem import WritableFilesystem

from ..support.tools import assert_clean, kernel_mount, require, run

pytestmark = [pytest.mark.compat, pytest.mark.root]

LONG_AGO = 10**18
EXCHANGE, WHITEOUT = 2, 4
BIG = b"v" * 300


def renamed(old: str, new: str, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def put(path: str, at: int, flags: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    os.pwrite(fd, b"y", at)
    os.close(fd)


def put_ours(fs: WritableFilesystem, path: str, at: int) -> None:
    with fs.open_file(path, "r+") as file:
        file.write_at(at, b"y")


CALLS: dict[str, tuple[Callable[[str], object], Callable[[WritableFilesystem], object]]] = {
    "mkdir": (lambda top: os.mkdir(top + "/new"), lambda fs: fs.mkdir("/new", 0o777)),
    "create": (lambda top: put(top + "/d/new", 0, os.O_CREAT), lambda fs: fs.write_bytes("/d/new", b"y")),
    "symlink": (lambda top: os.symlink("y" * 59, top + "/d/y"), lambda fs: fs.symlink("y" * 59, "/d/y")),
    "long symlink": (lambda top: os.symlink("y" * 60, top + "/d/y"), lambda fs: fs.symlink("y" * 60, "/d/y")),
    "link": (lambda top: os.link(top + "/f", top + "/e/y"), lambda fs: fs.link("/f", "/e/y")),
    "fifo": (lambda top: os.mkfifo(top + "/y", 0o644), lambda fs: fs.mknod("/y", 0o010644)),
    "device": (
        lambda top: os.mknod(top + "/y", 0o020600, os.makedev(300, 70_000)),
        lambda fs: fs.mknod("/y", 0o020600, (300, 70_000)),
    ),
    "unlink one of two": (lambda top: os.unlink(top + "/d/l"), lambda fs: fs.unlink("/d/l")),
    "unlink": (lambda top: os.unlink(top + "/d/g"), lambda fs: fs.unlink("/d/g")),
    "rmdir": (lambda top: os.rmdir(top + "/d/s"), lambda fs: fs.rmdir("/d/s")),
    "rename": (lambda top: renamed(top + "/f", top + "/y"), lambda fs: fs.rename("/f", "/y")),
    "rename elsewhere": (lambda top: renamed(top + "/f", top + "/d/y"), lambda fs: fs.rename("/f", "/d/y")),
    "rename over": (lambda top: renamed(top + "/d/g", top + "/e/h"), lambda fs: fs.rename("/d/g", "/e/h")),
    "rename over one of two": (lambda top: renamed(top + "/e/h", top + "/d/l"), lambda fs: fs.rename("/e/h", "/d/l")),
    "rename over itself": (lambda top: renamed(top + "/f", top + "/d/l"), lambda fs: fs.rename("/f", "/d/l")),
    "move a directory": (lambda top: renamed(top + "/d/s", top + "/e/s"), lambda fs: fs.rename("/d/s", "/e/s")),
    "over a directory": (lambda top: renamed(top + "/e/full", top + "/d/s"), lambda fs: fs.rename("/e/full", "/d/s")),
    "exchange": (
        lambda top: renamed(top + "/d/s", top + "/e/h", EXCHANGE),
        lambda fs: fs.rename("/d/s", "/e/h", exchange=True),
    ),
    "exchange beside": (
        lambda top: renamed(top + "/d/s", top + "/d/g", EXCHANGE),
        lambda fs: fs.rename("/d/s", "/d/g", exchange=True),
    ),
    "whiteout": (
        lambda top: renamed(top + "/d/s", top + "/e/y", WHITEOUT),
        lambda fs: fs.rename("/d/s", "/e/y", whiteout=True),
    ),
    "chmod": (lambda top: os.chmod(top + "/f", 0o644), lambda fs: fs.chmod("/f", 0o644)),
    "chown": (lambda top: os.chown(top + "/d", 1, 1), lambda fs: fs.chown("/d", 1, 1)),
    "utime": (lambda top: os.utime(top + "/f", ns=(5, 7)), lambda fs: fs.utimens("/f", 5, 7)),
    "write": (lambda top: put(top + "/f", 0), lambda fs: put_ours(fs, "/f", 0)),
    "write behind a hole": (lambda top: put(top + "/f", 300_000), lambda fs: put_ours(fs, "/f", 300_000)),
    "truncate": (lambda top: os.truncate(top + "/f", 10), lambda fs: fs.truncate("/f", 10)),
    "truncate to the same": (lambda top: os.truncate(top + "/f", 3000), lambda fs: fs.truncate("/f", 3000)),
    "truncate to more": (lambda top: os.truncate(top + "/f", 100_000), lambda fs: fs.truncate("/f", 100_000)),
    "attribute": (lambda top: os.setxattr(top + "/d", "user.a", b"1"), lambda fs: fs.set_xattr("/d", b"user.a", b"1")),
    "attribute block": (
        lambda top: os.setxattr(top + "/f", "user.big", BIG + b"v"),
        lambda fs: fs.set_xattr("/f", b"user.big", BIG + b"v"),
    ),
    "the same attribute": (
        lambda top: os.setxattr(top + "/d/g", "user.big", BIG),
        lambda fs: fs.set_xattr("/d/g", b"user.big", BIG),
    ),
    "attribute of a symlink": (
        lambda top: os.setxattr(top + "/long", "trusted.a", BIG, follow_symlinks=False),
        lambda fs: fs.set_xattr("/long", b"trusted.a", BIG, follow=False),
    ),
    "attribute away": (
        lambda top: os.removexattr(top + "/d/g", "user.big"),
        lambda fs: fs.remove_xattr("/d/g", b"user.big"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image in which everything is old."""
    require("mke2fs", "e2fsck")
    path = tmp_path_factory.mktemp("facts") / "base"
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", "-N", "256", path, "8M")
    with ext3.Filesystem.open(path, "r+", clock=lambda: LONG_AGO) as fs:
        for name in ("/d", "/d/s", "/e", "/e/full"):
            fs.mkdir(name)
        fs.create("/e/full/x")
        for name in ("/f", "/d/g", "/e/h"):
            fs.write_bytes(name, b"x" * 3000)
        fs.link("/f", "/d/l")
        fs.symlink("t" * 200, "/long")
        fs.set_xattr("/d/g", b"user.big", BIG)
        fs.utimens("/", LONG_AGO, LONG_AGO)
    return path.read_bytes()


def facts_of(image: Path) -> dict[bytes, tuple[object, ...]]:
    """Of each file; of its times whether they are new."""
    with ext3.Filesystem.open(image) as fs:
        found: dict[bytes, tuple[object, ...]] = {b"": (fs.superblock.free_blocks, fs.superblock.free_inodes)}
        for path, ino in [(b"/", 2), *((path, entry.ino) for path, entry in fs.walk())]:
            now = fs.stat(ino)
            new = [time > LONG_AGO for time in (now.atime, now.mtime, now.ctime)]
            found[path] = (oct(now.mode), now.links, now.size, now.blocks, new, now.uid, now.gid, now.major, now.minor)
    return found


@pytest.mark.parametrize("call", CALLS)
def test_facts_are_those_of_the_kernel(call: str, base: bytes, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for image in (theirs, ours):
        image.write_bytes(base)
    by_the_kernel, by_us = CALLS[call]
    umask = os.umask(0)
    try:
        with kernel_mount(theirs, rw=True) as point:
            by_the_kernel(str(point))
    finally:
        os.umask(umask)
    with ext3.Filesystem.open(ours, "r+") as fs:
        by_us(fs)
    assert facts_of(ours) == facts_of(theirs)
    assert_clean(ours)
