"""Directories read together: exactly what scandir gives, and nothing at all for those in which anything is wrong."""

from __future__ import annotations

import io
import random
from functools import cache

import numpy as np
import pytest

import ext3
from ext3.constants import S_IFDIR, S_IFLNK, S_IFREG, Incompat
from ext3.device.base import MemoryDevice
from ext3.format import dirent_columns
from ext3.format.schema import SUPERBLOCK
from ext3.read import directory_scan
from ext3.read.directory_scan import Listing, read_directories, read_mapped_directory
from ext3.read.filesystem import Entry, Filesystem

STAMP = ext3.Stamp(1_700_000_000, b"u" * 16, b"s" * 16)
SIZES = (0, 1, 3, 20, 60, 150, 700, 2500)
"""Names in a directory: none, one block, several with an index, more than its inode points to."""


@cache
def image(block_size: int = 1024, seed: int = 1) -> bytes:
    """A filesystem with directories of all sizes, in one another."""
    chosen = random.Random(seed)
    builder = ext3.TreeBuilder()
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, (0,) * 6)
    above = [0]
    for number, count in enumerate(SIZES * 3):
        directory = builder.add(chosen.choice(above), b"dir%d" % number, S_IFDIR | 0o755, 0, 0, 0, (0,) * 6)
        above.append(directory)
        for index in range(count):
            name = b"%d-" % index + bytes(
                chosen.choices(b"abc\xff\x80.", k=chosen.choice((1, 5, 9, 200 if count < 100 else 9)))
            )
            mode = chosen.choice((S_IFREG | 0o644, S_IFLNK | 0o777))
            node = builder.add(directory, name, mode, 0, 0, 1 if mode & 0o170000 == S_IFLNK else 0, (0,) * 6)
            if mode & 0o170000 == S_IFLNK:
                builder.targets[node] = b"x"
    device = MemoryDevice(24 << 20)
    options = ext3.ImageOptions(size=24 << 20, block_size=block_size, inodes=16_384)
    ext3.build_image(builder.finish(ext3.MemoryContent({})), device, options=options, stamp=STAMP)
    return bytes(device.read(0, device.size))


def directories(filesystem: Filesystem) -> list[int]:
    return [2, *(entry.ino for _, entry in filesystem.walk() if entry.file_type == 2)]


def one_by_one(filesystem: Filesystem, ino: int) -> list[Entry] | None:
    try:
        return list(filesystem.scandir(ino))
    except ext3.Ext3Error:
        return None


def together(filesystem: Filesystem, inos: list[int]) -> list[list[Entry] | None]:
    found: list[Listing | None] = []
    while len(found) < len(inos):
        found += read_directories(filesystem, inos[len(found) :])
    for ino, one in zip(inos, found, strict=True):
        if one is not None:
            runs = filesystem.data_extents(ino)
            assert one.blocks == [block for _, start, count in runs for block in range(start, start + count)]
    return [one and one.entries for one in found]


def mapped(filesystem: Filesystem, ino: int) -> list[Entry] | None:
    """What ``read_mapped_directory`` reads: directories with indirect blocks, too."""
    found = read_mapped_directory(filesystem, filesystem.stat(ino).size, filesystem.data_extents(ino))
    return None if found is None else found.entries


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("few", [0, 16, 1 << 30])
def test_what_is_read_together_is_what_is_there(monkeypatch: pytest.MonkeyPatch, block_size: int, few: int) -> None:
    monkeypatch.setattr(dirent_columns, "FEW", few)
    with Filesystem.open(io.BytesIO(image(block_size))) as filesystem:
        inos = directories(filesystem)
        found = together(filesystem, inos)
        large = [filesystem.stat(ino).size > 12 * block_size for ino in inos]
        assert len(inos) == 26 and 0 < sum(large) < 10
        for ino, entries, is_large in zip(inos, found, large, strict=True):
            assert entries == (None if is_large else one_by_one(filesystem, ino))
            assert mapped(filesystem, ino) == one_by_one(filesystem, ino)
        assert together(filesystem, inos[::-1] + inos) == found[::-1] + found


def test_a_long_list_is_read_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_scan, "READ_BYTES", 4096)
    with Filesystem.open(io.BytesIO(image())) as filesystem:
        inos = directories(filesystem)
        assert 1 <= len(read_directories(filesystem, inos)) <= 4
        for ino in inos:  # also one that is larger than that
            assert len(read_directories(filesystem, [ino])) == 1
        assert together(filesystem, inos) == [
            None if filesystem.stat(ino).size > 12 * 1024 else one_by_one(filesystem, ino) for ino in inos
        ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("few", [0, 16])
def test_a_damaged_directory_is_left_to_scandir(monkeypatch: pytest.MonkeyPatch, seed: int, few: int) -> None:
    monkeypatch.setattr(dirent_columns, "FEW", few)
    chosen = random.Random(seed)
    device = MemoryDevice(image())
    with Filesystem.open(device) as filesystem:
        inos = directories(filesystem)
        blocks = {ino: filesystem.block_map(ino).extents for ino in inos}
        whole = {ino: one_by_one(filesystem, ino) for ino in inos}
    told = 0
    for _ in range(20):
        alone, before = dict(whole), {}
        for _ in range(chosen.choice((1, 3, 30))):
            ino = chosen.choice(inos)
            _, first, count = chosen.choice(blocks[ino])
            at = (first + chosen.randrange(count)) * 1024 + chosen.choice((chosen.randrange(1024), chosen.randrange(48)))
            before.setdefault(at, device.data[at])
            device.data[at] = chosen.choice((0, 1, 47, 255, chosen.randrange(256)))
            alone.pop(ino, None)
        with Filesystem.open(device) as filesystem:
            for ino, entries in zip(inos, together(filesystem, inos), strict=True):
                found = alone[ino] if ino in alone else one_by_one(filesystem, ino)
                assert entries is None or entries == found
                assert mapped(filesystem, ino) in (None, found)
                told += found is None
        for at, byte in before.items():
            device.data[at] = byte
    assert told > 10


@pytest.mark.parametrize("few", [0, 16])
def test_a_name_that_leaves_its_record(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """Also one whose length would fit if it were counted modulo 256, in the last record of a block."""
    monkeypatch.setattr(dirent_columns, "FEW", few)
    builder = ext3.TreeBuilder()
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, (0,) * 6)
    for number in range(40):
        directory = builder.add(0, b"%d" % number, S_IFDIR | 0o755, 0, 0, 0, (0,) * 6)
        for name in (b"a" * 240, b"b" * 240, b"c" * 240, b"d" * 248):  # the last record has the last 256 bytes of the block
            builder.add(directory, name, S_IFREG | 0o644, 0, 0, 0, (0,) * 6)
    device = MemoryDevice(8 << 20)
    ext3.build_image(builder.finish(ext3.MemoryContent({})), device, options=ext3.ImageOptions(size=8 << 20), stamp=STAMP)
    whole = bytearray(device.read(0, device.size))
    with Filesystem.open(io.BytesIO(bytes(whole))) as filesystem:
        inos = [ino for ino in directories(filesystem)[1:] if filesystem.stat(ino).size == 1024]  # not lost+found
        places = [filesystem.block_map(ino).extents[0][1] * 1024 for ino in inos]
        assert None not in together(filesystem, inos)
    for place in places:
        assert whole[place + 768 + 6] == 248
        whole[place + 768 + 6] = 249
    with Filesystem.open(io.BytesIO(bytes(whole))) as filesystem:
        assert [one_by_one(filesystem, ino) for ino in inos] == [None] * 40
        assert together(filesystem, inos) == [None] * 40


def test_no_directory_and_one_bad_inode_among_many() -> None:
    data = bytearray(image())
    with Filesystem.open(io.BytesIO(bytes(data))) as filesystem:
        assert read_directories(filesystem, []) == []
        inos = directories(filesystem)
        wrong = filesystem.superblock.inodes_count + 1
        for place in (0, 7, len(inos)):
            found = together(filesystem, [*inos[:place], wrong, *inos[place:]])
            assert found == [*together(filesystem, inos[:place]), None, *together(filesystem, inos[place:])]
        assert len(read_directories(filesystem, inos, most_names=1)) == 1


def test_large_directories_that_are_left_to_scandir(monkeypatch: pytest.MonkeyPatch) -> None:
    with Filesystem.open(io.BytesIO(image())) as filesystem:
        ino = max(directories(filesystem), key=lambda ino: filesystem.stat(ino).size)
        size, runs = filesystem.stat(ino).size, filesystem.data_extents(ino)
        assert size > 12 * 1024 and mapped(filesystem, ino)
        first, start, count = runs[0]
        with_hole = [(first, start, count - 1), *runs[1:]]
        outside = [(first, filesystem.superblock.blocks_count, count), *runs[1:]]
        assert [read_mapped_directory(filesystem, size, one) for one in (with_hole, outside, [])] == [None] * 3
        assert read_mapped_directory(filesystem, size + 1, runs) is None
        monkeypatch.setattr(directory_scan, "READ_BYTES", size - 1)
        assert mapped(filesystem, ino) is None


def test_inodes_that_are_no_directories_or_point_outside() -> None:
    data = bytearray(image())
    with Filesystem.open(io.BytesIO(bytes(data))) as filesystem:
        file = next(entry.ino for _, entry in filesystem.walk() if entry.file_type == 1)
        assert read_directories(filesystem, [2, file, 2])[1] is None
        assert read_directories(filesystem, [filesystem.superblock.inodes_count + 1]) == [None]
        small = next(ino for ino in directories(filesystem) if filesystem.stat(ino).size == 1024)
        table = filesystem.groups[(small - 1) // filesystem.superblock.inodes_per_group]["bg_inode_table"]
        place = int(table) * 1024 + (small - 1) % filesystem.superblock.inodes_per_group * 256
    for offset, value in ((4, 1000), (40, 0), (40, 1 << 31), (32, 0x80000), (128, 0xFFFF)):  # size, block, flags, extra area
        damaged = bytearray(data)
        damaged[place + offset : place + offset + 4] = value.to_bytes(4, "little")
        with Filesystem.open(io.BytesIO(bytes(damaged))) as filesystem:
            assert read_directories(filesystem, [2, small])[1] is None
            assert one_by_one(filesystem, small) is None


def test_without_types_in_the_records_the_inodes_are_asked() -> None:
    data = bytearray(image())
    SUPERBLOCK.view(data, 1, 1024)["s_feature_incompat"] &= ~np.uint32(Incompat.FILETYPE)
    with Filesystem.open(io.BytesIO(bytes(data))) as filesystem:
        assert read_directories(filesystem, [2]) == [None] and one_by_one(filesystem, 2)
        assert mapped(filesystem, 2) is None
