"""Copies into an image that lacks something: room for two, an attribute, the source. The rest is as it should be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

import ext3
from ext3.constants import S_IFCHR, S_IFIFO
from ext3.edit.filesystem import WritableFilesystem
from ext3.progress import Silent
from sifkit.overlay.copying.copier import Copier
from sifkit.overlay.copying.copy_options import PRESERVE_ALL, CopyOptions
from sifkit.overlay.copying.copy_source import CopySource
from sifkit.overlay.edit.upper_edit import OverlayEditor
from sifkit.vfs.copy_outcome import Copied, CopyError, CopyWarning

from .....support.image_checks import check_counts
from .....support.sessions import clock, empty_image

ACL = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")


@pytest.fixture
def source() -> Iterator[ext3.Filesystem]:
    """/tree of another image: a directory with attributes, files of several types in it."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/tree", 0o2750, uid=1, gid=2)
        fs.write_bytes("/tree/f", b"new" * 1000)
        fs.set_attributes(fs.lookup("/tree/f"), mode=0o4711, uid=3, gid=4)
        fs.set_xattr("/tree/f", b"user.a", b"1")
        fs.symlink("n" * 200, "/tree/slow")
        fs.mknod("/tree/fifo", S_IFIFO | 0o640, uid=5)
        for path in ("/tree/slow", "/tree/fifo"):
            fs.set_xattr(path, b"trusted.t", b"1", follow=False)
        for path in ("/tree/f", "/tree/slow", "/tree/fifo", "/tree"):
            fs.utimens(path, 10, 20, follow=False)
    with ext3.Filesystem.open(device) as fs:
        yield fs


@pytest.fixture
def target() -> Iterator[OverlayEditor]:
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        yield OverlayEditor(fs)
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)


def copy(tree: ext3.Filesystem, target: OverlayEditor, path: bytes) -> tuple[list[CopyError], list[str]]:
    """``cp -aT``: the errors, and the targets that were copied."""
    copier = Copier(target, CopyOptions(recursive=True, preserve=PRESERVE_ALL), image="", progress=Silent())
    source = CopySource.of(tree, tree.lookup(path, follow=False), os.fsdecode(path))
    if tree.stat(source.node).is_dir:
        assert [walked.depth for walked in source.walk()] == [0]
    outcomes = list(copier.copy(source, target.resolve(path, follow=False)))
    assert not any(isinstance(one, CopyWarning) for one in outcomes)
    copied = [one.target.removeprefix(":") for one in outcomes if isinstance(one, Copied)]
    return [one for one in outcomes if isinstance(one, CopyError)], copied


def use_up_inodes(fs: WritableFilesystem) -> None:
    for number in range(fs.superblock.free_inodes):
        fs.mknod(f"/used-{number}", S_IFCHR)


def use_up_blocks(fs: WritableFilesystem) -> None:
    ino = fs.create("/used")
    with fs.open_file(ino, "r+") as file:
        at = 0
        while fs.superblock.free_blocks:
            size = 64 if fs.superblock.free_blocks > 80 else 1
            try:
                file.write_at(at, b"u" * (size << 10))
            except ext3.NoSpaceError:  # a pointer block was needed, too
                break
            at += size << 10


def old_file(fs: WritableFilesystem, path: str) -> None:
    fs.write_bytes(path, b"old" * 20_000)


def old_fifo(fs: WritableFilesystem, path: str) -> None:
    fs.mknod(path, S_IFIFO | 0o600)


@pytest.mark.slow
@pytest.mark.parametrize("old", [old_file, old_fifo])
@pytest.mark.parametrize("path", ["/tree/slow", "/tree/f", "/tree/fifo"])
def test_there_is_no_inode_for_both(
    source: ext3.Filesystem, target: OverlayEditor, path: str, old: Callable[[WritableFilesystem, str], None]
) -> None:
    """The old file goes first, as with cp."""
    fs = target.filesystem
    fs.mkdir("/tree")
    old(fs, path)
    use_up_inodes(fs)
    errors, copied = copy(source, target, path.encode())
    assert not errors and copied == [path]
    found, expected = fs.stat(path, follow=False), source.stat(path, follow=False)
    assert (found.mode, found.uid, found.gid, found.size, found.mtime) == (
        expected.mode, expected.uid, expected.gid, expected.size, expected.mtime,
    )  # fmt: skip


def test_there_is_no_block_for_both(source: ext3.Filesystem, target: OverlayEditor) -> None:
    fs = target.filesystem
    fs.mkdir("/tree")
    old_file(fs, "/tree/slow")
    use_up_blocks(fs)
    assert copy(source, target, b"/tree/slow") == ([], ["/tree/slow"])
    assert fs.readlink("/tree/slow") == b"n" * 200


def test_an_attribute_that_does_not_fit(
    source: ext3.Filesystem, target: OverlayEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file and the directory are there, with all else; both are reported, the directory when it is filled."""
    monkeypatch.setattr(source, "xattrs", lambda node: {b"user.a": b"1", b"user.large": b"v" * 2000})
    fs = target.filesystem
    fs.set_xattr("/", b"system.posix_acl_default", ACL)
    errors, copied = copy(source, target, b"/tree")
    assert [error.path for error in errors] == [b"/tree/f", b"/tree/fifo", b"/tree/slow", b"/tree"]
    assert all("setting attributes of" in str(error) for error in errors)
    assert copied == ["/tree"]
    for path in ("/tree", "/tree/f", "/tree/fifo", "/tree/slow"):
        found, expected = fs.stat(path, follow=False), source.stat(path, follow=False)
        assert (found.mode, found.uid, found.gid, found.mtime) == (expected.mode, expected.uid, expected.gid, expected.mtime)
        assert b"system.posix_acl_access" not in fs.xattrs(path, follow=False)
    assert fs.xattrs("/tree") == fs.xattrs("/tree/f") == {b"user.a": b"1"}
    assert fs.read_bytes("/tree/f") == b"new" * 1000


@pytest.mark.parametrize("what", ["open_file", "readlink"])
def test_what_would_be_replaced_stays_if_the_source_cannot_be_read(
    source: ext3.Filesystem, target: OverlayEditor, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fails(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(source, what, fails)
    fs = target.filesystem
    fs.mkdir("/tree")
    path = {"open_file": "/tree/f", "readlink": "/tree/slow"}[what]
    old_fifo(fs, path)
    free = fs.superblock.free_inodes
    errors, copied = copy(source, target, path.encode())
    assert "Permission denied" in str(errors[0]) and not copied
    assert fs.stat(path).mode == S_IFIFO | 0o600
    assert fs.superblock.free_inodes == free


def test_attributes_are_read_before_there_is_a_name(
    source: ext3.Filesystem, target: OverlayEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory has its name while its attributes are set, which is one operation."""
    there = []
    xattrs = source.xattrs

    def look(node: int) -> dict[bytes, bytes]:
        path = {source.lookup(f"/tree/{name}", follow=False): name for name in ("f", "slow", "fifo")}.get(node)
        there.append(path is not None and target.tree.find_name(target.lookup(b"/tree"), os.fsencode(path)) is not None)
        return xattrs(node)

    monkeypatch.setattr(source, "xattrs", look)
    assert copy(source, target, b"/tree") == ([], ["/tree", "/tree/f", "/tree/fifo", "/tree/slow"])
    assert there == [False] * 4
