"""Search for marks in an image, against images made with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ext3.constants import S_IFCHR
from ext3.edit.filesystem import WritableFilesystem
from sifkit.runtime.images.ext3_state import read_state
from sifkit.runtime.images.mark_search import FoundMarks, search_marks

from .....support.tools import run

Change = Callable[[WritableFilesystem], object]
NOTHING, IGNORED, MOVED = FoundMarks(), FoundMarks(ignored=True), FoundMarks(moved=True)


def searched(image: Path, *, names: bool = True) -> FoundMarks | None:
    fd = os.open(image, os.O_RDONLY)
    try:
        return search_marks(fd, 0, image.stat().st_size, names=names)
    finally:
        os.close(fd)


def made(tmp_path: Path, change: Change, *options: str) -> Path:
    image = tmp_path / "a.img"
    run("mke2fs", "-q", "-F", "-t", "ext3", *options, image, "8M")
    with WritableFilesystem.open_for_changes(image) as fs:
        fs.mkdir("/upper")
        fs.mkdir("/upper/d")
        fs.write_bytes("/upper/d/f", b"content")
        change(fs)
    return image


def many_names(fs: WritableFilesystem) -> None:
    """A directory with an index and indirect blocks, whose last name is a mark."""
    for number in range(700):
        fs.write_bytes(f"/upper/d/a-name-that-is-rather-long-{number:05}", b"")
    fs.write_bytes("/upper/d/.wh.gone", b"")


def long_xattr(fs: WritableFilesystem) -> None:
    """One that leaves the inode no room, so that the mark is in a block."""
    fs.set_xattr("/upper/d", b"user.long", b"x" * 300)
    fs.set_xattr("/upper/d", b"trusted.overlay.redirect", b"/x")


def removed(fs: WritableFilesystem) -> None:
    """Marks that are no more: their bytes may be there."""
    fs.write_bytes("/upper/d/.wh.gone", b"")
    fs.sync()
    fs.unlink("/upper/d/.wh.gone")
    fs.mkdir("/upper/e")
    fs.set_xattr("/upper/e", b"user.overlay.opaque", b"y")
    fs.sync()
    fs.rmdir("/upper/e")


NAMES: list[tuple[Change, FoundMarks]] = [
    (lambda fs: None, NOTHING),
    (removed, NOTHING),
    (lambda fs: fs.mknod("/upper/d/g", S_IFCHR), NOTHING),
    (lambda fs: fs.write_bytes("/upper/d/.wh.notes", b"text"), NOTHING),
    (lambda fs: fs.write_bytes("/upper/d/.wh.f", b""), IGNORED),
    (lambda fs: fs.mknod("/upper/d/.wh..opq", S_IFCHR), IGNORED),
    (many_names, IGNORED),
]
XATTRS: list[tuple[Change, FoundMarks]] = [
    (lambda fs: fs.set_xattr("/upper/d", b"user.overlay.opaque", b"y"), IGNORED),
    (lambda fs: fs.set_xattr("/upper/d", b"user.fuseoverlayfs.opaque", b"y"), IGNORED),
    (lambda fs: [fs.set_xattr("/upper/d", b"%s.overlay.opaque" % one, b"y") for one in (b"user", b"trusted")], NOTHING),
    (lambda fs: fs.set_xattr("/upper/d", b"user.overlay.origin", b"overlay.opaque"), NOTHING),
    (long_xattr, MOVED),
    (lambda fs: fs.set_xattr("/upper/d", b"user.overlay.redirect", b"x"), MOVED),
    (lambda fs: fs.set_xattr("/upper/d/f", b"trusted.overlay.metacopy", b""), MOVED),
    (lambda fs: fs.set_xattr("/upper/d/f", b"trusted.overlay.redirect", b"x"), NOTHING),
    (lambda fs: fs.symlink(b"user.overlay.redirect", "/upper/d/link"), NOTHING),
]
"""The changes that make marks, by names and by xattrs, and what is found."""


def check_search(image: Path, wanted: FoundMarks) -> None:
    assert searched(image) == wanted
    found = searched(image, names=False)
    assert found is not None and found.moved == wanted.moved


@pytest.mark.parametrize(("change", "wanted"), NAMES + XATTRS)
def test_marks_are_found(tmp_path: Path, change: Change, wanted: FoundMarks) -> None:
    check_search(made(tmp_path, change, "-I", "256"), wanted)


@pytest.mark.parametrize(("change", "wanted"), XATTRS)
def test_marks_of_small_inodes_are_found(tmp_path: Path, change: Change, wanted: FoundMarks) -> None:
    """Their xattrs are all in blocks."""
    check_search(made(tmp_path, change, "-I", "128", "-b", "4096"), wanted)


def test_what_is_unusual_is_left_to_others(tmp_path: Path) -> None:
    image = made(tmp_path, lambda fs: None, "-O", "meta_bg,^resize_inode")
    assert searched(image) is None
    image.write_bytes(image.read_bytes()[:5000])
    assert searched(image) is None


def test_hostile_pointers_end_the_search(tmp_path: Path) -> None:
    """A directory that claims many blocks, all behind one pointer that leads to itself."""
    image = made(tmp_path, lambda fs: None)
    for field, value in (("size", 0x7FFF_FFFF), ("block[IND]", 600), ("block[DIND]", 600), ("block[TIND]", 600)):
        run("debugfs", "-w", "-R", f"sif /upper/d {field} {value}", image)
    raw = bytearray(image.read_bytes())
    raw[600 * 1024 : 601 * 1024] = (600).to_bytes(4, "little") * 256
    image.write_bytes(raw)
    assert searched(image) is None


def test_states(tmp_path: Path) -> None:
    image = made(tmp_path, lambda fs: None)

    def state() -> str:
        fd = os.open(image, os.O_RDONLY)
        try:
            found = read_state(fd)
        finally:
            os.close(fd)
        return " ".join(name for name in ("needs_recovery", "needs_check", "may_be_resized") if getattr(found, name))

    assert state() == ""
    for value, wanted in ((0, "needs_check"), (3, "needs_check"), (1, "")):
        run("debugfs", "-w", "-R", f"ssv state {value}", image)
        assert state() == wanted
    run("debugfs", "-w", "-R", "feature needs_recovery", image)
    assert state() == "needs_recovery"
    image.write_bytes(b"x" * 5000)
    assert state() == ""
