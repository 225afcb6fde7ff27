"""Plans: what moves where, the smallest size, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.resize import Prepared, minimum_size, plan, prepare
from ext3.resize.move_plan import _FreeRuns

from ....support.resizes import aged_image, resize

MIB = 1 << 20


@pytest.fixture(scope="module")
def image() -> MemoryDevice:
    return aged_image(20 * MIB, files=40)


@pytest.fixture(scope="module")
def ready(image: MemoryDevice) -> Prepared:
    return prepare(image)


def test_least_size_is_exact(ready: Prepared) -> None:
    least = ready.minimum()
    assert least == minimum_size(ready.superblock, ready.groups, ready.census)
    found = plan(ready.superblock, ready.groups, least.blocks, census=ready.census)
    assert found.new.blocks == least.blocks
    left = int(np.count_nonzero(~ready.census.used[: least.blocks])) - len(found.moves.block_to) - len(found.moves.journal_to)
    assert left == 0 or found.new.columns.group_blocks[-1] < found.new.columns.group_overhead[-1] + 60
    assert 0 < least.content_blocks + least.journal_blocks < least.blocks
    assert least.size_bytes == least.blocks * 1024
    for blocks in (least.blocks - 1, 100, 1, 0):
        with pytest.raises(ext3.TooSmallError) as caught:
            plan(ready.superblock, ready.groups, blocks, census=ready.census)
        error = caught.value
        assert (error.kind, error.field, error.least) == ("too-small", "size", least.size_bytes)
        assert (error.content_bytes, error.journal_bytes) == (least.content_blocks * 1024, least.journal_blocks * 1024)


def test_what_moves(ready: Prepared) -> None:
    census = ready.census
    found = ready.plan(ready.minimum().size_bytes + 100 * 1024)
    new = found.new
    moved = np.concatenate([found.moves.block_from, found.moves.journal_from])
    assert (np.sort(moved) == new.blocks + np.flatnonzero((census.used & ~census.system)[new.blocks :])).all()
    taken = np.concatenate([found.moves.block_to, found.moves.journal_to])
    assert len(np.unique(taken)) == len(taken) == len(moved)
    assert not census.used[taken].any()
    assert int(taken.max()) < new.blocks
    assert (found.moves.inode_from > new.inodes).all()
    assert len(found.moves.inode_from) == np.count_nonzero(census.mode[new.inodes + 1 :])
    assert (census.mode[found.moves.inode_to] == 0).all()
    assert int(found.moves.inode_to.min()) >= 11
    assert int(found.moves.inode_to.max()) <= new.inodes
    assert found.moves.any
    assert found.moved_bytes == len(moved) * 1024


def test_growth_needs_no_census(image: MemoryDevice) -> None:
    ready = prepare(image)
    found = ready.plan(40 * MIB)
    assert found.new.blocks > found.old.blocks and found.moves is None
    assert ready._census is None
    assert ready.plan(20 * MIB).nothing
    with pytest.raises(ValueError, match="census"):
        plan(ready.superblock, ready.groups, 15 * 1024)


def test_destinations_are_in_few_runs() -> None:
    used = np.ones(100, np.bool_)
    for low, high in ((3, 5), (10, 40), (50, 52), (60, 70)):
        used[low:high] = False
    free = _FreeRuns(used)
    assert free.take(35).tolist() == [*range(10, 40), *range(60, 65)]
    assert free.take(0).tolist() == []
    assert free.take(9).tolist() == [3, 4, 50, 51, *range(65, 70)]
    with pytest.raises(ValueError, match="more blocks"):
        free.take(1)


def test_long_columns_are_looked_at_in_pieces(image: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same result as at once."""
    ready = prepare(image)
    size = ready.minimum().size_bytes + 100 * 1024
    whole = ready.plan(size)
    monkeypatch.setattr("ext3.check.census.PIECE_ROWS", 100)
    again = prepare(image)
    assert again.minimum() == ready.minimum()
    found = again.plan(size)
    for name in ("block_from", "journal_from", "inode_from", "inode_to"):
        assert getattr(found.moves, name).tolist() == getattr(whole.moves, name).tolist()
    taken = np.concatenate([found.moves.block_to, found.moves.journal_to])
    assert len(np.unique(taken)) == len(taken) == len(found.moves.block_from) + len(found.moves.journal_from) > 0
    assert not again.census.used[taken].any()


def test_memory_for_a_large_filesystem(tmp_path: Path) -> None:
    """The columns of the census, and little more: what is not in use takes no memory in them."""
    path = tmp_path / "image"
    ext3.mkfs(path, 160 * MIB, block_size=4096, inode_ratio=4096)
    with path.open("r+b") as file:
        device = ext3.FileDevice(file.fileno())
        resize(device, 64 << 30)
        tracemalloc.start()
        try:
            ready = prepare(device)
            ready.plan(ready.minimum().size_bytes)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        blocks, inodes = ready.superblock.blocks_count, ready.superblock.inodes_count
    assert blocks > 16_000_000 and inodes > 10_000_000
    # used, shared, system, owner, which pointer blocks were read; mode, links, names, parents and '..'
    assert peak < (3 + 4 + 1) * blocks + (2 + 2 + 4 + 4 + 4) * inodes + 24 * MIB
