"""Directories that are read ahead: what is listed is what is there, in its order, and nothing is read again and again."""

from __future__ import annotations

import pytest

from ext3.constants import FileType
from ext3.errors import CorruptError, PathNotDirectoryError
from ext3.read import directory_scan
from ext3.read.directory_scan import read_directories
from ext3.read.filesystem import Filesystem
from sifkit.overlay import listing
from sifkit.overlay.listing import DirectoryLister
from sifkit.overlay.resolve import Resolver, walk
from sifkit.overlay.usage import directory_usage
from sifkit.overlay.view import View

from ....support.tiny_image import BLOCK, TABLE, TinyImage


class CountingResolver(Resolver):
    """Remembers which directories it was asked for."""

    def __init__(self, filesystem: Filesystem) -> None:
        super().__init__(filesystem)
        self.asked: list[int] = []

    def scan_many(self, directories, most_names):
        found = super().scan_many(directories, most_names)
        self.asked += directories[: len(found)]
        return found


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
    monkeypatch.setattr(listing, "BATCH_NAMES", at_once)
    with nested().open() as filesystem:
        problems: list[Exception] = []
        resolver = CountingResolver(filesystem)
        found = list(View(resolver).walk(b"/", 2, problems))
        assert sorted(resolver.asked) == [2, 11, 12, 13]
        assert [(path, row[:3]) for path, row in found] == list(Resolver(filesystem).walk(2, b"/"))
        assert [path for path, _ in found] == [b"/a", b"/a/b", b"/a/b/file", b"/a/z", b"/bad", b"/c", b"/c/file"]
        for path, row in found:
            if path == b"/bad":
                assert isinstance(row.stat, CorruptError) and "i_extra_isize" in str(row.stat)
            else:
                assert row.stat == filesystem.stat(row.ino)
        assert not problems


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_nothing_is_read_below_the_lowest_level(levels):
    with nested().open() as filesystem:
        resolver = CountingResolver(filesystem)
        assert [row.name for row in DirectoryLister(resolver, levels=levels).read(2).rows] == [b"a", b"bad", b"c"]
        assert sorted(resolver.asked) == {1: [2], 2: [2, 11, 13], 3: [2, 11, 12, 13]}[levels]


def test_directories_may_be_asked_for_in_any_order():
    with nested().open() as filesystem:
        lister = DirectoryLister(Resolver(filesystem), levels=1)
        for ino in (13, 2, 12, 11):
            assert [row.name for row in lister.read(ino).rows] == [entry.name for entry in Resolver(filesystem).entries(ino)]


def test_no_more_is_read_ahead_than_some_names(monkeypatch):
    monkeypatch.setattr(listing, "BATCH_NAMES", 100)
    monkeypatch.setattr(listing, "MIN_NAMES", 1)
    monkeypatch.setattr(listing, "TYPICAL_NAMES", 1)  # they turn out to have more
    image = TinyImage()
    for number in range(30):
        image.entry(b"dir%02d" % number, 11 + number, FileType.DIRECTORY)
        image.directory(11 + number, [(b"%03d" % name + b"x" * 200, 60, FileType.REGULAR) for name in range(4)])
    image.file(60, b"")
    with image.open() as filesystem:
        for single in (False, True):
            if single:
                monkeypatch.setattr(directory_scan, "read_directories", lambda fs, inos, most: [None] * len(inos))
            resolver = CountingResolver(filesystem)
            DirectoryLister(resolver).read(2)
            assert 10 < len(resolver.asked) <= 1 + 18  # with four names each


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
    monkeypatch.setattr(listing, "BATCH_NAMES", 8)
    monkeypatch.setattr(listing, "MIN_NAMES", 1)
    monkeypatch.setattr(listing, "TYPICAL_NAMES", 1)
    monkeypatch.setattr(directory_scan, "USUAL_BYTES", BLOCK)
    monkeypatch.setattr(listing, "MAX_ROWS_AHEAD", most)
    with chains(5, 10).open() as filesystem:
        lister = DirectoryLister(Resolver(filesystem))
        ahead = []

        def rows(ino):
            taken = lister.read(ino).rows
            ahead.append(sum(len(listed.rows) for listed in lister._ahead.values()))
            return taken

        found = [path for path, _ in walk(2, b"/", rows, [])]
        assert found == [path for path, _ in Resolver(filesystem).walk(2, b"/")] and len(found) == 50
        assert (max(ahead) <= 8 + 8) == (most == 8) and ahead[-1] == 0


def test_names_are_not_read_again_and_again(monkeypatch):
    monkeypatch.setattr(listing, "BATCH_NAMES", 64)
    monkeypatch.setattr(listing, "MIN_NAMES", 1)
    decoded = []

    def counted(filesystem, inos, most_names):
        found = read_directories(filesystem, inos, most_names)
        decoded.extend(entry for listed in found if listed for entry in listed.entries)
        return found

    monkeypatch.setattr(directory_scan, "read_directories", counted)
    image = TinyImage()
    for number in range(30):
        image.entry(b"dir%02d" % number, 11 + number, FileType.DIRECTORY)
        image.directory(11 + number, [(b"%03d" % name, 60, FileType.REGULAR) for name in range(40)])
    image.file(60, b"")
    with image.open() as filesystem:
        assert len(list(View(Resolver(filesystem)).walk(b"/", 2, []))) == 30 * 41
    assert len(decoded) <= 2 * 30 * 41


def test_a_directory_that_cannot_be_read_is_told_when_it_is_reached():
    image = TinyImage()
    image.entry(b"a", 11, FileType.DIRECTORY)
    image.entry(b"b", 12, FileType.DIRECTORY)
    image.directory(11, [])
    image.file(12, b"no directory")
    with image.open() as filesystem:
        problems: list[Exception] = []
        for path, _ in View(Resolver(filesystem)).walk(b"/", 2, problems):
            assert (path, problems) == (b"/a", []) or path == b"/b"
        assert len(problems) == 1
        lister = DirectoryLister(Resolver(filesystem))
        assert lister.all_rows(2)
        with pytest.raises(PathNotDirectoryError):
            lister.all_rows(12)


def test_directories_that_lead_to_each_other_are_read_once():
    image = TinyImage()
    image.entry(b"a", 11, FileType.DIRECTORY)
    image.directory(11, [(b"self", 11, FileType.DIRECTORY), (b"up", 2, FileType.DIRECTORY)])
    with image.open() as filesystem:
        problems: list[Exception] = []
        resolver = CountingResolver(filesystem)
        assert [path for path, _ in View(resolver).walk(b"/", 2, problems)] == [b"/a", b"/a/self", b"/a/up"]
        assert (resolver.asked, len(problems)) == ([2, 11], 2)


def test_a_damaged_inode_costs_du_one_file():
    with nested().open() as filesystem:
        problems: list[Exception] = []
        rows = directory_usage(View(Resolver(filesystem)), b"/", 2, all_files=False, problems=problems, seen=set())
        assert [(path, inodes) for path, _, inodes, _ in rows] == [(b"/a/b", 2), (b"/a", 3), (b"/c", 2), (b"/", 6)]
        assert len(problems) == 1
