"""Layers of any tree: the same files give the same archive, and errors of reading are told from those of writing."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import pytest

import ext3
from ext3.read.filesystem import Filesystem
from sifkit.overlay.oci_layer.layer_export import CHUNK_BYTES, ExportResult, export_layer
from sifkit.vfs.data_limit import SharedBlocksError
from sifkit.vfs.errors import TreePathError
from sifkit.vfs.file_tree import FileTree, OpenFile, TreeStat
from sifkit.vfs.host_tree import HostTree
from sifkit.vfs.subtree import Subtree
from sifkit.vfs.upper_view import find_upper

from ....support.memory_tree import BLOCK, MemoryFile, MemoryNode, MemoryTree
from ....support.trees import pattern, set_xattr, write_at

STAMP = ext3.Stamp(1_700_000_000, bytes(16), bytes(16))
SECOND = 1_000_000_000
HOLES = ((0, pattern(BLOCK)), (1 << 20, pattern(2 * BLOCK)), (3 << 20, b"end"))
"""Data of a file with holes, (offset, bytes)."""


def export(tree: FileTree[Any], *, sparse: bool = False) -> tuple[ExportResult, bytes]:
    file = io.BytesIO()
    done = export_layer(tree, file, sparse=sparse)
    return done, file.getvalue()


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


# -- the same files in three trees -------------------------------------------------------------------------------------


def make_upper(top: Path) -> None:
    """Files of every kind that any user can create, times with fractions and before 1970."""
    (top / "d" / "below").mkdir(parents=True)
    (top / "d" / "a").write_bytes(b"small")
    (top / "d" / "below" / ("n" * 200)).write_bytes(pattern(300_000))
    (top / "d.txt").write_bytes(pattern(CHUNK_BYTES + 5))  # d.txt, d/a: not the order of their paths
    (top / "empty").touch(mode=0o600)
    os.link(top / "d" / "a", top / "again")
    os.link(top / "d.txt", top / "z")
    (top / "link").symlink_to("d/a")
    (top / "long").symlink_to("x" * 150)
    os.mkfifo(top / "pipe", 0o644)
    (top / "removed").mkdir()
    for name in (".wh.cut-off", ".wh..wh..opq", "-first"):
        (top / "removed" / name).touch()
    (top / "empty.d").mkdir()
    (top / "empty.d" / ".wh.gone").touch()
    write_at(top / "holes", *HOLES)
    set_xattr(top / "d", "user.overlay.opaque", b"y")
    set_xattr(top / "d" / "a", "user.note", b"\0\xff")
    for number, path in enumerate([*sorted(top.rglob("*"), reverse=True), top]):
        os.utime(path, ns=(0, (number - 3) * 100_000 * SECOND + number), follow_symlinks=False)


def image_of(source: Path) -> FileTree[int]:
    """An ext3 image with the directory as upper/."""
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    content = ext3.scan_directory(builder, os.fsencode(source), 0, ext3.ScanOptions())
    device = ext3.MemoryDevice(16 << 20)
    ext3.build_image(builder.finish(content), device, options=ext3.ImageOptions(size=16 << 20, block_size=BLOCK), stamp=STAMP)
    filesystem = Filesystem(device)
    upper = find_upper(filesystem)
    assert upper is not None
    return Subtree(filesystem, upper)


def memory_of(host: HostTree) -> MemoryTree:
    """The same files in memory."""
    tree = MemoryTree()
    numbers: dict[int, int] = {}

    def node_of(path: bytes) -> MemoryNode:
        found = host.stat(path)
        content = b""
        if stat.S_ISREG(found.mode):
            with host.open_file(path) as file:
                content = file.read_at(0, found.size)
        elif stat.S_ISLNK(found.mode):
            content = host.readlink(path)
        (loaded,) = host.load_many([path])
        assert not isinstance(loaded.xattrs, OSError)
        return MemoryNode(found.mode, content, found.uid, found.gid, found.mtime, xattrs=dict(loaded.xattrs))

    def add_below(directory: bytes, above: bytes) -> None:
        (listing,) = host.scan_many([directory])
        for row in listing.rows:
            path, ino = above + b"/" + row.name, host.stat(row.node).ino
            numbers[ino] = tree.add(path, numbers[ino] if ino in numbers else node_of(row.node))
            if stat.S_ISDIR(host.stat(row.node).mode):
                add_below(row.node, path)

    tree.nodes[0] = node_of(host.root)
    add_below(host.root, b"")
    return tree


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with upper/."""
    top = tmp_path_factory.mktemp("source")
    make_upper(top / "upper")
    return top


TREES: dict[str, Callable[[Path], FileTree[Any]]] = {
    "host": lambda source: HostTree(source / "upper"),
    "ext3": image_of,
    "memory": lambda source: memory_of(HostTree(source / "upper")),
}


@pytest.mark.parametrize("kind", TREES)
def test_the_same_files_give_the_same_archive(source: Path, kind: str) -> None:
    done, archive = export(TREES[kind](source))
    expected = export(TREES["memory"](source))
    assert archive == expected[1]
    assert done == expected[0]
    assert (done.failed, done.whiteouts) == (0, 1)
    found = names(archive)
    assert [name for name in found if name.startswith("removed")] == [
        "removed",
        "removed/.wh..wh..opq",
        "removed/-first",
    ]
    assert "empty.d/.wh.gone" in found
    assert found.index("d/below") < found.index("d.txt") < found.index("z")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert [tar.getmember(name).linkname for name in ("d/a", "z")] == ["again", "d.txt"]
        content = tar.extractfile("d.txt")
        assert content is not None and content.read() == pattern(CHUNK_BYTES + 5)


@pytest.mark.parametrize("kind", TREES)
def test_the_same_holes_give_the_same_sparse_archive(source: Path, kind: str) -> None:
    with HostTree(source).open_file(os.fsencode(source / "upper" / "holes")) as file:
        if file.data_ranges() != [(offset, len(data)) for offset, data in HOLES]:
            pytest.skip("this filesystem keeps other holes")
    archive = export(TREES[kind](source), sparse=True)[1]
    assert archive == export(TREES["memory"](source), sparse=True)[1]
    assert len(archive) < 2 << 20
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getmember("holes").size == (3 << 20) + 3


def test_small_files_with_holes_are_stored_sparse_too() -> None:
    tree = MemoryTree()
    tree.add(b"small", MemoryNode(0o100644, b"x".ljust(4 * BLOCK, b"\0")))
    with tarfile.open(fileobj=io.BytesIO(export(tree, sparse=True)[1])) as tar:
        member: Any = tar.getmember("small")
        assert member.sparse == [(0, BLOCK), (4 * BLOCK, 0)]


# -- identity and xattrs -----------------------------------------------------------------------------------------------


class TwoDevices(MemoryTree):
    """Tree whose files all have inode 5, each on a device of its own."""

    def stat(self, node: int, /) -> TreeStat:
        found = super().stat(node)
        return found if node == self.root else found._replace(ino=5, dev=node, links=2)


def test_files_of_two_devices_are_no_hard_links() -> None:
    tree = TwoDevices()
    for name in (b"a", b"b"):
        tree.add(name, MemoryNode(0o100644, name))
    with tarfile.open(fileobj=io.BytesIO(export(tree)[1])) as tar:
        assert [(info.name, info.islnk(), info.size) for info in tar if info.name != "."] == [("a", False, 1), ("b", False, 1)]


def test_only_directories_that_may_have_xattrs_are_asked_for_them() -> None:
    asked: list[int] = []

    class Asked(Subtree[int]):
        def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
            asked.append(node)
            return super().xattrs(node)

    tree = MemoryTree()
    for number in range(10):
        tree.add(b"d%d" % number, MemoryNode(0o040755, xattrs={b"trusted.overlay.opaque": b"y"} if number == 7 else {}))
        tree.add(b"d%d/file" % number, MemoryNode(0o100644, xattrs={b"user.a": b"b"}))
    done, archive = export(Asked(tree, tree.root))
    assert (done.opaque, names(archive).count("d7/.wh..wh..opq")) == (1, 1)
    opaque = tree.find_name(tree.root, b"d7")
    assert asked == [tree.root, opaque]


# -- bounds and errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 3 * CHUNK_BYTES])
def test_more_data_than_there_is_room_for_ends_an_export(size: int) -> None:
    tree = MemoryTree()
    file = tree.add(b"a", MemoryNode(0o100644, pattern(size)))
    tree.add(b"b", MemoryNode(0o100644, pattern(size)))
    assert export(tree)[0].failed == 0
    tree.data_limit = 2 * size
    assert export(tree)[0].failed == 0
    tree.data_limit = 2 * size - 1
    with pytest.raises(SharedBlocksError, match="more data than it has room for") as caught:
        export(tree)
    assert (caught.value.kind, caught.value.errno) == ("corrupt", getattr(errno, "EUCLEAN", errno.EIO))
    tree.nodes[file].content = b""
    assert export(tree)[0].content_bytes == size


class Unreadable(Subtree[int]):
    """Tree in which reading fails: ``fails_at`` bytes into files that are opened (None: they cannot be), and of links."""

    def __init__(self, tree: MemoryTree, fails_at: int | None, error: OSError) -> None:
        super().__init__(tree, tree.root)
        self.fails_at = fails_at
        self.error = error

    def readlink(self, node: int, /) -> bytes:
        raise self.error

    def open_file(self, node: int, /) -> OpenFile:
        if self.fails_at is None:
            raise self.error
        fails_at, error = self.fails_at, self.error

        class File(MemoryFile):
            def read_at(self, offset: int, size: int, /) -> bytes:
                if offset + size > fails_at:
                    raise error
                return super().read_at(offset, size)

        with self.tree.open_file(node) as file:
            return File(file.read_at(0, file.size))


def tree_with_large_file() -> MemoryTree:
    tree = MemoryTree()
    tree.add(b"large", MemoryNode(0o100644, pattern(3 * CHUNK_BYTES)))
    tree.add(b"link", MemoryNode(0o120777, b"target"))
    tree.add(b"medium", MemoryNode(0o100644, pattern(CHUNK_BYTES)))
    tree.add(b"small", MemoryNode(0o100644, b"small"))
    return tree


def test_files_that_cannot_be_opened_are_problems() -> None:
    done, archive = export(Unreadable(tree_with_large_file(), None, OSError(errno.EIO, "input/output error")))
    assert names(archive) == [".", "small"]
    reasons = [(path, "input/output error") for path in (b"/large", b"/link", b"/medium")]
    assert (done.problems, done.failed) == (reasons, 3)


def test_an_error_after_the_entry_has_begun_names_the_file() -> None:
    with pytest.raises(TreePathError, match=r"^/large: ") as caught:
        export(Unreadable(tree_with_large_file(), CHUNK_BYTES, OSError(errno.EIO, os.strerror(errno.EIO))))
    assert caught.value.errno == errno.EIO


def test_an_error_of_an_image_is_raised_as_it_is() -> None:
    error = ext3.errors.CorruptError("inode 12", "i_block[13]", 5, "another")
    with pytest.raises(ext3.errors.CorruptError) as caught:
        export(Unreadable(tree_with_large_file(), CHUNK_BYTES, error))
    assert caught.value is error


def test_a_file_that_becomes_shorter_ends_an_export() -> None:
    class Shrinking(Subtree[int]):
        def open_file(self, node: int, /) -> OpenFile:
            class File(MemoryFile):
                def read_at(self, offset: int, size: int, /) -> bytes:
                    return super().read_at(offset, size)[:-1]

            with self.tree.open_file(node) as file:
                return File(file.read_at(0, file.size))

    tree = tree_with_large_file()
    with pytest.raises(TreePathError, match="/large: the file became shorter while it was read"):
        export(Shrinking(tree, tree.root))


class FullDisk(io.RawIOBase):
    """File that holds ``left`` bytes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def write(self, data: Any, /) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


@pytest.mark.parametrize("left", [0, CHUNK_BYTES, 5 * CHUNK_BYTES])
def test_an_error_of_the_archive_is_no_problem_of_a_file(left: int) -> None:
    """In the first batch, among the pieces of a large file, and in a batch that small files fill."""
    tree = tree_with_large_file()
    for number in range(100):
        tree.add(b"n%04d" % number, MemoryNode(0o100644, pattern(60_000)))
    file: IO[bytes] = FullDisk(left)  # type: ignore[assignment]
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        export_layer(tree, file)
    assert not isinstance(caught.value, TreePathError)
