"""Content that takes the place of other content, in images with hardly enough room for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ext3
from ext3.edit.block_map_edit import BlockMapEditor
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.indirect_blocks import blocks_needed

from ....support.blocks import MemoryBlocks, count_blocks
from ....support.sessions import clock, empty_image

BLOCK = 1024
OWN = 5
"""Blocks of the file that is replaced."""


def with_room(blocks: int) -> WritableFilesystem:
    """An image with a file /old, and room for ``blocks`` blocks once that is gone."""
    device = empty_image(4 << 20, journal=False)
    fs = ext3.Filesystem.open(device, "r+", clock=clock)
    fs.write_bytes("/old", b"o" * OWN * BLOCK)
    fs.set_xattr("/old", b"trusted.big", b"x" * 800)
    fills = [fs.create(f"/fill{number}") for number in range(400)]
    while left := fs.superblock.free_blocks + OWN - blocks:
        fs.write_bytes(fills.pop(), b"f" * BLOCK * min(left, 12))
    assert fs.superblock.free_blocks + OWN == blocks
    return fs


@pytest.mark.slow
@pytest.mark.parametrize("by", ["bytes", "file"])
@pytest.mark.parametrize(("length", "needed"), [(12, 12), (13, 14), (268, 269), (269, 272), (524, 527), (525, 529)])
def test_what_does_not_fit_leaves_the_old_content(by: str, length: int, needed: int, tmp_path: Path) -> None:
    """One block decides: with it the new content is there, without it the old one."""
    new = b"n" * (length * BLOCK - 1)
    source = tmp_path / "source"
    source.write_bytes(new)
    for room in (needed - 1, needed):
        with with_room(room) as fs:
            try:
                if by == "bytes":
                    fs.write_bytes("/old", new)
                else:
                    with source.open("rb") as file:
                        fs.write_from("/old", file)
                fits = True
            except ext3.NoSpaceError as error:
                fits = False
                assert error.needed_bytes == needed * BLOCK
                assert error.available_bytes == room * BLOCK
            assert fits == (room == needed)
            assert fs.read_bytes("/old") == (new if fits else b"o" * OWN * BLOCK)
            assert fs.xattrs("/old") == {b"trusted.big": b"x" * 800}


PLACES = st.one_of(st.integers(0, 40), st.integers(250, 300), st.integers(65_700, 65_900), st.integers(0, 200_000))


@settings(deadline=None)
@given(st.lists(st.tuples(PLACES, st.integers(1, 600)), max_size=6), st.integers(0, BLOCK - 1))
def test_blocks_needed(parts: list[tuple[int, int]], rest: int) -> None:
    """As many as a block map takes that is made of the same parts."""
    blocks = MemoryBlocks(8000, block_size=BLOCK)
    mapping = BlockMapEditor(blocks, [0] * 15, first=blocks.first, end=blocks.end, where="inode 12")
    segments = []
    at = 0
    for skip, count in sorted(parts):
        low = max(at, skip)
        mapping.map(low, count, blocks.first)
        segments.append((low * BLOCK + rest, (low + count) * BLOCK))
        at = low + count - (rest % 2)  # sometimes in the block in which the one before ended
    assert blocks_needed(segments, BLOCK) == sum(count_blocks(mapping))
    assert blocks_needed([(5, 5)], BLOCK) == 0
