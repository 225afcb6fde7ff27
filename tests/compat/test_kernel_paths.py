"""Paths that end in a slash, a dot or a symbolic link: each call on each of them ends as the kernel's does."""

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

PATHS = [
    *(
        "new",
        "new/",
        "new//",
        "new/.",
        "new/..",
        "d",
        "d/",
        "d/.",
        "d/..",
        "full",
        "full/",
        "f",
        "f/",
        "f/.",
        "f/new",
        "f/new/",
    ),
    *("ld", "ld/", "ld/.", "lf", "lf/", "lf/.", "lg", "lg/", "loop", "loop/", "d/new/", "nodir/new", "nodir/new/"),
]
NOREPLACE, EXCHANGE = 1, 2
Call = Callable[[str, str], object]
"""Given the directory with the tree, with a slash behind it, and a path in it."""


def opened(path: str, flags: int) -> None:
    os.close(os.open(path, flags))


def renamed(old: str, new: str, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


KERNEL: dict[str, Call] = {
    "mkdir": lambda top, path: os.mkdir(top + path),
    "create": lambda top, path: opened(top + path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC),
    "create exclusively": lambda top, path: opened(top + path, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
    "write": lambda top, path: opened(top + path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC),
    "open": lambda top, path: opened(top + path, os.O_WRONLY),
    "truncate": lambda top, path: os.truncate(top + path, 1),
    "mknod": lambda top, path: os.mknod(top + path, 0o010644),
    "symlink": lambda top, path: os.symlink("t", top + path),
    "link to": lambda top, path: os.link(top + "f", top + path),
    "link": lambda top, path: os.link(top + path, top + "x", follow_symlinks=False),
    "unlink": lambda top, path: os.unlink(top + path),
    "rmdir": lambda top, path: os.rmdir(top + path),
    "rename": lambda top, path: renamed(top + path, top + "x"),
    "rename to x/": lambda top, path: renamed(top + path, top + "x/"),
    "rename to above": lambda top, path: renamed(top + path, top + "above"),
    "rename above/in": lambda top, path: renamed(top + "above/in", top + path),
    "rename f": lambda top, path: renamed(top + "f", top + path),
    "rename e": lambda top, path: renamed(top + "e", top + path),
    "place f": lambda top, path: renamed(top + "f", top + path, NOREPLACE),
    "place e": lambda top, path: renamed(top + "e", top + path, NOREPLACE),
    "exchange f": lambda top, path: renamed(top + "f", top + path, EXCHANGE),
    "exchange with e": lambda top, path: renamed(top + path, top + "e", EXCHANGE),
    "chmod": lambda top, path: os.chmod(top + path, 0o700),
    "stat": lambda top, path: os.lstat(top + path),
}


def calls_of(fs: WritableFilesystem) -> dict[str, Call]:
    return {
        "mkdir": lambda top, path: fs.mkdir(top + path),
        "create": lambda top, path: fs.create(top + path, exclusive=False),
        "create exclusively": lambda top, path: fs.create(top + path),
        "write": lambda top, path: fs.write_bytes(top + path, b""),
        "open": lambda top, path: fs.open_file(top + path, "r+").close(),
        "truncate": lambda top, path: fs.truncate(top + path, 1),
        "mknod": lambda top, path: fs.mknod(top + path, 0o010644),
        "symlink": lambda top, path: fs.symlink("t", top + path),
        "link to": lambda top, path: fs.link(top + "f", top + path),
        "link": lambda top, path: fs.link(top + path, top + "x"),
        "unlink": lambda top, path: fs.unlink(top + path),
        "rmdir": lambda top, path: fs.rmdir(top + path),
        "rename": lambda top, path: fs.rename(top + path, top + "x"),
        "rename to x/": lambda top, path: fs.rename(top + path, top + "x/"),
        "rename to above": lambda top, path: fs.rename(top + path, top + "above"),
        "rename above/in": lambda top, path: fs.rename(top + "above/in", top + path),
        "rename f": lambda top, path: fs.rename(top + "f", top + path),
        "rename e": lambda top, path: fs.rename(top + "e", top + path),
        "place f": lambda top, path: fs.rename(top + "f", top + path, replace=False),
        "place e": lambda top, path: fs.rename(top + "e", top + path, replace=False),
        "exchange f": lambda top, path: fs.rename(top + "f", top + path, exchange=True),
        "exchange with e": lambda top, path: fs.rename(top + path, top + "e", exchange=True),
        "chmod": lambda top, path: fs.chmod(top + path, 0o700),
        "stat": lambda top, path: fs.stat(top + path, follow=False),
    }


def outcome(work: Callable[[], object]) -> int:
    try:
        work()
    except OSError as error:
        return error.errno or -1
    return 0


def made(top: Path) -> None:
    """What the paths are about."""
    for name in ("d", "e", "full/in", "above"):
        (top / name).mkdir(parents=True)
    for name in ("f", "above/in"):
        (top / name).touch()
    for name, target in (("ld", "d"), ("lf", "f"), ("lg", "gone"), ("loop", "loop")):
        (top / name).symlink_to(target)


def names_below(top: Path) -> list[tuple[str, str]]:
    return sorted((str(path.relative_to(top)), oct(path.lstat().st_mode >> 12)) for path in top.rglob("*"))


@pytest.mark.parametrize("verb", KERNEL)
def test_each_call_ends_as_the_kernels(verb: str, tmp_path: Path) -> None:
    require("mke2fs", "e2fsck")
    source, theirs, ours = tmp_path / "source", tmp_path / "theirs", tmp_path / "ours"
    for number in range(len(PATHS)):
        made(source / str(number))
    run("mke2fs", "-q", "-F", "-t", "ext3", "-N", "1024", "-d", source, theirs, "8M")
    ours.write_bytes(theirs.read_bytes())
    with kernel_mount(theirs, rw=True) as point:
        want = [outcome(lambda at=at, path=path: KERNEL[verb](f"{point}/{at}/", path)) for at, path in enumerate(PATHS)]  # type: ignore[misc]
        left = names_below(point)
    with ext3.Filesystem.open(ours, "r+") as fs:
        call = calls_of(fs)[verb]
        got = [outcome(lambda at=at, path=path: call(f"/{at}/", path)) for at, path in enumerate(PATHS)]  # type: ignore[misc]
    assert dict(zip(PATHS, got, strict=True)) == dict(zip(PATHS, want, strict=True))
    assert_clean(ours)
    with kernel_mount(ours) as point:
        assert names_below(point) == left
