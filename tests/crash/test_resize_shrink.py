"""Shrinking, interrupted anywhere: a sound filesystem of the old size or of the new one, with the same files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.progress import Progress
from ext3.resize import ResizePlan
from ext3.resize.block_moves import BlockMover

from ..support.recorded_edits import state
from ..support.resizes import aged_image, cuts, judge_by_e2fsck, judge_cut, late_journal, made_by_mke2fs, record_resize
from ..support.sessions import clock
from ..support.tools import find

MIB = 1 << 20


def _plan(device: MemoryDevice, size: int) -> ResizePlan:
    return ext3.resize.prepare(device).plan(size)


def _judge(device: MemoryDevice, size: int, scratch: Path, *, every: int, share: float = 1.0) -> None:
    """Shrink the image, and judge what is left after each write, or a ``share`` of them; by e2fsck some of it."""
    generator = random.Random(1)
    whole = {state(device)}
    old = ext3.Filesystem.open(device).superblock.geometry
    before, events = record_resize(device, size)
    assert {state(device)} == whole
    assert device.size == size
    seen = set()
    for number, (_, left) in enumerate(cuts(before, events, seed=1)):
        if share < 1 and number and generator.random() > share:
            continue
        if number % every == 0 and find("e2fsck"):
            assert judge_by_e2fsck(left, scratch / "left") in whole
        seen.add(judge_cut(left, whole))
    seen.add(judge_cut(left, whole))  # the last, also if it is none of the share
    assert {found for found, _ in seen} == {old.blocks, ext3.Filesystem.open(device).superblock.blocks_count}
    assert {inode for _, inode in seen} == {old.resize_inode}


@pytest.mark.parametrize(
    ("block_size", "inode_size", "size"), [(1024, 256, 18 * MIB), (1024, 128, 18 * MIB), (2048, 256, 36 * MIB)]
)
def test_moves_cut_anywhere(block_size: int, inode_size: int, size: int, tmp_path: Path) -> None:
    """Files, directories, pointer blocks and attribute blocks move, and inodes get new numbers."""
    device = aged_image(size, block_size=block_size, inode_size=inode_size, files=40)
    least = ext3.resize.prepare(device).minimum()
    plan = _plan(device, least.size_bytes)
    assert len(plan.moves.block_from) > 60
    assert len(plan.moves.inode_from) > 10 or block_size > 1024
    _judge(device, least.size_bytes, tmp_path, every=7, share=0.25)


def test_many_small_transactions_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction takes a few blocks, so that shared attribute blocks move in several."""
    device = aged_image(18 * MIB, files=40)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for number in range(40):
            fs.write_bytes(b"/second/shared%d" % number, b"")
            fs.set_xattr(b"/second/shared%d" % number, b"user.same", b"s" * 500)
    from ext3.resize.transactions import Transactions

    monkeypatch.setattr(Transactions, "capacity", 14)
    _judge(device, ext3.resize.prepare(device).minimum().size_bytes, tmp_path, every=10, share=0.1)


def test_maps_larger_than_a_transaction_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pointer blocks that move are changed in their old places first."""
    from ext3.resize.transactions import Transactions

    device = made_by_mke2fs(tmp_path / "image", ["-b", "1024", "-g", "256", "-N", "1000"], 12 * MIB)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/space", bytes(4 << 20))
        for number in range(400):
            fs.write_bytes("/large", b"l" * 3000 * number)
            fs.write_bytes("/other", b"o" * 2000 * number)
        fs.unlink("/space")
    monkeypatch.setattr(Transactions, "capacity", 12)
    plan = _plan(device, ext3.resize.prepare(device).minimum().size_bytes)
    assert len(plan.moves.block_from) > 500
    in_place = []

    def run(mover: BlockMover, progress: Progress) -> None:
        in_place.append(mover._in_place)
        move(mover, progress)

    move = BlockMover.run
    monkeypatch.setattr(BlockMover, "run", run)
    _judge(device, plan.new.size_bytes, tmp_path, every=15, share=0.1)
    assert in_place == [True]


@pytest.mark.parametrize("part", ["all", "some"])
def test_journal_moved_and_cut_anywhere(part: str, tmp_path: Path) -> None:
    device = late_journal(tmp_path / "image", 24 * MIB)
    size = 12 * MIB if part == "all" else 15 * MIB
    plan = _plan(device, size)
    journal = ext3.resize.prepare(device).minimum().journal_blocks
    assert (len(plan.moves.journal_from) == journal) if part == "all" else 10 < len(plan.moves.journal_from) < journal
    _judge(device, size, tmp_path, every=4, share=0.25)
