"""Allocation: near the goal, in few runs, undone exactly; bitmaps as they lie on disk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext3.alloc.allocator import BlockAllocator, InodeAllocator
from ext3.errors import CorruptError, NoFreeInodesError, NoSpaceError
from ext3.format.bitmap import FREE, HELD, USED, GroupBitmap
from ext3.format.bitmap_columns import change_cells

GROUP = 256


def raw_bitmap(used: set[int], count: int = GROUP) -> bytes:
    bits = np.array([number in used for number in range(count)])
    return np.packbits(bits, bitorder="little").tobytes()


def blocks(*used: set[int], first: int = 1) -> BlockAllocator:
    """An allocator over groups of 256 blocks, those in the sets used."""
    return BlockAllocator(
        first=first,
        end=first + GROUP * len(used),
        per_group=GROUP,
        free_counts=[GROUP - len(one) for one in used],
        load=lambda group: GroupBitmap(raw_bitmap(used[group]), GROUP, f"group {group}"),
    )


def test_goal_first_then_behind_it_then_elsewhere() -> None:
    allocator = blocks({10, 11, 20}, set())
    assert allocator.allocate(3, 6) == [(6, 3)]
    assert allocator.allocate(3, 11) == [(13, 3)]  # 11 and 12 are in use
    assert allocator.allocate(8, 16) == [(16, 5), (22, 3)]
    assert allocator.allocate(1, 256) == [(256, 1)]
    assert allocator.allocate(2, 256) == [(1, 2)]
    assert allocator.allocate(300, 3)[0] == (3, 3)


def test_whole_runs_before_pieces() -> None:
    allocator = blocks(set(range(0, GROUP, 2)), set(range(0, GROUP, 2)), set())
    assert allocator.allocate(100, 1) == [(513, 100)]
    runs = allocator.allocate(200, 0)
    assert sum(count for _, count in runs) == 200
    assert max(count for _, count in runs) == 156


def test_goal_outside_is_the_first_block() -> None:
    for goal in (-5, 0, 10**12):
        assert blocks(set()).allocate(1, goal) == [(1, 1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, GROUP - 1)), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 1100), st.integers(0, 2)), max_size=20),
)
def test_counts_and_bitmaps_agree(used: list[set[int]], steps: list[tuple[int, int, int]]) -> None:
    """After any steps: nothing handed out twice, counts right, undo exact, what was given back not handed out."""
    allocator = blocks(*used)
    mine: set[int] = set()
    held: set[int] = set()
    taken = {1 + group * GROUP + index for group, one in enumerate(used) for index in one}
    for count, goal, what in steps:
        available = allocator.available
        if count > available:
            with pytest.raises(NoSpaceError):
                allocator.allocate(count, goal)
            assert allocator.available == available
            continue
        runs = allocator.allocate(count, goal)
        got = {block for first, length in runs for block in range(first, first + length)}
        assert len(got) == count == sum(length for _, length in runs)
        assert not got & (mine | taken | held)
        if what == 1:
            allocator.undo_allocate(runs)
        elif what == 2:
            allocator.free(runs)
            held |= got
        else:
            mine |= got
    assert allocator.total_free == GROUP * len(used) - len(taken) - len(mine)
    assert allocator.total_held == len(held)
    for group, one in enumerate(used):
        on_disk = np.unpackbits(np.frombuffer(allocator.bitmap(group).pack(), np.uint8), bitorder="little")
        start = 1 + group * GROUP
        want = one | {block - start for block in mine if 0 <= block - start < GROUP}
        assert set(np.flatnonzero(on_disk[:GROUP]).tolist()) == want
        assert on_disk[GROUP:].all()
        assert allocator.free_counts[group] == GROUP - len(want)
    allocator.release()
    if allocator.available:
        assert sum(length for _, length in allocator.allocate(allocator.available, 0)) == GROUP * len(used) - len(taken | mine)


def test_free_across_groups_and_undo() -> None:
    allocator = blocks(set(), set(), set())
    runs = allocator.allocate(600, 0)
    assert runs == [(1, 600)]
    allocator.free(runs)
    assert allocator.available == 768 - 600
    allocator.undo_free(runs)
    assert allocator.total_held == 0
    assert allocator.total_free == 168
    with pytest.raises(CorruptError):
        allocator.free([(1, 601)])
    assert allocator.total_free == 168
    assert allocator.held == {0: 0, 1: 0, 2: 0}
    for bad in ([(0, 1)], [(768, 2)], [(5, 0)]):
        with pytest.raises(CorruptError):
            allocator.free(bad)


def test_group_with_a_wrong_count_gives_nothing() -> None:
    allocator = blocks(set(), {1})
    allocator.free_counts[1] = 256
    allocator.total_free += 1
    with pytest.raises(CorruptError, match="bg_free_blocks_count"):
        allocator.allocate(300, 0)
    assert allocator.free_counts == [256, 256]
    assert allocator.bitmap(0).free == 256


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=4, max_size=8), st.integers(25, 32), st.lists(st.tuples(st.integers(0, 31), st.integers(1, 9))))
def test_bitmap_is_packed_as_it_lies_on_disk(raw: bytes, count: int, steps: list[tuple[int, int]]) -> None:
    """Only what changed is packed again; bits behind the last cell are set whatever was there."""
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    bits[count:] = 1
    bitmap = GroupBitmap(raw, count, "here")
    for start, length in [(0, 0), *steps]:
        end = min(count, start + length)
        before = int(bits[start]) if start < count else FREE
        if start < end and (bits[start:end] == before).all():
            bitmap.change(start, end - start, before, 1 - before)
            bits[start:end] = 1 - before
        assert bitmap.pack() == np.packbits(bits, bitorder="little").tobytes()
        assert bitmap.cells == bits[:count].tobytes()
    index = np.flatnonzero(bits[:count] == FREE)[::-2]
    change_cells(bitmap, index, FREE, USED)
    bits[index] = USED
    assert bitmap.pack() == np.packbits(bits, bitorder="little").tobytes()
    if len(index):
        with pytest.raises(CorruptError, match="used"):
            change_cells(bitmap, index, FREE, USED)


def test_bitmap() -> None:
    bitmap = GroupBitmap(raw_bitmap({0, 1, 2}, 12), 12, "here")
    assert bitmap.pack() == b"\x07\xf0"
    assert bitmap.free_runs() == [(3, 9)]
    bitmap.change(5, 2, FREE, USED)
    bitmap.change(5, 1, USED, HELD)
    assert bitmap.pack() == b"\x47\xf0"
    assert bitmap.free_runs() == [(3, 2), (7, 5)]
    assert (bitmap.find(3), bitmap.find(1, 5), bitmap.find(2, 11), bitmap.find(6)) == (7, 7, 3, -1)
    assert (bitmap.free_run(3, 9), bitmap.free_run(5, 1), bitmap.free_run(7, 99), bitmap.free_run(12, 4)) == (2, 0, 5, 0)
    for start, count in ((4, 2), (11, 2)):
        with pytest.raises(CorruptError):
            bitmap.change(start, count, FREE, USED)


def inodes(free: list[int], dirs: list[int], used: list[set[int]]) -> InodeAllocator:
    return InodeAllocator(
        per_group=64,
        first_ino=11,
        free_counts=free,
        dirs=dirs,
        blocks=blocks(*[set() for _ in free]),
        load=lambda group: GroupBitmap(raw_bitmap(used[group], 64), 64, f"group {group}"),
    )


def test_files_lie_beside_their_directory() -> None:
    allocator = inodes([54, 64, 64], [2, 0, 0], [set(range(10)), set(), set()])
    assert allocator.allocate(2, is_dir=False, top_level=False) == 11
    assert allocator.allocate(65, is_dir=False, top_level=False) == 65
    for _ in range(53):
        allocator.allocate(2, is_dir=False, top_level=False)
    assert allocator.allocate(2, is_dir=False, top_level=False) == 66


def test_directories_spread() -> None:
    allocator = inodes([54, 64, 64], [2, 0, 0], [set(range(10)), set(), set()])
    top = [allocator.allocate(2, is_dir=True, top_level=True) for _ in range(4)]
    assert {(ino - 1) // 64 for ino in top} == {1, 2}
    below = allocator.allocate(130, is_dir=True, top_level=False)
    assert (below - 1) // 64 == 2
    assert allocator.dirs == [2, 2, 3]


def test_last_inode_and_back() -> None:
    allocator = inodes([0, 1], [0, 0], [set(range(64)), set(range(63))])
    assert allocator.allocate(2, is_dir=True, top_level=True) == 128
    with pytest.raises(NoFreeInodesError):
        allocator.allocate(2, is_dir=False, top_level=False)
    allocator.free(128, is_dir=True)
    assert (allocator.dirs, allocator.free_counts) == ([0, 0], [0, 1])
    for ino in (0, 10, 129):
        with pytest.raises(CorruptError):
            allocator.free(ino, is_dir=False)
