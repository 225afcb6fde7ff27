"""Context of a check: how faults are counted, blocks and inodes handed out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.errors import NoSpaceError
from ext3.fsck.context import CheckOptions, Context, GaveUp
from ext3.fsck.finding import Finding, Report
from ext3.fsck.policy import Ask, CheckOnly, Policy, Preen, Stopped, Yes
from ext3.fsck.problem import Place, PreenAnswer, Problem
from ext3.fsck.storage import RepairStorage

SAFE = Problem("safe", "inode {ino}: {got}, want {want}", preen=PreenAnswer.REPAIR)
GRAVE = Problem("grave", "block {block} of {name}")
SKIPPED = Problem("skipped", "left alone", preen=PreenAnswer.SKIP)
EXCUSED = Problem("excused", "does not matter", preen=PreenAnswer.REPAIR, excused=True)
NOTE = Problem("note", "by the way", note=True)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("context") / "image"
    ext3.mkfs(path, 4 << 20)
    return path.read_bytes()


def context_of(data: bytes, policy: Policy) -> Context:
    stamp = ext3.Stamp(1_700_000_000, bytes(16), bytes(16))
    return Context(RepairStorage(MemoryDevice(data), 1024), policy, Report(), stamp, CheckOptions())


@pytest.fixture
def context(pristine: bytes) -> Iterator[Context]:
    found = context_of(pristine, Yes())
    found.census.mark_system(found.superblock, found.groups)
    yield found


@pytest.mark.parametrize(
    ("policy", "problem", "repair", "left", "corrected", "code"),
    [
        (CheckOnly(), SAFE, True, 1, 0, 4),
        (CheckOnly(), EXCUSED, True, 0, 0, 0),
        (Yes(), GRAVE, True, 0, 1, 1),
        (Preen(), SAFE, True, 0, 1, 1),
        (Preen(), SKIPPED, False, 1, 0, 4),
        (Ask(lambda finding: False), SAFE, False, 1, 0, 4),
        (Ask(lambda finding: True), GRAVE, True, 0, 1, 1),
        (Yes(), NOTE, True, 0, 0, 0),
        (Preen(), NOTE, True, 0, 0, 0),
    ],
)
def test_faults_are_counted_by_policy(
    pristine: bytes, policy: Policy, problem: Problem, repair: bool, left: int, corrected: int, code: int
) -> None:
    context = context_of(pristine, policy)
    assert context.fix(problem, Place(ino=3)) is repair
    report = context.report
    assert (report.left, report.corrected, report.exit_code, report.count) == (left, corrected, code, 1)


def test_preening_stops_at_a_fault_that_is_not_safe(pristine: bytes) -> None:
    context = context_of(pristine, Preen())
    with pytest.raises(Stopped) as caught:
        context.fix(GRAVE, Place(block=7, name=b"a\xff/"))
    assert caught.value.finding.problem is GRAVE


def test_messages_hold_the_facts() -> None:
    assert Finding(SAFE, Place(ino=12), 1, 2).message == "inode 12: 1, want 2"
    assert Finding(GRAVE, Place(block=7, name=b"a\xff")).message == "block 7 of a\\xff"
    assert Finding(GRAVE, Place()).message == "block ? of ?"


def test_cancelled_and_stopped_make_the_exit_code() -> None:
    report = Report(corrected=2, cancelled=True)
    assert report.exit_code == 33
    report.stopped = Finding(GRAVE, Place())
    assert report.exit_code == 36


def test_blocks_are_allocated_near_the_goal_and_never_from_those_just_freed(context: Context) -> None:
    used = context.census.used
    free = np.flatnonzero(~used)
    goal = int(free[100])
    assert context.allocate(3, goal) == [(goal, 3)]
    assert used[goal : goal + 3].all()
    assert context.allocated == {goal, goal + 1, goal + 2}
    taken = int(free[0])
    used[taken] = True
    context.free([(taken, 1)])
    assert not used[taken] and context.freed == {taken}
    assert context.allocate_block() == taken + 1
    context.free([(goal, 1)])
    assert goal not in context.allocated and goal not in context.freed


def test_a_shared_block_stays_in_use(context: Context) -> None:
    block = int(np.flatnonzero(~context.census.used)[5])
    context.census.claim(np.array([block, block]))
    assert context.census.any_shared
    context.free([(block, 1)])
    assert context.census.used[block]


def test_allocation_wraps_and_fails_without_a_trace(context: Context) -> None:
    used = context.census.used
    used[:] = True
    used[[1000, 2000, 2001]] = False
    with pytest.raises(NoSpaceError):
        context.allocate(4, 1500)
    assert not context.allocated
    assert context.allocate(3, 1500) == [(2000, 2), (1000, 1)]


def test_inodes_are_allocated_from_the_first_that_is_not_reserved(context: Context) -> None:
    context.census.mode[11] = 0o40755
    assert context.allocate_inode(0o100644) == 12
    assert context.inodes_allocated == {12}
    context.free_inode(12)
    context.free_inode(11)
    assert (context.inodes_allocated, context.inodes_freed) == (set(), {11})
    context.census.mode[11:] = 1
    with pytest.raises(GaveUp):
        context.allocate_inode(0o100644)


def test_descriptors_and_superblock_are_written_through_the_storage(context: Context, tmp_path: Path) -> None:
    context.groups["bg_free_blocks_count"][0] = 77
    context.write_groups()
    context.set_superblock(s_free_blocks_count=77)
    assert context.superblock.free_blocks == 77
    context.storage.flush(final=True)
    path = tmp_path / "image"
    path.write_bytes(context.storage.base.read(0, context.storage.size))
    with ext3.Filesystem.open(path) as fs:
        assert (fs.superblock.free_blocks, int(fs.groups["bg_free_blocks_count"][0])) == (77, 77)
