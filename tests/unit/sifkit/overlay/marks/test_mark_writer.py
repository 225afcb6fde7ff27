"""Writer of marks: in one operation or in steps, and whiteouts that share an inode."""

from __future__ import annotations

from dataclasses import replace

import pytest

import ext3
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.session import Session
from sifkit.overlay.marks import mark_writer
from sifkit.overlay.marks.mark_plan import DirectoryMarks
from sifkit.overlay.marks.mark_writer import MarkWriter

from .....support.image_checks import check_counts
from .....support.sessions import clock, empty_image

MTIME = 10**18
MARKS = DirectoryMarks(
    hide=tuple(b"n%03d" % number for number in range(40)),
    remove=(b".wh.a",),
    set_xattrs=(b"trusted.overlay.opaque",),
    remove_xattrs=(b"user.fuseoverlayfs.opaque",),
)


def prepare(fs: WritableFilesystem) -> int:
    fs.mkdir("/upper", uid=5, gid=6)
    fs.create("/upper/.wh.a")
    fs.set_xattr("/upper", b"user.fuseoverlayfs.opaque", b"y")
    fs.utimens("/upper", MTIME, MTIME)
    return fs.lookup("/upper")


def check(fs: ext3.Filesystem) -> None:
    assert {entry.name for entry in fs.scandir("/upper")} == set(MARKS.hide)
    assert fs.xattrs("/upper") == {b"trusted.overlay.opaque": b"y"}
    assert fs.stat("/upper").mtime == MTIME
    check_counts(fs)


def test_whiteouts_share_an_inode() -> None:
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        top = prepare(fs)
        before = fs.superblock.free_inodes
        MarkWriter(fs, top).write(top, MARKS)
        assert fs.superblock.free_inodes == before  # one comes, the .wh. file goes
        found = fs.stat("/upper/n000", follow=False)
        assert (found.mode, found.links, found.uid, found.gid) == (0o020000, 40, 5, 6)
        assert (found.major, found.minor) == (0, 0)
    with ext3.Filesystem.open(device) as fs:
        check(fs)


def test_another_inode_when_one_has_all_its_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mark_writer, "LINK_MAX", 16)
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        top = prepare(fs)
        MarkWriter(fs, top).write(top, MARKS)
    with ext3.Filesystem.open(device) as fs:
        check(fs)
        assert sorted(fs.stat(b"/upper/" + name, follow=False).links for name in MARKS.hide) == [8] * 8 + [16] * 32


def test_in_steps_if_the_journal_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """New marks come first: the old ones hold until then."""
    names = tuple(b"%04d" % number + b"n" * 236 for number in range(3300))
    device = empty_image(16 << 20)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        top = prepare(fs)
        seen = []
        sync = Session.sync

        def observe(session: Session) -> None:
            sync(session)
            seen.append((fs.find_name(top, b".wh.a") is None, fs.find_name(top, names[-1]) is None))

        monkeypatch.setattr(Session, "sync", observe)
        MarkWriter(fs, top).write(top, replace(MARKS, hide=names))
    assert (False, True) in seen and (True, True) not in seen
    with ext3.Filesystem.open(device) as fs:
        assert {entry.name for entry in fs.scandir("/upper")} == set(names)
        assert fs.xattrs("/upper") == {b"trusted.overlay.opaque": b"y"} and fs.stat("/upper").mtime == MTIME
        check_counts(fs)
