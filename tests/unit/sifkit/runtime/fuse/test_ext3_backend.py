"""Writable backend of FUSE servers: marks of removed files, files below work/, files without names, full images."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import ext3
from ext3.constants import S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

from sifkit.runtime.fuse.backend import AttributeChanges
from sifkit.runtime.fuse.ext3_backend import KEPT_BLOCKS, WORK_BLOCKS, Ext3Backend
from sifkit.runtime.fuse.protocol import ROOT_ID

SIZE = 8 << 20
OPAQUE = b"user.overlay.opaque"
TRUSTED = b"trusted.overlay.opaque"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    ext3.mkfs(path, SIZE)
    with ext3.Filesystem.open(path, "r+") as filesystem:
        filesystem.mkdir("/upper")
        filesystem.mkdir("/work")
    return path


@contextmanager
def opened(image: Path, *, work: str = "work", has_tmpfile: bool = True) -> Iterator[Ext3Backend]:
    fd = os.open(image, os.O_RDWR)
    backend = Ext3Backend(fd, 0, SIZE, shown=(5, 6), stored=(7, 8), work=work, has_tmpfile=has_tmpfile)
    try:
        yield backend
    finally:
        backend.close()
        os.close(fd)
    forced = ext3.CheckOptions(force=True)
    with open(image, "rb") as file:
        assert not ext3.fsck.check(ext3.FileDevice(file.fileno()), ext3.CheckOnly(), options=forced).findings


def node_of(backend: Ext3Backend, path: str) -> int:
    node = ROOT_ID
    for name in path.encode().split(b"/"):
        entry = backend.lookup(node, name)
        assert entry is not None, path
        node = entry.node
    return node


def test_marks_of_fuse_overlayfs_become_those_of_the_kernel(image: Path) -> None:
    with ext3.Filesystem.open(image, "r+") as filesystem:
        for path in ("/upper/d", "/upper/e", "/upper/both", "/upper/tree", "/upper/.wh.kept"):
            filesystem.mkdir(path)
        for path in ("/upper/.wh.gone", "/upper/.wh.both", "/upper/.wh.tree", "/upper/d/.wh..wh..opq", "/work/.wh.own"):
            filesystem.create(path)
        for path in ("/upper/d/.wh..", "/upper/d/.wh...", "/upper/d/.wh."):  # hide nothing
            filesystem.create(path)
        filesystem.mknod("/upper/d/.wh..opq", S_IFCHR)
        filesystem.create("/upper/tree/file")
        filesystem.create("/upper/.wh.data")
        filesystem.write_bytes("/upper/.wh.data", b"of the user")
        filesystem.set_xattr("/upper/e", b"user.fuseoverlayfs.opaque", b"y")
    with opened(image) as backend:
        assert backend.xattr(node_of(backend, "upper/d"), OPAQUE) == b"y"
        assert backend.xattrs(node_of(backend, "upper/e")) == {OPAQUE: b"y"}
        shown = {listed.name: listed.file_type for listed in backend.list_directory(node_of(backend, "upper"))}
        assert shown == {
            b"d": 4,
            b"e": 4,
            b"both": 4,
            b"tree": 4,
            b"gone": 2,
            b".wh.kept": 4,
            b".wh.both": 8,
            b".wh.tree": 8,
            b".wh.data": 8,
        }
        assert {listed.name for listed in backend.list_directory(node_of(backend, "upper/d"))} == {b".wh..", b".wh...", b".wh."}
        assert backend.lookup(node_of(backend, "work"), b".wh.own") is not None
        with pytest.raises(OSError) as error:
            backend.make_directory(node_of(backend, "upper"), b".wh.new", 0o755)
        assert error.value.errno == errno.EINVAL
    with ext3.Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper/d") == {OPAQUE: b"y", TRUSTED: b"y"}
        gone = filesystem.stat("/upper/gone")
        assert (gone.mode, gone.major, gone.minor) == (S_IFCHR, 0, 0)


def test_what_root_moved_is_shown_to_a_kernel_that_asks(image: Path) -> None:
    """It refuses these files then, and does not show them without their content."""
    with ext3.Filesystem.open(image, "r+") as filesystem:
        filesystem.set_xattr("/upper", b"trusted.overlay.redirect", b"/old")
    with opened(image) as backend:
        upper = node_of(backend, "upper")
        assert backend.xattr(upper, b"user.overlay.redirect") == b"/old" and backend.xattrs(upper) == {}
        assert backend.xattr(upper, b"user.overlay.metacopy") is None


def test_an_opaque_mark_of_root_is_shown_and_removed(image: Path) -> None:
    with ext3.Filesystem.open(image, "r+") as filesystem:
        filesystem.set_xattr("/upper", TRUSTED, b"y")
        filesystem.set_xattr("/upper", b"trusted.overlay.impure", b"y")
    with opened(image) as backend:
        upper = node_of(backend, "upper")
        assert backend.xattrs(upper) == {OPAQUE: b"y"}
        assert backend.xattr(upper, b"trusted.overlay.impure") is None
        backend.remove_xattr(upper, OPAQUE)
        assert backend.xattrs(upper) == {}
        with pytest.raises(OSError) as error:
            backend.remove_xattr(upper, OPAQUE)
        assert error.value.errno == errno.ENODATA


def test_a_directory_that_leaves_work_takes_its_files_with_it(image: Path) -> None:
    with opened(image) as backend:
        work, upper = node_of(backend, "work"), node_of(backend, "upper")
        folder = backend.make_directory(work, b"#1", 0o755).node
        file = backend.make_node(folder, b"file", 0o100644, (0, 0)).node
        backend.fsync(file)
        assert backend.filesystem.unsynced
        backend.rename(work, b"#1", upper, b"folder", replace=True, exchange=False, whiteout=False)
        backend.fsync(file)
        assert not backend.filesystem.unsynced


def test_work_made_after_the_start_and_forgotten_by_the_kernel(image: Path) -> None:
    with opened(image, work="a/w") as backend:
        first = backend.make_directory(ROOT_ID, b"a", 0o755).node
        work = backend.make_directory(first, b"w", 0o755).node
        backend.forget(work, 1)
        work, upper = node_of(backend, "a/w"), node_of(backend, "upper")
        file = backend.make_node(work, b"#1", 0o100644, (0, 0))
        backend.fsync(file.node)
        assert backend.filesystem.unsynced
        backend.rename(work, b"#1", upper, b"named", replace=True, exchange=False, whiteout=False)
        backend.fsync(file.node)
        assert not backend.filesystem.unsynced
        assert backend.attributes(file.node).links == 1


def test_a_copy_without_a_name_is_committed_with_the_name_it_gets(image: Path) -> None:
    with opened(image) as backend:
        work, upper = node_of(backend, "work"), node_of(backend, "upper")
        assert backend.is_private(work) and not backend.is_private(upper)
        file = backend.make_nameless(work, 0o100644).node
        backend.write(file, 0, memoryview(b"copied"), False)
        backend.fsync(file)
        assert backend.filesystem.unsynced
        backend.link(file, upper, b"named")
        backend.fsync(file)
        assert not backend.filesystem.unsynced and backend.attributes(file).links == 1


def test_overlayfs_of_older_kernels_gets_no_files_without_names(image: Path) -> None:
    with opened(image, has_tmpfile=False) as backend:
        with pytest.raises(OSError) as error:
            backend.make_nameless(node_of(backend, "work"), 0o100644)
        assert error.value.errno == errno.EOPNOTSUPP


def test_removed_names_of_files_that_have_others_are_reported(image: Path) -> None:
    with opened(image) as backend:
        upper = node_of(backend, "upper")
        file = backend.make_node(upper, b"a", 0o100644, (0, 0)).node
        mark = backend.make_node(upper, b"mark", S_IFCHR, (0, 0)).node
        for name in (b"b", b"c"):
            backend.link(file, upper, name)
        backend.link(mark, upper, b"mark2")
        other = backend.make_node(upper, b"new", 0o100644, (0, 0)).node
        assert backend.rename(upper, b"new", upper, b"a", replace=True, exchange=False, whiteout=False) == file
        assert backend.unlink(upper, b"b") == file and backend.is_known(file)
        assert backend.again(file).node == file
        for name in (b"mark", b"a", b"c"):  # a whiteout, and the last names
            assert backend.unlink(upper, name) is None
        for mode, device in ((S_IFIFO, (0, 0)), (S_IFSOCK, (0, 0)), (S_IFCHR, (1, 3)), (S_IFBLK, (0, 0))):
            special = backend.make_node(upper, b"special", mode | 0o600, device).node
            backend.link(special, upper, b"link")
            assert backend.unlink(upper, b"special") == special and backend.unlink(upper, b"link") is None
        backend.forget(other, 1)
        assert not backend.is_known(other) and backend.is_known(file)


def test_nodes_that_were_not_handed_out_are_stale(image: Path) -> None:
    with opened(image) as backend:
        file = backend.make_nameless(ROOT_ID, 0o100600)
        free = backend.totals().free_inodes
        backend.forget(file.node, 1)
        assert backend.totals().free_inodes == free + 1
        for node in (file.node, 2, 11, 1 << 40):
            with pytest.raises(OSError) as error:
                backend.attributes(node)
            assert error.value.errno == errno.ESTALE


def test_a_full_image_takes_the_beginning_of_a_write(image: Path) -> None:
    data = bytes(range(256)) * (SIZE // 256)
    with opened(image) as backend:
        file = backend.make_node(ROOT_ID, b"file", 0o100644, (0, 0)).node
        written = backend.write(file, 100, memoryview(data), False)
        assert 0 < written < len(data) and backend.totals().available_blocks <= 4
        assert backend.read(file, 100, len(data)) == data[:written]
        with pytest.raises(OSError) as error:
            backend.write(file, 100 + written, memoryview(b"more"), False)
        assert error.value.errno == errno.ENOSPC
        assert backend.write(file, 0, memoryview(b"over" * 2000), False) == 8000
        assert backend.read(file, 0, 8000) == b"over" * 2000
        with pytest.raises(OSError) as error:
            for number in range(4):  # room for a few is left, since content leaves more free than names need
                backend.make_directory(node_of(backend, "upper"), b"new%d" % number, 0o755)
        assert error.value.errno == errno.ENOSPC
        for name in (b"work", b"index"):  # those of the next overlay
            backend.make_directory(node_of(backend, "work"), name, 0o755)


@pytest.mark.parametrize("what", ["links", "renames", "xattrs"])
def test_names_and_xattrs_leave_room_for_whiteouts_and_the_next_overlay(image: Path, what: str) -> None:
    with opened(image) as backend:
        upper = node_of(backend, "upper")
        files = [backend.make_node(upper, b"%d" % number, 0o100644, (0, 0)).node for number in range(60)]
        node_of(backend, "work")  # looked up as by overlayfs
        with suppress(OSError):
            while True:
                backend.write(files[0], backend.attributes(files[0]).size, memoryview(bytes(1 << 20)), False)
        changes: dict[str, Callable[[int], object]] = {
            "links": lambda number: backend.link(files[1], upper, b"%0200d" % number),
            "renames": lambda number: backend.rename(
                upper, b"%d" % number, upper, b"%0250d" % number, replace=False, exchange=False, whiteout=False
            ),
            "xattrs": lambda number: backend.set_xattr(
                files[number], b"user.a", b"%0900d" % number, create=False, replace=False
            ),
        }
        with pytest.raises(OSError) as error:
            for number in range(60):
                changes[what](number)
        assert error.value.errno == errno.ENOSPC
        assert backend.filesystem.free_counts[0] >= KEPT_BLOCKS
        mark = backend.make_node(upper, b"mark", 0o20000, (0, 0)).node
        with pytest.raises(OSError):
            for number in range(1000):
                backend.link(mark, upper, b"m%0200d" % number)
        assert KEPT_BLOCKS > backend.filesystem.free_counts[0] >= WORK_BLOCKS
        for name in (b"work", b"index"):
            backend.make_directory(node_of(backend, "work"), name, 0o755)


def test_owners(image: Path) -> None:
    with opened(image) as backend:
        file = backend.make_node(ROOT_ID, b"file", 0o104755, (0, 0))
        assert file.attributes[8:10] == (5, 6)
        changes = AttributeChanges(mode=None, uid=5, gid=None, size=None, atime=None, mtime=None, clears_set_id=False)
        assert backend.set_attributes(file.node, changes).mode == 0o100755
        assert backend.attributes(node_of(backend, "upper"))[8:10] == (5, 6)
    with ext3.Filesystem.open(image) as filesystem:
        assert [filesystem.stat(path)[2:4] for path in ("/file", "/upper")] == [(7, 8), (0, 0)]


def test_without_an_overlay_there_are_no_marks(image: Path) -> None:
    """A data image is shown and changed as it is."""
    with ext3.Filesystem.open(image, "r+") as filesystem:
        filesystem.create("/work/.wh.file")
        filesystem.create("/work/file")
        filesystem.set_xattr("/upper", TRUSTED, b"y")
    with opened(image, work="") as backend:
        work, upper = node_of(backend, "work"), node_of(backend, "upper")
        assert {one.name for one in backend.list_directory(work)} == {b".wh.file", b"file"}
        backend.make_node(upper, b".wh.new", 0o100644, (0, 0))
        assert backend.xattr(upper, OPAQUE) is None and backend.xattr(upper, TRUSTED) is None
        assert backend.xattrs(upper) == {}
        backend.set_xattr(upper, OPAQUE, b"y", create=False, replace=False)
        assert backend.xattrs(upper) == {OPAQUE: b"y"} and backend.xattr(upper, OPAQUE) == b"y"
        backend.remove_xattr(upper, OPAQUE)
        assert backend.has_changes()
        backend.fsync(work)
        assert not backend.has_changes()
        totals, kept = backend.totals(), backend.filesystem.superblock.reserved_blocks
        assert totals.available_blocks == totals.free_blocks - kept
        assert totals.free_inodes == backend.filesystem.statfs().free_inodes
    with ext3.Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper") == {TRUSTED: b"y"} and filesystem.read_bytes("/upper/.wh.new") == b""


def test_a_file_that_is_cut_is_not_made_longer_again(image: Path) -> None:
    fd = os.open(image, os.O_RDWR)
    backend = Ext3Backend(fd, 0, SIZE, shown=(5, 6), stored=(7, 8))
    backend.make_node(node_of(backend, "upper"), b"file", 0o100644, (0, 0))
    os.truncate(image, 5000)
    with pytest.raises(OSError, match="cut to 5,000 bytes") as error:
        backend.commit()
    assert error.value.errno == errno.EIO and image.stat().st_size == 5000
    with pytest.raises(OSError, match="changes are lost"):
        backend.close()
    os.close(fd)
    assert image.stat().st_size == 5000
