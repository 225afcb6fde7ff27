"""Inodes read together, of an image that is open and of one of which no more is known than where its tables lie."""

from __future__ import annotations

from typing import NamedTuple

import pytest

import ext3
from ext3.constants import S_IFDIR, S_IFREG
from ext3.device.base import BlockDevice, MemoryDevice
from ext3.errors import CorruptError, PathNotFoundError
from ext3.format.group_desc_columns import read_group_columns
from ext3.format.layout_columns import Table
from ext3.format.schema import INODE_EXTRA
from ext3.format.superblock import Superblock, read_superblock
from ext3.read.directory_scan import read_directories
from ext3.read.inode_scan import column_parts, read_columns, read_facts, read_stats
from ext3.read.readahead import ReadAhead, contiguous_files

from ....support.tiny_image import BLOCK, TABLE, TinyImage

STAMP = ext3.Stamp(1_700_000_000, b"u" * 16, b"s" * 16)
TIMES = (1, 2, 3, 4, 5, 6)


class Tables(NamedTuple):
    """What a check has before it has a Filesystem."""

    device: BlockDevice
    superblock: Superblock
    groups: Table


def image() -> MemoryDevice:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, TIMES)
    content = ext3.MemoryContent()
    for number in range(100):
        node = builder.add(0, b"%d" % number, S_IFREG | 0o644, number, 0, 3, TIMES)
        content.data[node] = b"%3d" % number
    device = MemoryDevice(8 << 20)
    ext3.build_image(builder.finish(content), device, options=ext3.ImageOptions(size=8 << 20), stamp=STAMP)
    return device


def test_scans_need_no_filesystem() -> None:
    device = image()
    superblock = read_superblock(device)
    tables = Tables(device, superblock, read_group_columns(device, superblock))
    (listing,) = read_directories(tables, [2])
    assert listing is not None
    inos = [entry.ino for entry in listing.entries if entry.name != b"lost+found"]
    columns = read_columns(tables, inos)
    straight, first = contiguous_files(tables, columns)
    assert straight.all()
    ahead = ReadAhead(tables, first.tolist(), columns.size.tolist(), range(100))
    assert sorted(bytes(ahead.take(row, 3)) for row in range(100)) == [b"%3d" % number for number in range(100)]
    with ext3.Filesystem.open(device) as filesystem:
        assert read_stats(tables, inos) == [filesystem.stat(ino) for ino in inos] == read_stats(filesystem, inos)
        (rows,) = filesystem.scan_many([2])
        assert [row[:3] for row in rows.rows] == sorted(listing.entries)


def test_a_number_that_is_no_inode() -> None:
    with ext3.Filesystem.open(image()) as filesystem:
        for inos in ([0], [2, 1 << 31], [-1, 2]):
            with pytest.raises(PathNotFoundError, match="inodes are from 1 to"):
                read_columns(filesystem, inos)
        parts = list(column_parts(filesystem, [2, 0, 12]))
        assert [isinstance(columns, OSError) for _, _, columns in parts] == [False, True, False]


def test_damaged_inodes() -> None:
    tiny = TinyImage()
    for ino in (12, 13):
        tiny.inode(ino, S_IFREG | 0o644)
    INODE_EXTRA.view(tiny.data, 1, TABLE * BLOCK + 12 * 256 + 128)["i_extra_isize"] = 130
    with tiny.open() as filesystem:
        with pytest.raises(CorruptError, match="inode 13: i_extra_isize is 130") as caught:
            read_stats(filesystem, [12, 13])
        stats, _ = read_facts(filesystem, [13, 12])
        assert isinstance(stats[0], CorruptError)
        assert str(stats[0]) == str(caught.value)
        assert stats[1] == filesystem.stat(12)
