from __future__ import annotations

import sys
import tracemalloc
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext3.device.base import MemoryDevice
from ext3.errors import CorruptError
from ext3.format import block_map, block_map_columns
from ext3.format.block_map import (
    BlockMap,
    Extent,
    Extents,
    PointerBounds,
    consecutive,
    group_runs,
    map_limit,
    pack_pointers,
    parse_pointers,
    read_block_map,
    table_runs,
)

BLOCK = 64  # 16 pointers: all levels in a few blocks
BLOCKS = 600
P = BLOCK // 4


def write_map(device: MemoryDevice, wanted: dict[int, int], start: int) -> list[int]:
    """A slow, plain writer of block maps: logical -> physical; pointer blocks from ``start`` on. The 15 numbers."""
    tables: dict[int, int] = {}
    i_block = [0] * 15

    def child(parent: int | None, slot: int) -> int:
        nonlocal start
        if parent is None:
            table, at = i_block, slot
        else:
            table, at = np.frombuffer(device.data, "<u4", P, parent * BLOCK), slot  # type: ignore[assignment]
        if not table[at]:
            table[at] = start
            tables[start] = 1
            start += 1
        return int(table[at])

    for logical, physical in wanted.items():
        if logical < 12:
            i_block[logical] = physical
            continue
        rest = logical - 12
        level = 1
        while rest >= P**level:
            rest -= P**level
            level += 1
        parent = child(None, 11 + level)
        for above in range(level - 1, 0, -1):
            parent = child(parent, rest // P**above % P)
        np.frombuffer(device.data, "<u4", P, parent * BLOCK)[rest % P] = physical
    return i_block


def read(device: MemoryDevice, i_block: list[int], wanted: int, end: int = BLOCKS) -> BlockMap:
    return read_block_map(device, i_block, block_size=BLOCK, first=1, end=end, wanted=wanted, where="inode 12")


def rows(found: BlockMap) -> list[Extent]:
    return list(found.extents)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3)), max_size=30))
def test_runs_of_few_and_of_many(steps: list[tuple[int, int]]) -> None:
    blocks, logical, physical = [], 0, 100
    for skip, jump in steps:
        blocks.append((logical := logical + 1 + skip, physical := physical + 1 + jump))
    columns = np.array(blocks, np.int64).reshape(-1, 2).T
    assert block_map_columns.group_runs(*columns) == group_runs(blocks)
    assert [(at + step, block + step) for at, block, count in group_runs(blocks) for step in range(count)] == blocks


def test_limit_of_real_block_sizes() -> None:
    assert map_limit(1024) == 16843020
    assert map_limit(4096) == 1074791436


def test_runs_cross_from_direct_to_indirect() -> None:
    device = MemoryDevice(BLOCK * BLOCKS)
    found = read(device, write_map(device, {number: 100 + number for number in range(5, 28)}, 400), 28)
    assert rows(found) == [(5, 105, 23)]
    assert found.indirect == [400]
    assert found.mapped == 23


def test_only_what_is_wanted() -> None:
    device = MemoryDevice(BLOCK * BLOCKS)
    i_block = write_map(device, {number: 100 + number for number in range(300)}, 450)
    for wanted in (0, 1, 11, 12, 13, 27, 28, 29, 44, 45, 283, 284, 285, 300):
        assert rows(read(device, i_block, wanted)) == ([(0, 100, wanted)] if wanted else [])


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, map_limit(BLOCK) - 1), st.integers(1, 199), max_size=12), st.integers(0, 40))
def test_as_written(scattered: dict[int, int], run: int) -> None:
    wanted = {**scattered, **{20 + number: 50 + number for number in range(run)}}
    device = MemoryDevice(BLOCK * BLOCKS)
    found = read(device, write_map(device, wanted, 200), map_limit(BLOCK))
    blocks = {row[0] + k: row[1] + k for row in rows(found) for k in range(row[2])}
    assert blocks == wanted
    for one, two in zip(rows(found), rows(found)[1:], strict=False):
        assert one[0] + one[2] <= two[0]
        assert (one[0] + one[2], one[1] + one[2]) != (two[0], two[1])


@pytest.mark.parametrize("slot", range(15))
@pytest.mark.parametrize("bad", [BLOCKS, 0xFFFFFFFF])
def test_pointers_outside(slot: int, bad: int) -> None:
    i_block = [0] * 15
    i_block[slot] = bad
    with pytest.raises(CorruptError) as caught:
        read(MemoryDevice(BLOCK * BLOCKS), i_block, map_limit(BLOCK))
    assert (caught.value.where, caught.value.field, caught.value.got) == ("inode 12", f"i_block[{slot}]", bad)


def test_a_bad_pointer_behind_the_end_does_not_matter() -> None:
    i_block = [0] * 15
    i_block[0], i_block[5] = 100, 0xFFFFFFFF
    assert rows(read(MemoryDevice(BLOCK * BLOCKS), i_block, 5)) == [(0, 100, 1)]


def test_bad_pointer_in_a_pointer_block() -> None:
    device = MemoryDevice(BLOCK * BLOCKS)
    i_block = write_map(device, {12: 100, 13: 5000}, 300)
    with pytest.raises(CorruptError, match=r"inode 12: pointers in block 300\[1\] is 5000"):
        read(device, i_block, 40)


def test_one_pointer_in_range_and_many() -> None:
    bounds = PointerBounds(1, BLOCKS, "inode 12")
    table = np.array([5, 0, BLOCKS, 0xFFFFFFFF, BLOCKS - 1], np.uint32)
    assert block_map_columns.inside(bounds, table).tolist() == [bounds.holds(block) for block in table.tolist()]


@given(st.lists(st.sampled_from([0, 0, 1, 2, 3, 7, 8, 9, 0xFFFFFFFE, 0xFFFFFFFF]), max_size=12))
def test_runs_of_a_table(blocks: list[int]) -> None:
    assert table_runs(array("I", blocks)) == group_runs((at, block) for at, block in enumerate(blocks) if block)


@pytest.mark.parametrize(("first", "count"), [(1, 1), (77, 12), (1, 16), (0xFFFFFFFF - 1023, 1024)])
def test_consecutive_pointers_are_one_run(first: int, count: int) -> None:
    table = consecutive(first, count)
    assert table.tolist() == list(range(first, first + count))
    assert table_runs(table) == [(0, first, count)]


def test_pointers_are_little_endian_on_every_host(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(1, 9))
    numbers = [0x04030201, 0x08070605]
    assert parse_pointers(data).tolist() == numbers
    monkeypatch.setattr(block_map.sys, "byteorder", {"little": "big", "big": "little"}[sys.byteorder])
    swapped = parse_pointers(data)
    assert swapped.tolist() == [0x01020304, 0x05060708]
    assert pack_pointers(swapped) == data
    assert swapped.tolist() == [0x01020304, 0x05060708]


@given(st.lists(st.sampled_from([0, 1, 9, 10, 11, 29, 30, 31, 32, 0xFFFFFFFF]), max_size=12), st.integers(1, 11))
def test_the_first_pointer_out_of_range_is_named(pointers: list[int], first: int) -> None:
    bounds = PointerBounds(first, 31, "inode 12")
    wrong = [at for at, pointer in enumerate(pointers) if pointer and not first <= pointer < 31]
    try:
        assert bounds.runs(array("I", pointers), "t", 3) == table_runs(array("I", pointers))
    except CorruptError as error:
        assert (error.field, error.got) == (f"t[{3 + wrong[0]}]", pointers[wrong[0]])
    else:
        assert not wrong


@pytest.mark.parametrize("slot", [13, 14])
def test_a_pointer_block_in_itself(slot: int) -> None:
    device = MemoryDevice(BLOCK * BLOCKS)
    device.write(300 * BLOCK, np.full(P, 300, "<u4").tobytes())
    i_block = [0] * 15
    i_block[slot] = 300
    with pytest.raises(CorruptError, match="used once"):
        read(device, i_block, map_limit(BLOCK))


def test_more_data_than_blocks() -> None:
    device = MemoryDevice(BLOCK * 40)
    i_block = write_map(device, dict.fromkeys(range(12 + 16 + 16), 3), 30)
    with pytest.raises(CorruptError, match="block map"):
        read(device, i_block, map_limit(BLOCK), end=40)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-2, 2), st.integers(1, 4)), max_size=12), st.integers(0, 40))
def test_extents_as_their_blocks(steps: list[tuple[int, int, int]], low: int) -> None:
    """Extents are joined where they continue each other; they are found and cut as if each block were one."""
    blocks: dict[int, int] = {}
    added, logical, physical = [], 0, 100
    for gap, jump, count in steps:
        logical, physical = logical + gap, physical + jump
        added.append((logical, physical, count))
        blocks.update((logical + step, physical + step) for step in range(count))
        logical, physical = logical + count, physical + count
    extents = Extents(added)
    assert list(extents) == [extents[at] for at in range(len(extents))] == group_runs(blocks.items())
    assert (extents.blocks, extents.end) == (len(blocks), max(blocks, default=-1) + 1)
    assert [extents.find(at) for at in range(70)] == [blocks.get(at) for at in range(70)]
    for high in range(low, low + 20):
        assert list(extents.cut(low, high)) == group_runs(item for item in blocks.items() if low <= item[0] < high)


def test_memory_of_a_fragmented_file() -> None:
    tracemalloc.start()
    try:
        extents = Extents((logical, 2 * logical + 1, 1) for logical in range(100_000))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(extents) == 100_000
    assert size < 100_000 * 20


class Contiguous(MemoryDevice):
    """Pointer blocks that lead to ever more blocks in a row, made when they are read."""

    def read(self, offset: int, size: int) -> bytes:
        block = offset // 4096
        if block == 1:
            return np.arange(2, 2 + size // 4, dtype="<u4").tobytes()
        return (5000 + (block - 2) * 1024 + np.arange(1024)).astype("<u4").tobytes()


def test_memory_of_a_large_map() -> None:
    """A map takes the memory of its runs, not of its blocks."""
    wanted = 12 + 1024 + 1024**2
    i_block = [0] * 13 + [1, 0]
    tracemalloc.start()
    try:
        found = read_block_map(Contiguous(0), i_block, block_size=4096, first=0, end=1 << 31, wanted=wanted, where="inode 12")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows(found) == [(12 + 1024, 5000, 1024**2)]
    assert peak < 1024**2 * 8
