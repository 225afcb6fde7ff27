"""Copies into an image, interrupted anywhere: every name that is there leads to the whole file.

``cp -a`` of files of all types. What is final of a directory while it is filled: all but its times and its links.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest

import ext3
from ext3.constants import ROOT_INO, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFSOCK
from ext3.device.base import BlockDevice, MemoryDevice
from ext3.device.copy_on_write import Event, RecordingDevice, play
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.session import Session
from ext3.progress import Silent
from sifkit.overlay.copying.copier import Copier
from sifkit.overlay.copying.copy_options import PRESERVE_ALL, CopyOptions
from sifkit.overlay.copying.copy_source import CopySource
from sifkit.overlay.edit.upper_edit import OverlayEditor
from sifkit.vfs.copy_outcome import Copied
from sifkit.vfs.whiteouts import OPAQUE_XATTRS

from ..support.crashes import Recording
from ..support.facts import Facts, TreeFacts, facts_of_image
from ..support.image_checks import check_counts
from ..support.sessions import COMMIT_START, clock, empty_image

ACL = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")
MEBIBYTE = 1 << 20


def make_directory_of_all(fs: WritableFilesystem, top: str, number: int) -> None:
    """A directory with an odd mode, and in it files of all types: with attributes, ACLs, holes and second names."""
    fs.mkdir(top, 0o2751, uid=number, gid=77)
    fs.set_xattr(top, b"user.d", b"d" * 30)
    for name, mode in (("acl", 0o0750), ("sticky", 0o1777), ("shut", 0)):
        fs.mkdir(f"{top}/{name}", mode)
        fs.write_bytes(f"{top}/{name}/f", b"f" * 100)
    fs.set_xattr(f"{top}/acl", b"system.posix_acl_default", ACL)
    fs.set_xattr(f"{top}/acl", b"system.posix_acl_access", ACL)
    fs.mkdir(f"{top}/acl/below", 0o2700)
    fs.set_xattr(f"{top}/acl/below", b"trusted.long", b"%d" % number * 300)
    for place in (top, f"{top}/acl"):
        for size in (0, 10, 1000, 20_000):
            fs.write_bytes(f"{place}/{size}", b"%d " % number * (size // 4))
        fs.chmod(f"{place}/10", 0o6755)
        fs.set_xattr(f"{place}/10", b"security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        fs.set_xattr(f"{place}/1000", b"user.long", b"%d" % number * 200)
        fs.set_xattr(f"{place}/1000", b"system.posix_acl_access", ACL)
        fs.create(f"{place}/sparse")
        with fs.open_file(f"{place}/sparse", "r+") as file:
            file.write_at(300_000, b"behind a hole")
            file.truncate(400_000)
        fs.symlink("t" * 20, f"{place}/fast")
        fs.symlink("t" * 200, f"{place}/slow")
        fs.set_xattr(fs.lookup(f"{place}/slow", follow=False), b"trusted.s", b"s" * 300)
        fs.mknod(f"{place}/fifo", S_IFIFO | 0o640)
        fs.mknod(f"{place}/socket", S_IFSOCK | 0o755)
        fs.mknod(f"{place}/chr", S_IFCHR | 0o620, (5, 1))
        fs.mknod(f"{place}/blk", S_IFBLK | 0o660, (300, 70_000))
        fs.link(f"{place}/1000", f"{place}/1000-again")
        fs.link(f"{place}/fifo", f"{place}/fifo-again")
        fs.link(f"{place}/20000", f"{top}/sticky/20000-{len(place)}")


def set_owners_and_times(fs: WritableFilesystem, top: bytes) -> None:
    """Owners and times that no copy has by itself; modes and capabilities stay."""
    for number, (_, entry) in enumerate(fs.walk(top)):
        mode, xattrs = fs.stat(entry.ino).mode, fs.xattrs(entry.ino)
        is_link = mode & S_IFMT == 0o120000
        fs.set_attributes(entry.ino, uid=1000 + number % 3, gid=2000 + number % 5, mode=None if is_link else mode)
        for name in xattrs.keys() - fs.xattrs(entry.ino).keys():
            fs.set_xattr(entry.ino, name, xattrs[name])
        fs.utimens(entry.ino, number * 10**9 + 5, (10**8 + number) * 10**9 + 7)
    fs.utimens(top, 1, 2)


@contextmanager
def source_of(directories: int, more_files: int) -> Iterator[ext3.Filesystem]:
    """An image with /tree: some directories of all types, and files with long names."""
    device = empty_image(16 * MEBIBYTE)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/tree", 0o1777)
        for number in range(directories):
            make_directory_of_all(fs, f"/tree/d{number}", number)
        for number in range(more_files):
            fs.write_bytes(b"/tree/%d-" % number + b"n" * 100, b"%d" % number * 50)
        set_owners_and_times(fs, b"/tree")
    with ext3.Filesystem.open(device) as fs:
        yield fs


def copy(source: ext3.Filesystem, path: bytes, editor: OverlayEditor, target: bytes) -> None:
    """``cp -aT`` from one image into the other."""
    copier = Copier(editor, CopyOptions(recursive=True, preserve=PRESERVE_ALL), image="", progress=Silent())
    copied = CopySource.of(source, source.lookup(path, follow=False), os.fsdecode(path))
    assert all(walked.listing.problem is None for walked in copied.walk())
    for outcome in copier.copy(copied, editor.resolve(target, follow=False)):
        assert isinstance(outcome, Copied), outcome


def record_copy(source: ext3.Filesystem, device: MemoryDevice) -> tuple[list[Event], TreeFacts]:
    """Copy /tree. Return what was written, and the facts of the result, which are those of the source."""
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        copy(source, b"/tree", OverlayEditor(fs), b"/tree")
    with ext3.Filesystem.open(device) as fs:
        found = facts_of_image(fs)
        check_counts(fs)
    below = {path: fact for path, fact in facts_of_image(source).items() if path != b"/"}
    assert {path: fact for path, fact in found.items() if path != b"/"} == below
    return recorded.events, found


def as_seen(fact: Facts) -> Facts:
    """The facts that do not change once there is a name."""
    if fact.mode & S_IFMT == S_IFDIR:
        fact = fact._replace(mtime=None)
    return fact._replace(links=None, first=b"")


def check_cut(left: BlockDevice, final: TreeFacts) -> int:
    """Recover what is left by an interruption, and judge it. Return the number of names."""
    with ext3.Filesystem.open(left, "r+", clock=clock):
        pass
    with ext3.Filesystem.open(left) as fs:
        found = facts_of_image(fs)
        check_counts(fs)
    inodes: dict[bytes, bytes] = {}
    for path, fact in found.items():
        if path != b"/":
            assert as_seen(fact) == as_seen(final[path]), path
            assert inodes.setdefault(final[path].first, fact.first) == fact.first, f"{path!r} is another file"
    return len(found)


def commits(events: list[Event]) -> list[int]:
    """Where in the events the commits are on storage."""
    found = [at for at, event in enumerate(events) if event.data[:8] == COMMIT_START]
    return [next(end for end in range(at, len(events)) if events[end].kind == "sync") for at in found]


@pytest.mark.slow
def test_after_every_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation is committed by itself: after none of them is there a name of something unfinished."""
    monkeypatch.setattr(Session, "should_commit", True)
    device = empty_image()
    before = MemoryDevice(bytes(device.data))
    with source_of(2, 10) as source:
        events, final = record_copy(source, device)
    ends = commits(events)
    assert len(ends) > 250
    names = [check_cut(play(before, events[:end]), final) for end in ends]
    assert names == sorted(names) and set(names) == set(range(2, len(final) + 1))


@pytest.mark.slow
def test_after_every_transaction() -> None:
    """As it is in use: a journal of 1 MiB, in which each transaction has many files."""
    device = empty_image(24 * MEBIBYTE)
    before = MemoryDevice(bytes(device.data))
    with source_of(12, 2000) as source:
        events, final = record_copy(source, device)
    ends = commits(events)
    assert len(ends) > 4
    names = [check_cut(play(before, events[:end]), final) for end in ends]
    assert names == sorted(names) and len(set(names)) == len(names) and names[-1] == len(final)


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_cut_anywhere(block_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every write, and with writes lost, in another order, or torn."""
    device = empty_image(24 * MEBIBYTE, block_size=block_size)
    before = bytes(device.data)
    with source_of(3, 60) as source:
        monkeypatch.setattr(Session, "should_commit", property(lambda session: len(session._changes.blocks) > 8))
        events, final = record_copy(source, device)
    monkeypatch.undo()
    chosen = Random(1)
    cuts = Recording(before, events, [], []).cuts(seed=block_size)
    names = {check_cut(left, final) for _, left in cuts if chosen.random() < 0.5}
    assert len(names) > 8


def make_replaced(fs: WritableFilesystem) -> None:
    """Names that the copy replaces by a file of another type, or of which it hides what is below."""
    fs.mkdir("/upper")
    fs.mkdir("/upper/t", 0o700)
    fs.mknod("/upper/t/regular", S_IFIFO | 0o600)
    fs.write_bytes("/upper/t/fast", b"old" * 30_000)
    fs.write_bytes("/upper/t/slow", b"old")
    fs.link("/upper/t/slow", "/upper/second")
    fs.mknod("/upper/t/fifo", S_IFBLK | 0o600, (300, 70_000))
    fs.symlink("o" * 200, "/upper/t/blk")
    for name in ("link", "whiteout", "directory"):
        fs.mknod(f"/upper/t/{name}", S_IFCHR)


def make_replacing(fs: WritableFilesystem) -> None:
    fs.mkdir("/t", 0o2755)
    fs.write_bytes("/t/regular", b"new" * 5000)
    fs.symlink("n" * 10, "/t/fast")
    fs.symlink("n" * 200, "/t/slow")
    fs.mknod("/t/fifo", S_IFIFO | 0o640)
    fs.mknod("/t/blk", S_IFBLK | 0o660, (8, 1))
    fs.link("/t/fifo", "/t/link")
    fs.write_bytes("/t/whiteout", b"new")
    fs.mkdir("/t/directory", 0o750)
    fs.write_bytes("/t/directory/f", b"new")
    set_owners_and_times(fs, b"/t")


def test_what_is_replaced_is_there_until_the_other_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of another type, or a whiteout: the old or the new, whole, at any time; a directory is opaque at once."""
    origin, device = empty_image(), empty_image()
    with ext3.Filesystem.open(origin, "r+", clock=clock) as fs:
        make_replacing(fs)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        make_replaced(fs)
        old = facts_of_image(fs)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with monkeypatch.context() as patch, ext3.Filesystem.open(origin) as source:
        patch.setattr(Session, "should_commit", True)
        with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
            copy(source, b"/t", OverlayEditor(fs, upper=True), b"/t")
    with ext3.Filesystem.open(device) as fs:
        new = facts_of_image(fs)
        assert OPAQUE_XATTRS[0] in fs.xattrs("/upper/t/directory")
    seen = set()
    for end in commits(recorded.events):
        left = play(before, recorded.events[:end])
        with ext3.Filesystem.open(left, "r+", clock=clock) as fs:
            found = facts_of_image(fs)
            assert fs.stat(ROOT_INO).is_dir
        with ext3.Filesystem.open(left) as fs:
            check_counts(fs)
        assert old.keys() <= found.keys() <= new.keys()
        for path, fact in found.items():
            choices = [as_seen(facts[path]) for facts in (old, new) if path in facts]
            assert as_seen(fact) in choices, path
            seen.add((path, choices.index(as_seen(fact))))
        changed = [path for path in found if as_seen(found[path]) != as_seen(old.get(path, found[path]))]
        assert not changed or b"/upper/t" in changed  # the directory comes first
    assert {path for path, which in seen if which} == {path for path in old if as_seen(old[path]) != as_seen(new[path])}
