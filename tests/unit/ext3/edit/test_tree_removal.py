"""Removal of trees whose directories have an index that contradicts the format."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.edit.inode_cache import InodeCache
from ext3.read import tree_scan
from ext3.read.listing import Listing
from ext3.read.tree_scan import scan_many

from ....support.directory_damage import (
    DIRECTORY,
    INDEX_DAMAGE,
    IndexRecipe,
    damaged_index,
    directory_blocks,
    indexed_image,
)
from ....support.image_checks import check_counts
from ....support.sessions import clock, empty_image


@pytest.mark.slow
@pytest.mark.parametrize("recipe", INDEX_DAMAGE.values(), ids=list(INDEX_DAMAGE))
def test_a_directory_with_an_odd_index(recipe: IndexRecipe) -> None:
    """What a listing has is removed, also where the names that showed the index to be odd are gone already."""
    device = MemoryDevice(damaged_index(recipe))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.remove_tree(DIRECTORY)
        assert fs.find_name(2, DIRECTORY[1:]) is None
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)
        assert fs.superblock.free_inodes == 1024 - 11


def test_names_that_the_index_does_not_lead_to() -> None:
    """Two leaves have changed places: the names in both are removed and renamed one by one, in any order."""
    image = bytearray(indexed_image(0))
    root = directory_blocks(image)[0]
    one, other = root + 36, root + 44
    image[one : one + 4], image[other : other + 4] = image[other : other + 4], image[one : one + 4]
    device = MemoryDevice(image)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        names = sorted(entry.name for entry in fs.scandir(DIRECTORY))
        directory = fs.lookup(DIRECTORY)
        for number, name in enumerate(names):
            if number % 3:
                fs.unlink_at(directory, name)
            else:
                fs.rename_at(directory, name, 2, name)
        assert not list(fs.scandir(DIRECTORY))
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)
        assert len(list(fs.scandir("/"))) == len(names[::3]) + 2


def test_a_missing_name_stays_missing() -> None:
    """A search of all blocks finds nothing either."""
    device = MemoryDevice(bytearray(indexed_image(1)))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs, pytest.raises(FileNotFoundError):
        fs.unlink(DIRECTORY + b"/none")


def test_a_damaged_block_is_found_before_anything_is_removed() -> None:
    """e2fsck saves the names in it first."""
    image = bytearray(indexed_image(0))
    struct.pack_into("<H", image, directory_blocks(image)[-1] + 4, 8)
    before = bytes(image)
    device = MemoryDevice(image)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs, pytest.raises(ext3.CorruptError, match="rec_len"):
        fs.remove_tree(DIRECTORY)
    assert bytes(device.data) == before


def test_names_of_several_links_are_counted() -> None:
    """Up to the links of the inode, no further."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/d")
        fs.create("/d/0")
        for number in range(1, 5):
            fs.link("/d/0", f"/d/{number}")
        fs.remove_tree("/d")
        assert fs.find_name(2, b"d") is None
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)


def test_a_file_takes_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree may hold ten million files: what is kept of each is a bit."""
    count = 50_000
    with ext3.Filesystem.open(empty_image(), "r+", clock=clock) as fs:
        top = fs.mkdir("/d")
        ino = fs.create("/d/file")
        row = next(iter(next(iter(scan_many(fs, [top], None, stats=True))).rows))

        def many(*_: object, **__: object) -> Iterator[Listing]:
            for number in range(count):
                yield Listing(top, [row._replace(node=ino + number)], None, 0)

        monkeypatch.setattr(tree_scan, "scan_many", many)
        monkeypatch.setattr(InodeCache, "check_in_use", lambda *_: None)
        tracemalloc.start()
        try:
            fs.remove_tree("/d")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 * count
