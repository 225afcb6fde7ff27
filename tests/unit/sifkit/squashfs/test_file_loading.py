"""Many files at once: the same facts and content as one by one, each block decompressed once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sifkit.squashfs import Reader
from sifkit.squashfs.errors import CorruptSquashfsError
from sifkit.vfs.file_tree import REGULAR, file_type_of
from sifkit.vfs.walk import walk

from ....support.squashfs_data import MemorySource

FIXTURES = Path(__file__).parents[4] / "fixtures" / "squashfs"
IMAGES = sorted(FIXTURES.glob("*.sqfs"))


def nodes_of(reader: Reader) -> list[int]:
    """All nodes, those of hard links once more."""
    return [reader.root, *(walked.row.node for walked in walk(reader, reader.root))]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("keep_order", (True, False))
@pytest.mark.parametrize("batch", (2, 1024))
def test_files_are_as_they_are_one_by_one(path: Path, keep_order: bool, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sifkit.squashfs.file_loading.BATCH_FILES", batch)
    with Reader.open(path) as reader:
        nodes = nodes_of(reader)[::-1]
        loaded = list(reader.load_many(nodes, keep_order=keep_order))
        assert sorted(one.position for one in loaded) == list(range(len(nodes)))
        assert not keep_order or [one.node for one in loaded] == nodes
        for one in loaded:
            assert one.node == nodes[one.position]
            assert one.stat == reader.stat(one.node)
            assert one.xattrs == reader.xattrs(one.node)
            if file_type_of(reader.stat(one.node).mode) != REGULAR or reader.stat(one.node).size > 1 << 16:
                assert one.content is None
                continue
            with reader.open_file(one.node) as file:
                whole = file.read_at(0, file.size)
                assert one.content == (None if file.has_holes else whole)


@pytest.mark.parametrize("keep_order", (True, False))
def test_each_block_is_decompressed_once_whatever_the_cache_holds(keep_order: bool) -> None:
    image = (FIXTURES / "gzip.sqfs").read_bytes()
    source = MemorySource(image)
    reader = Reader(source, cache_bytes=reader_block_size(image))
    nodes = sorted(nodes_of(reader), key=lambda node: node * 7919 % 4093)
    source.reads.clear()
    for _ in reader.load_many(nodes, keep_order=keep_order):
        pass
    data = Counter(offset for offset, _ in source.reads if offset < reader.superblock.inode_table_start)
    assert data
    assert max(data.values()) == 1


def reader_block_size(image: bytes) -> int:
    return int.from_bytes(image[12:16], "little")


def test_larger_files_are_left_to_be_opened() -> None:
    with Reader.open(FIXTURES / "zstd.sqfs") as reader:
        data = reader.find_name(reader.root, b"data")
        assert data is not None
        nodes = [node for name in (b"small", b"tail") if (node := reader.find_name(data, name)) is not None]
        sizes = [reader.stat(node).size for node in nodes]
        contents = [one.content for one in reader.load_many(nodes, limit=sizes[0])]
        assert isinstance(contents[0], bytes) and len(contents[0]) == sizes[0]
        assert contents[1] is None


def test_damage_is_of_the_files_it_concerns() -> None:
    image = bytearray((FIXTURES / "zstd.sqfs").read_bytes())
    with Reader.open(FIXTURES / "zstd.sqfs") as reader:
        place = reader.fragment(0).start
        image[place : place + 4] = b"\0\0\0\0"
    damaged = Reader(MemorySource(bytes(image)))
    nodes = nodes_of(damaged)
    sound, wrong = 0, 0
    for one in damaged.load_many([*nodes, 1 << 40], keep_order=True):
        if one.position == len(nodes):
            assert isinstance(one.stat, CorruptSquashfsError)
        elif isinstance(one.content, OSError):
            assert isinstance(one.content, CorruptSquashfsError) and one.content.offset == place
            assert damaged.inode(one.node).fragment_index == 0
            wrong += 1
        else:
            sound += isinstance(one.content, bytes)
    assert wrong and sound
