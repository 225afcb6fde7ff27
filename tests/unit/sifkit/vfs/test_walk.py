"""Walks of trees: what is listed is what is there, in order; directories are read ahead within bounds, and once."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

import pytest

from ext3.constants import FileType
from ext3.errors import CorruptError, PathNotDirectoryError
from ext3.read import tree_scan
from ext3.read.directory_scan import read_directories
from ext3.read.filesystem import Filesystem
from ext3.read.listing import Listing
from sifkit.vfs import walk as walk_module
from sifkit.vfs.errors import DamagedTreeError, TreePathError
from sifkit.vfs.subtree import Subtree
from sifkit.vfs.usage import directory_usage
from sifkit.vfs.walk import DirectoryReader, walk, walk_directories

from ....support.memory_tree import MemoryNode, MemoryTree
from ....support.tiny_image import BLOCK, TABLE, TinyImage


class CountingTree(Subtree[int]):
    """Tree that remembers which directories were listed."""

    def __init__(self, filesystem: Filesystem) -> None:
        super().__init__(filesystem, 2)
        self.asked: list[int] = []

    def scan_many(self, directories: Sequence[int], /, *, stats: bool = True) -> Iterator[Listing]:
        for listing in super().scan_many(directories, stats=stats):
            self.asked.append(listing.node)
            yield listing


class Problems(list[tuple[bytes, OSError]]):
    def __call__(self, path: bytes, error: OSError) -> None:
        self.append((path, error))


def paths(tree, top: int = 2, path: bytes = b"/", problems: Problems | None = None) -> list[bytes]:
    return [walked.path for walked in walk(tree, top, path, on_problem=problems)]


def nested() -> TinyImage:
    """a/ (b/ (file), z), c/ (file), and a file whose inode is damaged."""
    image = TinyImage()
    for name, ino, kind in ((b"a", 11, FileType.DIRECTORY), (b"c", 13, FileType.DIRECTORY), (b"bad", 20, FileType.REGULAR)):
        image.entry(name, ino, kind)
    image.directory(11, [(b"z", 14, FileType.REGULAR), (b"b", 12, FileType.DIRECTORY)])
    image.directory(12, [(b"file", 14, FileType.REGULAR)])
    image.directory(13, [(b"file", 15, FileType.REGULAR)])
    for ino in (14, 15, 20):
        image.file(ino, b"x")
    image.data[TABLE * BLOCK + 19 * 256 + 128] = 255  # i_extra_isize
    return image


@pytest.mark.parametrize("at_once", [1, 2, 3, 4096])
def test_a_walk_is_the_same_however_much_is_read_ahead(monkeypatch, at_once):
    monkeypatch.setattr(walk_module, "BATCH_NAMES", at_once)
    with nested().open() as filesystem:
        problems = Problems()
        tree = CountingTree(filesystem)
        found = list(walk(tree, 2, b"/", on_problem=problems))
        assert sorted(tree.asked) == [2, 11, 12, 13]
        assert [one.path for one in found] == [b"/a", b"/a/b", b"/a/b/file", b"/a/z", b"/bad", b"/c", b"/c/file"]
        assert [one.depth for one in found] == [0, 1, 2, 1, 0, 0, 1]
        assert [one.is_last for one in found] == [False, False, True, True, False, True, True]
        for one in found:
            if one.path == b"/bad":
                assert isinstance(one.row.stat, CorruptError) and "i_extra_isize" in str(one.row.stat)
            else:
                assert one.row.stat == filesystem.stat(one.row.node)
        assert not problems


def test_directories_come_parents_first():
    with nested().open() as filesystem:
        found = [(one.path, one.depth, [row.name for row in one.listing.rows]) for one in walk_directories(filesystem, 2, b"/")]
        assert found == [
            (b"/", 0, [b"a", b"bad", b"c"]),
            (b"/a", 1, [b"b", b"z"]),
            (b"/a/b", 2, [b"file"]),
            (b"/c", 1, [b"file"]),
        ]
        assert [one.path for one in walk_directories(filesystem, 2, levels=2)] == [b"", b"a", b"c"]


def test_paths_are_relative_without_a_path():
    with nested().open() as filesystem:
        assert paths(filesystem, path=b"")[:3] == [b"a", b"a/b", b"a/b/file"]
        assert paths(filesystem, path=b"/x")[:2] == [b"/x/a", b"/x/a/b"]


def test_stats_are_left_out_where_nobody_asks():
    with nested().open() as filesystem:
        assert {one.row.stat for one in walk(filesystem, 2, stats=False)} == {None}


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_nothing_is_read_below_the_lowest_level(levels):
    with nested().open() as filesystem:
        tree = CountingTree(filesystem)
        assert [row.name for row in DirectoryReader(tree, levels=levels).read(2).rows] == [b"a", b"bad", b"c"]
        assert sorted(tree.asked) == {1: [2], 2: [2, 11, 13], 3: [2, 11, 12, 13]}[levels]
        depths = [one.depth for one in walk(filesystem, 2, levels=levels)]
        assert max(depths) == levels - 1


def test_directories_may_be_asked_for_in_any_order():
    with nested().open() as filesystem:
        reader = DirectoryReader(filesystem, levels=1)
        for ino in (13, 2, 12, 11):
            assert [row.name for row in reader.read(ino).rows] == sorted(entry.name for entry in filesystem.scandir(ino))


def test_no_more_is_read_ahead_than_some_names(monkeypatch):
    monkeypatch.setattr(walk_module, "BATCH_NAMES", 100)
    monkeypatch.setattr(walk_module, "MIN_NAMES", 1)
    monkeypatch.setattr(walk_module, "TYPICAL_NAMES", 1)  # they turn out to have more
    image = TinyImage()
    for number in range(30):
        image.entry(b"dir%02d" % number, 11 + number, FileType.DIRECTORY)
        image.directory(11 + number, [(b"%03d" % name + b"x" * 200, 60, FileType.REGULAR) for name in range(4)])
    image.file(60, b"")
    with image.open() as filesystem:
        for single in (False, True):
            if single:
                monkeypatch.setattr(tree_scan, "read_directories", lambda fs, inos, most: [None] * len(inos))
            tree = CountingTree(filesystem)
            DirectoryReader(tree).read(2)
            assert 10 < len(tree.asked) <= 1 + 18  # with four names each


def chains(count: int, depth: int) -> TinyImage:
    """Directories in directories: so many chains in the root."""
    image = TinyImage()
    for chain in range(count):
        inos = [11 + chain * depth + level for level in range(depth)]
        image.entry(b"%d" % chain, inos[0], FileType.DIRECTORY)
        for ino, following in zip(inos, [*inos[1:], 0], strict=True):
            image.directory(ino, [(b"x", following, FileType.DIRECTORY)] if following else [])
    return image


@pytest.mark.parametrize("most", [8, 1000])
def test_what_is_read_ahead_of_a_deep_tree_is_bounded(monkeypatch, most):
    monkeypatch.setattr(walk_module, "BATCH_NAMES", 8)
    monkeypatch.setattr(walk_module, "MIN_NAMES", 1)
    monkeypatch.setattr(walk_module, "TYPICAL_NAMES", 1)
    monkeypatch.setattr(walk_module, "MAX_ROWS_AHEAD", most)
    ahead = []
    read = DirectoryReader.read

    def counted(reader, node):
        listing = read(reader, node)
        ahead.append(sum(len(listed.rows) for listed in reader._ahead.values()))
        return listing

    monkeypatch.setattr(DirectoryReader, "read", counted)
    with chains(5, 10).open() as filesystem:
        assert paths(filesystem, path=b"") == [path for path, _ in filesystem.walk()]
    assert len(ahead) == 51 and ahead[-1] == 0
    assert (max(ahead) <= 8 + 8) == (most == 8)


def test_names_are_not_read_again_and_again(monkeypatch):
    monkeypatch.setattr(walk_module, "BATCH_NAMES", 64)
    monkeypatch.setattr(walk_module, "MIN_NAMES", 1)
    monkeypatch.setattr(tree_scan, "BATCH_NAMES", 64)
    decoded = []

    def counted(filesystem, inos, most_names):
        found = read_directories(filesystem, inos, most_names)
        decoded.extend(entry for listed in found if listed for entry in listed.entries)
        return found

    monkeypatch.setattr(tree_scan, "read_directories", counted)
    image = TinyImage()
    for number in range(30):
        image.entry(b"dir%02d" % number, 11 + number, FileType.DIRECTORY)
        image.directory(11 + number, [(b"%03d" % name, 60, FileType.REGULAR) for name in range(40)])
    image.file(60, b"")
    with image.open() as filesystem:
        assert len(paths(filesystem)) == 30 * 41
    assert len(decoded) <= 2 * 30 * 41


def test_a_directory_that_cannot_be_read_is_a_problem_when_it_is_reached():
    image = TinyImage()
    image.entry(b"a", 11, FileType.DIRECTORY)
    image.entry(b"b", 12, FileType.DIRECTORY)
    image.directory(11, [])
    image.file(12, b"no directory")
    with image.open() as filesystem:
        problems = Problems()
        for one in walk(filesystem, 2, b"/", on_problem=problems):
            assert (one.path, problems) == (b"/a", []) or one.path == b"/b"
        assert [(path, error.errno) for path, error in problems] == [(b"/b", errno.ENOTDIR)]
        with pytest.raises(PathNotDirectoryError):
            list(walk(filesystem, 2))
        with pytest.raises(PathNotDirectoryError):
            list(walk_directories(filesystem, 2))


def test_directories_that_lead_to_each_other_are_read_once():
    image = TinyImage()
    image.entry(b"a", 11, FileType.DIRECTORY)
    image.directory(11, [(b"self", 11, FileType.DIRECTORY), (b"up", 2, FileType.DIRECTORY)])
    with image.open() as filesystem:
        problems = Problems()
        tree = CountingTree(filesystem)
        assert paths(tree, problems=problems) == [b"/a", b"/a/self", b"/a/up"]
        assert tree.asked == [2, 11]
        assert [(path, type(error)) for path, error in problems] == [
            (b"/a/self", DamagedTreeError),
            (b"/a/up", DamagedTreeError),
        ]
        problems.clear()
        assert [one.path for one in walk_directories(tree, 2, b"/", on_problem=problems)] == [b"/", b"/a"]
        assert [path for path, _ in problems] == [b"/a/self", b"/a/up"]


def test_directories_take_no_more_than_the_filesystem_has():
    tree = MemoryTree()
    for number in range(20):
        tree.add(b"%02d" % number, MemoryNode(0o040755))
    tree.total_bytes = 5 * 4096
    problems = Problems()
    found = [one.path for one in walk_directories(tree, 0, on_problem=problems)]
    assert found == [b"", b"00", b"01", b"02", b"03"]
    assert [(path, str(error)) for path, error in problems] == [
        (b"04", "04: the image is damaged: its directories share blocks")
    ]
    assert len(list(walk(tree, 0, on_problem=problems))) == 5
    with pytest.raises(DamagedTreeError):
        list(walk(tree, 0))


def test_a_walk_ends_at_some_depth(monkeypatch):
    monkeypatch.setattr(walk_module, "MAX_COMPONENTS", 50)
    tree = MemoryTree()
    path = b""
    for _ in range(100):
        path += b"/d"
        tree.add(path, MemoryNode(0o040755))
    problems = Problems()
    assert len(list(walk(tree, 0, levels=50, on_problem=problems))) == 50
    assert len(list(walk_directories(tree, 0, levels=50, on_problem=problems))) == 50
    assert [(len(path), type(error), error.errno) for path, error in problems] == [(99, TreePathError, errno.ENAMETOOLONG)] * 2


@pytest.mark.parametrize("levels", [walk_module.MAX_COMPONENTS, 400])
def test_a_walk_ends_at_some_length_of_a_path(levels):
    tree = MemoryTree()
    path = b""
    for _ in range(300):
        path += b"/" + b"d" * 255
        tree.add(path, MemoryNode(0o040755))
    problems = Problems()
    assert len(list(walk(tree, 0, b"/", levels=levels, on_problem=problems))) == 257
    assert len(list(walk_directories(tree, 0, b"/", levels=levels, on_problem=problems))) == 257
    assert [(len(path), error.errno) for path, error in problems] == [(257 * 256, errno.ENAMETOOLONG)] * 2


def test_a_damaged_inode_costs_du_one_file():
    with nested().open() as filesystem:
        problems = Problems()
        rows = directory_usage(filesystem, b"/", 2, all_files=False, on_problem=problems, seen=set())
        assert [(row.path, row.inodes) for row in rows] == [(b"/a/b", 2), (b"/a", 3), (b"/c", 2), (b"/", 6)]
        assert [path for path, _ in problems] == [b"/bad"]
