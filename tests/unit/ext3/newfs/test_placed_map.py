"""Block maps that are written, read back by following the pointers by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3.format.geometry import plan_geometry
from ext3.format.indirect_blocks import dense_count
from ext3.newfs.free_space import FreeSpace
from ext3.newfs.placed_map import PlacedMap

GEOMETRY = plan_geometry(64 << 20, block_size=1024)
SPACE = FreeSpace(GEOMETRY)
POINTERS = 256


def _read(block_map: PlacedMap) -> dict[int, int]:
    """logical block -> block number, found by following the pointers; every indirect block must be used once."""
    blocks: dict[int, list[int]] = {}
    written = 0
    for position, rows in block_map.pack():
        for number, row in enumerate(rows):
            blocks[SPACE.block(position + number)] = row.tolist()
            written += 1
    assert written == len(blocks) == block_map.indirect
    found: dict[int, int] = {}
    used: set[int] = set()

    def follow(number: int, level: int, logical: int) -> None:
        if not number:
            return
        if level == 0:
            found[logical] = number
            return
        assert number not in used
        used.add(number)
        for slot, pointer in enumerate(blocks[number]):
            follow(pointer, level - 1, logical + slot * POINTERS ** (level - 1))

    i_block = block_map.pack_inode().tolist()
    for slot in range(12):
        follow(i_block[slot], 0, slot)
    for level, first in ((1, 12), (2, 12 + POINTERS), (3, 12 + POINTERS + POINTERS**2)):
        follow(i_block[11 + level], level, first)
    assert used == set(blocks)
    return found


@pytest.mark.parametrize("count", [0, 1, 11, 12, 13, 267, 268, 269, 270, 524, 525, 20000])
def test_dense_file(count: int) -> None:
    extents = [(0, 30000, count)] if count else []
    block_map = PlacedMap(SPACE, extents, 1000, POINTERS)
    assert block_map.indirect == dense_count(count, POINTERS)
    assert _read(block_map) == {logical: SPACE.block(30000 + logical) for logical in range(count)}


@pytest.mark.parametrize("logical", [0, 5, 12, 13, 267, 268, 66000, 12 + 256 + 65536, 500_000, 16_843_019])
def test_one_block_far_out(logical: int) -> None:
    assert _read(PlacedMap(SPACE, [(logical, 5, 1)], 1000, POINTERS)) == {logical: SPACE.block(5)}


@given(st.lists(st.tuples(st.integers(1, 70000), st.integers(1, 600)), min_size=1, max_size=40))
def test_extents_with_holes(steps: list[tuple[int, int]]) -> None:
    extents, logical, position = [], 0, 7000
    for gap, count in steps:
        logical += gap
        extents.append((logical, position, count))
        logical += count
        position += count
    want = {first + n: SPACE.block(at + n) for first, at, count in extents for n in range(count)}
    assert _read(PlacedMap(SPACE, extents, 50, POINTERS)) == want
