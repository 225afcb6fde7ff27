"""Directories and files with more names than they should have: nothing that another name leads to is removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ext3
from ext3.constants import FileType
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.schema import INODE_CORE

from ....support.sessions import clock, empty_image


def plant(fs: WritableFilesystem, ino: int, parent: str, name: bytes, file_type: FileType = FileType.DIRECTORY) -> None:
    """Add a name as ``debugfs -w -R 'ln ...'`` does: nothing else changes."""

    def work() -> None:
        above = fs._nodes.edit(fs.lookup(parent))
        fs._nodes.directory(above).insert(name, ino, file_type)
        fs._nodes.store_directory(above, clock())

    fs._run(work)


def linked_directory(file_type: FileType = FileType.DIRECTORY) -> MemoryDevice:
    """/upper/a/b/c, with a file in it, is /upper/p and /x/y/other as well."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for path in ("/upper", "/upper/a", "/upper/a/b", "/upper/a/b/c", "/upper/a/b/c/d", "/x", "/x/y"):
            fs.mkdir(path)
        for path in ("/upper/a/b/c/f", "/upper/a/b/c/d/g", "/upper/file", "/x/first", "/x/y/last"):
            fs.write_bytes(path, b"intact")
        fs.mkdir("/empty")
        ino = fs.lookup("/upper/a/b/c")
        plant(fs, ino, "/upper", b"p", file_type)
        plant(fs, ino, "/x/y", b"other", file_type)
    return device


REMOVE: dict[str, Callable[[WritableFilesystem], object]] = {
    "rm -r of the wrong name": lambda fs: fs.remove_tree("/upper/p"),
    "rm -r of a directory above the wrong name": lambda fs: fs.remove_tree("/x"),
    "mv of the wrong name": lambda fs: fs.rename("/upper/p", "/moved"),
    "mv of the wrong name in its directory": lambda fs: fs.rename("/upper/p", "/upper/q"),
    "mv below itself by the wrong name": lambda fs: fs.rename("/upper/p", "/upper/a/b/c/d/x"),
    "exchange of the wrong name": lambda fs: fs.rename("/empty", "/upper/p", exchange=True),
    "exchange with the wrong name": lambda fs: fs.rename("/upper/p", "/upper/file", exchange=True),
}


@pytest.mark.parametrize("file_type", [FileType.DIRECTORY, FileType.REGULAR])
@pytest.mark.parametrize("what", REMOVE)
def test_a_directory_with_two_names(what: str, file_type: FileType) -> None:
    """Only the one that ".." agrees with is its name; e2fsck removes the others, and the kernel follows none of them twice."""
    device = linked_directory(file_type)
    before = bytes(device.data)
    with (
        ext3.Filesystem.open(device, "r+", clock=clock) as fs,
        pytest.raises(ext3.NeedsCheckError, match=r'"\.\." is') as caught,
    ):
        REMOVE[what](fs)
    assert caught.value.needs_check
    assert bytes(device.data) == before


@pytest.mark.parametrize("work", [lambda fs: fs.rmdir("/upper/p"), lambda fs: fs.rename("/empty", "/upper/p")])
def test_an_empty_directory_with_two_names(work: Callable[[WritableFilesystem], object]) -> None:
    """It is neither removed nor replaced by the name that ".." does not agree with."""
    device = linked_directory()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for path in ("/upper/a/b/c/f", "/upper/a/b/c/d/g"):
            fs.unlink(path)
        fs.rmdir("/upper/a/b/c/d")
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs, pytest.raises(ext3.NeedsCheckError):
        work(fs)
    assert bytes(device.data) == before


def test_mv_into_its_own_tail_by_the_other_name() -> None:
    """The kernel compares dentries: EINVAL. The chain of ".." shows it too."""
    device = linked_directory()
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs, pytest.raises(ext3.PathError, match="subdirectory of itself"):
        fs.rename("/upper/a", "/upper/p/x")
    assert bytes(device.data) == before


def test_the_right_name_goes() -> None:
    """By its own name the directory may be moved and removed."""
    device = linked_directory()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.rename("/upper/a/b/c", "/upper/a/c")
        assert fs.read_bytes("/upper/p/f") == b"intact"
        fs.remove_tree("/upper/a")
        assert fs.find_name(fs.lookup("/upper"), b"a") is None


def test_the_root_by_another_name() -> None:
    """A name that leads to the root removes nothing."""
    device = linked_directory()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        plant(fs, 2, "/", b"r")
        plant(fs, 2, "/x", b"r")
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for path in ("/r", "/x/r", "/x"):
            with pytest.raises(ext3.NeedsCheckError):
                fs.remove_tree(path)
    assert bytes(device.data) == before


def test_directories_with_the_same_blocks() -> None:
    """Of two directories whose pointers lead to one block, that block's "." says whose it is."""
    device = linked_directory()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        inos = fs.lookup("/empty"), fs.lookup("/upper")

        def work() -> None:
            empty, upper = (fs._nodes.edit(ino) for ino in inos)
            empty.record.i_block = upper.record.i_block
            fs._nodes.store(empty)

        fs._run(work)
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for remove in (fs.remove_tree, fs.rmdir, lambda path: fs.rename(path, "/new")):
            with pytest.raises(ext3.NeedsCheckError, match=r'"\." of directory inode'):
                remove("/empty")
    assert bytes(device.data) == before


@pytest.mark.parametrize("links", [0, 1])
def test_a_tree_with_files_of_too_few_links(links: int) -> None:
    """Removal of the first of two names would free the file: nothing of the tree is removed. e2fsck counts the links."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/d")
        fs.mkdir("/d/below")
        fs.write_bytes("/d/a", b"intact")
        ino = fs.create("/d/f")
        fs.link("/d/f", "/d/below/f")

        def work() -> None:
            raw = bytearray(fs._session.read_inode(ino))
            INODE_CORE.view(raw)["i_links_count"] = links
            fs._session.write_inode(ino, raw)

        fs._run(work)
    before = bytes(device.data)
    with (
        ext3.Filesystem.open(device, "r+", clock=clock) as fs,
        pytest.raises(ext3.NeedsCheckError, match="more names than links"),
    ):
        fs.remove_tree("/d")
    assert bytes(device.data) == before


def test_a_tree_with_a_name_that_leads_to_a_free_inode() -> None:
    """It is found before anything is removed."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/d")
        fs.write_bytes("/d/a", b"intact")
        plant(fs, 500, "/d", b"z", FileType.REGULAR)
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs, pytest.raises(ext3.CorruptError, match="inode 500"):
        fs.remove_tree("/d")
    assert bytes(device.data) == before
