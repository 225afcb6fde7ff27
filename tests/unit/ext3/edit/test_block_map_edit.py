"""Block maps that grow and shrink, against a plain dictionary's idea of them, and maps that contradict the format."""

from __future__ import annotations

import errno
import struct

import pytest

from ext3.edit.block_map_edit import BlockMapEditor, FileTooLargeError
from ext3.edit.blocks import Run
from ext3.errors import CorruptError, NoSpaceError

from ....support.blocks import MemoryBlocks, count_blocks

P = 256
"""Pointers in a block of 1024 bytes."""


def editor(blocks: MemoryBlocks, words: list[int] | None = None, **options: bool | int) -> BlockMapEditor:
    words = words or [0] * 15
    return BlockMapEditor(blocks, words, first=blocks.first, end=blocks.end, where="inode 12", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "pointers"), [(0, 0), (11, 0), (12, 1), (12 + P - 1, 1), (12 + P, 2), (12 + P + P * P - 1, 2), (12 + P + P * P, 3)]
)
def test_one_block_and_the_way_to_it(at: int, pointers: int) -> None:
    blocks = MemoryBlocks(1000)
    mapping = editor(blocks)
    ((logical, physical, count),) = mapping.map(at, 1, 50)
    assert (logical, count) == (at, 1)
    assert mapping.block(at) == physical
    assert mapping.runs(at, 1) == [(at, physical, 1)]
    assert mapping.runs(0, at + 100) == [(at, physical, 1)]
    assert count_blocks(mapping) == (1, pointers)
    assert mapping.sectors == 2 * (1 + pointers) == 2 * len(blocks.used)
    assert mapping.block(at + 1) is None
    assert mapping.truncate(at + 1) == 0
    assert mapping.punch(at, 1) == 1 + pointers
    assert mapping.i_block == (0,) * 15
    assert mapping.sectors == 0
    assert not blocks.used


def test_the_last_block_a_map_holds() -> None:
    mapping = editor(MemoryBlocks(100))
    mapping.map(mapping.limit - 1, 1, 1)
    assert count_blocks(mapping) == (1, 3)
    with pytest.raises(FileTooLargeError) as large:
        mapping.map(mapping.limit - 1, 2, 1)
    assert large.value.errno == errno.EFBIG
    with pytest.raises(FileTooLargeError):
        mapping.block(mapping.limit)


def test_a_long_range_is_contiguous() -> None:
    blocks = MemoryBlocks(200_000)
    mapping = editor(blocks)
    found = mapping.map(0, 150_000, 1)
    assert len(found) == 1
    assert mapping.runs(0, 150_000) == found
    leaves = 1 + P + -(-(150_000 - 12 - P - P * P) // P)
    assert count_blocks(mapping) == (150_000, leaves + 1 + 1 + -(-(leaves - 1 - P) // P))
    assert mapping.sectors == 2 * len(blocks.used)
    assert mapping.map(0, 150_000, 1) == []
    mapping.truncate(70_000)
    assert mapping.runs(0, 150_000) == [(0, found[0][1], 70_000)]
    assert mapping.sectors == 2 * len(blocks.used)
    mapping.truncate(0)
    assert not blocks.used


def test_holes_are_filled_and_mapped_blocks_stay() -> None:
    blocks = MemoryBlocks(5000)
    mapping = editor(blocks)
    first = mapping.map(100, 50, 1)[0]
    found = mapping.map(0, 600, 2000)
    assert found[0][0] == 0
    assert sum(count for _, _, count in found) == 550
    assert mapping.block(100) == first[1]
    covered = {at for logical, _, count in mapping.runs(0, 600) for at in range(logical, logical + count)}
    assert covered == set(range(600))
    assert len(blocks.used) * 2 == mapping.sectors


def test_scattered_blocks() -> None:
    """An allocator that finds no two blocks side by side."""
    blocks = MemoryBlocks(4000)
    blocks.longest = 1
    mapping = editor(blocks)
    assert len(mapping.map(5, 700, 1)) > 600
    physical = [block for _, first, count in mapping.runs(5, 700) for block in range(first, first + count)]
    assert len(set(physical)) == 700
    assert mapping.truncate(6) == 699 + 3 + 1
    assert count_blocks(mapping) == (1, 0)


def test_an_append_follows_the_block_before() -> None:
    blocks = MemoryBlocks(3000)
    mapping = editor(blocks)
    for logical in range(600):
        mapping.map(logical, 1, 5 if logical == 0 else 2500)
    runs = mapping.runs(0, 600)
    assert len(runs) <= 5  # broken only by the pointer blocks
    again = editor(blocks, list(mapping.i_block), sectors=mapping.sectors)
    ((_, physical, _),) = again.map(600, 1, 2500)
    assert physical == runs[-1][1] + runs[-1][2]


def test_no_space_leaves_the_map_as_it_was() -> None:
    blocks = MemoryBlocks(300)
    mapping = editor(blocks)
    mapping.map(0, 200, 1)
    before = mapping.i_block, dict(blocks.content), set(blocks.used), mapping.sectors
    for at, count in ((200, 150), (5000, 99), (0, 299), (70_000, 97), (200, 10_000), (0, 1 << 23)):
        with pytest.raises(NoSpaceError):
            mapping.map(at, count, 1)
    assert (mapping.i_block, blocks.content, blocks.used, mapping.sectors) == before


def test_the_32_bits_of_i_blocks() -> None:
    mapping = editor(MemoryBlocks(300), sectors=0xFFFFFFFF - 21)
    with pytest.raises(FileTooLargeError, match="sectors"):
        mapping.map(0, 11, 1)
    mapping.map(0, 10, 1)
    with pytest.raises(FileTooLargeError, match="sectors"):
        mapping.map(0, 20, 1)


@pytest.mark.parametrize("metadata", [False, True])
def test_how_blocks_are_given_back(metadata: bool) -> None:
    """Pointer blocks are always metadata, the data only for a directory."""
    blocks = MemoryBlocks(300)
    mapping = editor(blocks, metadata=metadata)
    ((_, physical, _),) = mapping.map(12, 1, 1)
    pointer = mapping.i_block[12]
    mapping.truncate(0)
    assert sorted(blocks.gone) == sorted([(physical, metadata), (pointer, True)])


def table(*pointers: int) -> bytes:
    return struct.pack(f"<{len(pointers)}I", *pointers).ljust(1024, b"\0")


class Watched(MemoryBlocks):
    """Counts how often blocks are read, and changes nothing."""

    reads = 0

    def read(self, block: int) -> bytes:
        self.reads += 1
        return super().read(block)

    def free(self, runs: list[Run], *, metadata: bool) -> None:  # type: ignore[override]
        raise AssertionError("nothing may be freed")

    def write(self, block: int, data: bytes) -> None:
        raise AssertionError("nothing may be written")


LOOP = {
    "outside": ([0] * 12 + [5000, 0, 0], {}),
    "in front": ([0] * 12 + [5, 0, 0], {5: table(0, 0xFFFFFFFF)}),
    "direct outside": ([1 << 31] + [0] * 14, {}),
    "itself": ([0] * 13 + [6, 0], {6: table(6)}),
    "itself everywhere": ([0] * 14 + [7], {7: table(*[7] * 256)}),
    "two trees": ([0] * 12 + [5, 6, 0], {5: table(9), 6: table(5)}),
    "one data block twice": ([9, 9] + [0] * 13, {}),
}


@pytest.mark.parametrize("what", LOOP)
def test_maps_that_contradict_the_format(what: str) -> None:
    words, content = LOOP[what]
    blocks = Watched(100)
    blocks.content.update(content)
    mapping = editor(blocks, list(words))
    with pytest.raises(CorruptError, match="inode 12"):
        mapping.truncate(0)
    assert list(mapping.i_block) == words
    assert blocks.reads < 10
    if "data" not in what:
        with pytest.raises(CorruptError, match="inode 12"):
            mapping.runs(0, mapping.limit)
    assert blocks.reads < 20


@pytest.mark.parametrize("at", [0, 12, 12 + P])
def test_a_pointer_outside_is_not_followed(at: int) -> None:
    blocks = Watched(100)
    mapping = editor(blocks, [101] + [0] * 11 + [102, 103, 104])
    for work in (lambda: mapping.block(at), lambda: mapping.map(at + 1, 1, 1), lambda: mapping.map(at + 1, 90, 1)):
        with pytest.raises(CorruptError):
            work()
    assert not blocks.reads


def test_i_block_has_15_words() -> None:
    with pytest.raises(ValueError, match="15"):
        editor(MemoryBlocks(10), [0] * 14)
