"""Names looked up by the index of their directory: few reads, the same answers as a search of all blocks."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache

import pytest

import ext3
from ext3.constants import S_IFDIR, S_IFREG, SUPERBLOCK_OFFSET, Compat, InodeFlag
from ext3.device.base import MemoryDevice
from ext3.errors import CorruptError
from ext3.format.dirhash import DirHash
from ext3.format.htree import read_node
from ext3.format.schema import INODE_CORE, SUPERBLOCK
from ext3.read import filesystem

from ....support.directory_damage import (
    BLOCK_SIZE,
    DIRECTORY,
    INDEX_DAMAGE,
    IndexRecipe,
    damaged_index,
    directory_block,
    directory_blocks,
    indexed_image,
)
from ....support.sessions import clock

STAMP = ext3.Stamp(1_700_000_000, b"u" * 16, b"s" * 16)
MANY = 50_000


class CountingDevice(MemoryDevice):
    reads = 0
    bytes = 0

    def read(self, offset: int, size: int) -> bytes:
        self.reads += 1
        self.bytes += size
        return super().read(offset, size)


@cache
def wide(block_size: int) -> bytes:
    """An image with a directory of 50,000 names."""
    builder = ext3.TreeBuilder()
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, (0,) * 6)
    directory = builder.add(0, b"d", S_IFDIR | 0o755, 0, 0, 0, (0,) * 6)
    for number in range(MANY):
        builder.add(directory, b"file-%06d" % number, S_IFREG | 0o644, 0, 0, 0, (0,) * 6)
    device = MemoryDevice(48 << 20)
    options = ext3.ImageOptions(size=48 << 20, block_size=block_size, inodes=MANY + 100)
    ext3.build_image(builder.finish(ext3.MemoryContent({})), device, options=options, stamp=STAMP)
    return bytes(device.data)


@pytest.mark.parametrize(("block_size", "most"), [(1024, 12), (4096, 4)])
def test_a_lookup_reads_few_blocks(block_size: int, most: int) -> None:
    """Pointers, the root, a node and a leaf; with 1 KiB there are eight blocks of pointers."""
    device = CountingDevice(wide(block_size))
    with ext3.Filesystem.open(device) as fs:
        directory = fs.lookup("/d")
        size = fs.stat(directory).size
        names = [b"file-%06d" % number for number in range(0, MANY, 5000)]
        inos = {entry.name: entry.ino for entry in fs.scandir(directory)}
        for name in names:
            fs.inode(directory)
            device.reads = device.bytes = 0
            assert fs.find_name(directory, name) == inos[name]
            assert device.reads <= most
            assert device.bytes <= most * block_size < size // 20
        for name in (b"absent", b"file-", b"\xff" * 255):
            fs.inode(directory)
            device.reads = device.bytes = 0
            assert fs.find_name(directory, name) is None
            assert device.reads <= most
            assert device.bytes <= most * block_size
        device.reads = 0
        fs.lookup("/d/file-012345")
        assert device.reads <= most + 6


def names_of(image: bytes) -> dict[bytes, int]:
    with ext3.Filesystem.open(MemoryDevice(bytearray(image))) as fs:
        return {entry.name: entry.ino for entry in fs.scandir(DIRECTORY)}


@pytest.mark.parametrize("levels", [0, 1])
def test_every_name_is_found(levels: int) -> None:
    image = indexed_image(levels)
    with ext3.Filesystem.open(MemoryDevice(bytearray(image))) as fs:
        directory = fs.lookup(DIRECTORY)
        for name, ino in names_of(image).items():
            assert fs.find_name(directory, name) == ino
            assert fs.find_name(directory, name + b"-") is None
        assert fs.find_name(directory, b".") == directory
        assert fs.find_name(directory, b"..") == 2


@pytest.mark.slow
@pytest.mark.parametrize("recipe", INDEX_DAMAGE.values(), ids=list(INDEX_DAMAGE))
def test_every_name_is_found_in_spite_of_an_odd_index(recipe: IndexRecipe) -> None:
    """By readers and by who changes the directory, who drops the index or goes on with it."""
    image = bytes(damaged_index(recipe))
    all_names = names_of(indexed_image(recipe.levels))
    names = dict(list(all_names.items())[:: 1 + 12 * recipe.levels])
    for mode in ("r", "r+"):
        with ext3.Filesystem.open(MemoryDevice(bytearray(image)), mode, **({"clock": clock} if mode == "r+" else {})) as fs:
            directory = fs.lookup(DIRECTORY)
            for name, ino in names.items():
                assert fs.find_name(directory, name) == ino
            for number in range(20):
                assert fs.find_name(directory, b"absent-%d" % number) is None
    device = MemoryDevice(bytearray(image))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for name in names:
            with pytest.raises(FileExistsError):
                fs.create(DIRECTORY + b"/" + name)
        for number in range(10):
            fs.create(DIRECTORY + b"/new-%d" % number)
        fs.unlink(DIRECTORY + b"/" + min(names))
    found = names_of(bytes(device.data))
    assert found.keys() == all_names.keys() - {min(names)} | {b"new-%d" % number for number in range(10)}
    with ext3.Filesystem.open(device) as fs:
        directory = fs.lookup(DIRECTORY)
        assert all(fs.find_name(directory, name) == ino for name, ino in found.items() if name in names)


def leaf_finder(image: bytearray) -> Callable[[bytes], int]:
    """Gives the block of the directory that the index leads to for a name."""
    start = directory_block(image, 0)
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        hashed = DirHash(1, fs.superblock.hash_seed, signed=True)
        count = fs.stat(DIRECTORY).size // BLOCK_SIZE
    root = read_node(bytes(image[start : start + BLOCK_SIZE]), 0, blocks=count)
    return lambda name: root.blocks[root.slot(hashed(name))]


def test_damage_in_the_leaf_is_told_and_in_others_not() -> None:
    image = bytearray(indexed_image(0))
    names = list(names_of(bytes(image)))
    leaf_of = leaf_finder(image)
    leaf = leaf_of(names[0])
    struct.pack_into("<H", image, directory_block(image, leaf) + 4, 8)
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        there = [name for name in names if leaf_of(name) == leaf]
        assert 1 < len(there) < len(names)
        for name in names:
            if name in there:
                with pytest.raises(CorruptError, match="rec_len"):
                    fs.lookup(DIRECTORY + b"/" + name)
            else:
                assert fs.lookup(DIRECTORY + b"/" + name)
        absent = [b"absent-%d" % number for number in range(60)]
        damaged = [name for name in absent if leaf_of(name) == leaf]
        assert 0 < len(damaged) < len(absent)
        for name in damaged:
            with pytest.raises(CorruptError, match="rec_len"):
                fs.lookup(DIRECTORY + b"/" + name)


def hidden(image: bytes, *, feature: bool, flag: bool) -> bytearray:
    """The image without the feature dir_index, or without the directory's flag."""
    changed = bytearray(image)
    if not feature:
        SUPERBLOCK.view(changed, 1, SUPERBLOCK_OFFSET)["s_feature_compat"] ^= int(Compat.DIR_INDEX)
    if not flag:
        with ext3.Filesystem.open(MemoryDevice(changed)) as fs:
            ino = fs.lookup(DIRECTORY)
            table = int(fs.groups["bg_inode_table"][0]) * BLOCK_SIZE
            row = INODE_CORE.view(changed, 1, table + (ino - 1) * fs.superblock.inode_size)
        row["i_flags"] ^= int(InodeFlag.INDEX)
    return changed


@pytest.mark.parametrize(("feature", "flag"), [(False, True), (True, False)])
def test_the_index_is_not_looked_at_without_feature_and_flag(feature: bool, flag: bool) -> None:
    """All leaves but the first are read, in which a name is that the index would not lead to."""
    image = hidden(bytes(damaged_index(INDEX_DAMAGE["leaves swapped"])), feature=feature, flag=flag)
    device = CountingDevice(image)
    with ext3.Filesystem.open(device) as fs:
        directory = fs.lookup(DIRECTORY)
        size = fs.stat(directory).size
        device.bytes = 0
        assert fs.find_name(directory, b"absent") is None
        assert device.bytes >= size
        assert all(fs.find_name(directory, name) == ino for name, ino in names_of(bytes(image)).items())


def test_blocks_without_an_index_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again where they may hold the name, or where many other directories were searched in between."""
    image = hidden(indexed_image(0), feature=True, flag=False)
    names = list(names_of(bytes(image)))
    device = MemoryDevice(image)
    with ext3.Filesystem.open(device) as fs:
        directory = fs.lookup(DIRECTORY)
        assert fs.find_name(directory, b"absent") is None
        leaf = directory_block(image, 1)
        device.data[leaf + 4] = 8
        inside = [name for name in names if name in image[leaf : leaf + BLOCK_SIZE]]
        assert fs.find_name(directory, b"..") == 2
        assert fs.find_name(directory, b"absent") is None
        with pytest.raises(CorruptError, match="rec_len"):
            fs.find_name(directory, inside[0])
        monkeypatch.setattr(filesystem, "JUDGED_DIRECTORIES", 1)
        fs.find_name(2, b"absent")
        with pytest.raises(CorruptError, match="rec_len"):
            fs.find_name(directory, b"absent")


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("levels", [0, 1])
def test_random_damage_of_an_index(levels: int, seed: int) -> None:
    """A lookup gives the right inode, or none where a hash is wrong; never another one, and never a surprise."""
    chosen = random.Random(seed)
    image = bytearray(indexed_image(levels))
    names = names_of(bytes(image))
    starts = directory_blocks(image)
    nodes = [starts[0], *(start for start in starts if image[start : start + 4] == bytes(4))]
    for _ in range(chosen.choice((1, 2, 5))):
        at = chosen.choice(nodes) + chosen.choice((chosen.randrange(24, 60), chosen.randrange(24, BLOCK_SIZE)))
        image[at] = chosen.choice((0, 1, 2, 255, chosen.randrange(256)))
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        directory = fs.lookup(DIRECTORY)
        for name, ino in list(names.items())[:: 1 + 20 * levels]:
            assert fs.find_name(directory, name) in (ino, None)
            assert fs.find_name(directory, name + b"-") is None
