"""The list of bad blocks when a filesystem shrinks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import ext3
from ext3.check.census_taking import take_census
from ext3.device.base import BlockDevice, MemoryDevice
from ext3.errors import JournalFullError, NeedsCheckError
from ext3.format.block_map import BlockMap
from ext3.resize import apply, prepare
from ext3.resize.bad_blocks import BadBlocks, read_bad_blocks, write_bad_blocks
from ext3.resize.preconditions import open_for_resize
from ext3.resize.transactions import Transactions

from ....support.recorded_edits import state
from ....support.resizes import aged_image, cuts, findings_of, judge_cut, record_resize
from ....support.sessions import clock

MIB = 1 << 20
END = 16 * MIB // 1024


def _read(device: BlockDevice) -> BlockMap:
    fs = ext3.Filesystem(device)
    return read_bad_blocks(device, fs.superblock, fs.groups)


def _listed(device: MemoryDevice) -> tuple[list[int], list[int]]:
    """Blocks and pointer blocks of the list."""
    found = _read(device)
    return [block for _, start, count in found.extents for block in range(start, start + count)], found.indirect


def _image() -> tuple[MemoryDevice, list[int]]:
    """An image with 700 bad blocks, some of them beyond END, as all pointer blocks but the first; and those that stay."""
    device = aged_image(20 * MIB, files=20)
    opened = open_for_resize(device)
    free = np.flatnonzero(~take_census(ext3.Filesystem(device)).census.used)
    low, high = free[free < END], free[free >= END]
    blocks = np.concatenate([low[:300:2], high[:400], low[1:301:2]])
    pointers = np.array([low[400], *high[-4:]])[:4]
    changes = Transactions(device, opened, clock=clock)
    nothing: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    changes.take_blocks(blocks)
    write_bad_blocks(changes, BadBlocks(blocks, pointers, pointers, nothing))
    changes.close()
    assert not findings_of(device)
    assert _listed(device) == (blocks.tolist(), pointers.tolist())
    return device, [*low[:300:2].tolist(), *low[1:301:2].tolist()]


def test_a_long_list_cut_anywhere() -> None:
    """Pointer blocks beyond the new end are replaced; the list is the old one or the new one."""
    device, left = _image()
    content, before = state(device), _listed(device)
    image, events = record_resize(device, END * 1024)
    assert not findings_of(device)
    blocks, pointers = _listed(device)
    assert (blocks, len(pointers)) == (left, 3)
    assert before[1][0] in pointers
    seen = set()
    for _, cut in list(cuts(image, events, seed=1))[::3]:
        judge_cut(cut, {content})
        seen.add(len(_read(cut).indirect))
    assert seen == {3, 4}


def test_another_list_than_was_planned_for() -> None:
    device, _ = _image()
    plan = prepare(device).plan(END * 1024)
    assert plan.moves is not None and plan.moves.bad_blocks is not None
    other = MemoryDevice(bytes(device.data))
    changes = Transactions(other, open_for_resize(other), clock=clock)
    nothing: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    found = _read(other)
    freed = np.concatenate([plan.moves.bad_blocks.freed, [found.indirect[0]]])
    kept = plan.moves.bad_blocks.blocks[:10]
    write_bad_blocks(changes, BadBlocks(kept, nothing, nothing, np.concatenate([freed, plan.moves.bad_blocks.blocks[10:]])))
    changes.close()
    assert not findings_of(other)
    before = bytes(other.data)
    with pytest.raises(NeedsCheckError, match="planned for"):
        apply(other, plan, clock=clock)
    assert other.data == before


def test_a_list_too_large_for_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    device, _ = _image()
    plan = prepare(device).plan(END * 1024)
    before = bytes(device.data)
    monkeypatch.setattr(Transactions, "capacity", 7)
    with pytest.raises(JournalFullError):
        apply(device, plan, clock=clock)
    assert device.data == before
