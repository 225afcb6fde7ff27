"""Resizes that were interrupted: recognised, and finished."""

from __future__ import annotations

from pathlib import Path

import pytest

import ext3
from ext3.constants import RESIZE_INO, STATE_ERROR, Incompat
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import CopyOnWriteDevice, RecordingDevice, play
from ext3.errors import NeedsCheckError
from ext3.format.schema import GROUP_DESC, SUPERBLOCK
from ext3.format.superblock import read_superblock
from ext3.resize import finish, is_unfinished, prepare

from ....support.recorded_edits import state
from ....support.resizes import aged_image, cuts, findings_of, late_journal, record_resize, resize
from ....support.sessions import clock

MIB = 1 << 20


@pytest.fixture(scope="module", params=["grow", "shrink"])
def stages(request: pytest.FixtureRequest) -> list[CopyOnWriteDevice]:
    """What is left after each sync of a resize."""
    device = aged_image(20 * MIB, files=40)
    size = 40 * MIB if request.param == "grow" else prepare(device).minimum().size_bytes
    before, events = record_resize(device, size)
    ends = [number + 1 for number, event in enumerate(events) if event.kind == "sync"]
    return [play(MemoryDevice(before), events[:end]) for end in ends]


def test_every_stage_is_finished(stages: list[CopyOnWriteDevice]) -> None:
    unfinished = 0
    for left in stages:
        superblock = read_superblock(left)
        if not is_unfinished(left, superblock):
            assert superblock.clean
            continue
        unfinished += 1
        content = state(left)
        with pytest.raises(NeedsCheckError, match="to be replayed" if superblock.needs_recovery else "interrupted"):
            prepare(left)
        again = play(left, [])
        assert finish(again, clock=clock)
        assert not findings_of(again)
        assert state(again) == content
        assert read_superblock(again).geometry.resize_inode
        assert not finish(again, clock=clock)
        resize(again, 50 * MIB)
        assert not findings_of(again)
    assert unfinished > 2
    assert len(stages) - unfinished <= 2  # all but the first write, and the last


def test_every_cut_of_a_journal_that_moves_is_finished(tmp_path: Path) -> None:
    """With the journal in its old place, in its new one, and in both."""
    device = late_journal(tmp_path / "image", 24 * MIB)
    before, events = record_resize(device, 12 * MIB)
    whole = state(device)
    replayed = 0
    taken = [left for _, left in cuts(before, events, seed=2)][1:-2:4]
    unfinished = [left for left in taken if is_unfinished(left, read_superblock(left))]
    assert len(taken) - len(unfinished) <= 2  # the first write lost, or all written
    for left in unfinished:
        replayed += read_superblock(left).needs_recovery
        assert finish(left, clock=clock)
        assert not findings_of(left)
        assert state(left) == whole
        prepare(left).minimum()
    assert replayed > 5


@pytest.mark.slow
def test_interrupted_again_while_it_is_finished(stages: list[CopyOnWriteDevice]) -> None:
    for left in stages[::2]:
        superblock = read_superblock(left)
        if not is_unfinished(left, superblock) or not superblock.geometry.groups > 1:
            continue
        recorded = RecordingDevice(play(left, []))
        finish(recorded, clock=clock)
        ends = [number for number, event in enumerate(recorded.events) if event.kind == "sync"]
        for end in ends:
            once = play(left, recorded.events[:end])
            with ext3.Filesystem.open(once, "r+", clock=clock):
                pass  # the journal is replayed
            finish(once, clock=clock)
            assert not findings_of(once)
            assert read_superblock(once).geometry.resize_inode


@pytest.mark.parametrize("dirty", [False, True])
@pytest.mark.parametrize("damage", ["bitmap", "count"])
def test_damage_is_left_to_a_check(stages: list[CopyOnWriteDevice], damage: str, dirty: bool) -> None:
    """Blocks in use that are marked as free, or a wrong count of free blocks: nothing is written, and no journal replayed."""
    left = next(
        some for some in stages if is_unfinished(some, read_superblock(some)) and read_superblock(some).needs_recovery == dirty
    )
    broken = play(left, [])
    at = int(ext3.Filesystem(broken).groups["bg_block_bitmap"][1]) * 1024 + 20
    if damage == "count":
        at = 2048 + GROUP_DESC.size + GROUP_DESC.dtype.fields["bg_free_blocks_count"][1]
    broken.write(at, bytes([broken.read(at, 1)[0] ^ 0xFF]))
    recorded = RecordingDevice(broken)
    with pytest.raises(NeedsCheckError):
        finish(recorded, clock=clock)
    assert not recorded.events


def test_the_resize_inode_stays_dropped_where_its_blocks_were_used(stages: list[CopyOnWriteDevice]) -> None:
    """A check may have freed the reserved blocks, and somebody may have used them."""
    left = next(
        some for some in stages if not read_superblock(some).geometry.resize_inode and not read_superblock(some).needs_recovery
    )
    checked = play(left, [])
    before = left.read(8193 * 1024, 1024)
    ext3.fsck.check(checked, ext3.Preen(), options=ext3.CheckOptions(force=True))
    assert not findings_of(checked)
    checked.write(8193 * 1024, before)  # the old backup again, as if the check had not written it
    with ext3.Filesystem.open(checked, "r+", clock=clock) as fs:
        room = fs.superblock.free_blocks * 1024
        fs.write_bytes("/all", b"a" * (room - 200 * 1024))
    assert finish(checked, clock=clock)
    assert not findings_of(checked)
    superblock = read_superblock(checked)
    assert not superblock.geometry.resize_inode
    assert not any(ext3.Filesystem(checked).inode(RESIZE_INO).i_block)


def test_not_unfinished() -> None:
    device = aged_image(20 * MIB, files=10)
    assert not is_unfinished(device, read_superblock(device))
    assert not finish(device, clock=clock)
    small = aged_image(8 * MIB, files=10)
    before = bytes(small.data)
    assert not finish(small, clock=clock)
    assert small.data == before


def test_a_backup_of_another_filesystem_is_no_sign() -> None:
    device = aged_image(20 * MIB, files=10)
    device.data[8193 * 1024 + 0x68] ^= 0xFF  # s_uuid
    device.data[8193 * 1024 + 4] ^= 0xFF
    assert not is_unfinished(device, read_superblock(device))


def test_no_stale_backup_is_left_behind_one_group() -> None:
    device = aged_image(20 * MIB, files=4)
    resize(device, 8 * MIB)
    resize(device, 20 * MIB)
    plan = prepare(device).plan(8 * MIB)
    ext3.resize.apply(device, plan, clock=clock)  # the device stays as large as it was
    assert device.size == 20 * MIB
    assert not is_unfinished(device, read_superblock(device))
    assert not findings_of(device)


@pytest.mark.parametrize("way", ["grow", "shrink"])
def test_every_cut_in_one_group_is_finished(way: str) -> None:
    """It has no backup to tell of a resize: blocks that only the superblock counts as free do, and a journal to be replayed."""
    device = aged_image(6 * MIB, files=10) if way == "grow" else aged_image(8 * MIB, files=12)
    content = state(device)
    before, events = record_resize(device, 8 * MIB if way == "grow" else prepare(device).minimum().size_bytes)
    replayed = freed = 0
    for _, left in cuts(before, events, seed=1):
        superblock = read_superblock(left)
        assert not is_unfinished(left, superblock)
        leaks = [text for text in findings_of(left) if text.startswith("block-bitmap")]
        assert finish(left, clock=clock) == bool(leaks or superblock.needs_recovery)
        replayed += superblock.needs_recovery
        freed += bool(leaks)
        assert not findings_of(left)
        assert state(left) == content
        prepare(left)
    assert replayed > freed > 0


@pytest.mark.parametrize("damage", ["bitmap", "orphan", "error"])
def test_a_journal_of_a_damaged_group_is_left_to_a_check(damage: str) -> None:
    device = aged_image(8 * MIB, files=10)
    row = SUPERBLOCK.view(memoryview(device.data)[1024:2048])[0]
    row["s_feature_incompat"] |= int(Incompat.NEEDS_RECOVERY)
    if damage == "bitmap":
        device.data[int(ext3.Filesystem(device).groups["bg_block_bitmap"][0]) * 1024 + 20] = 0
    elif damage == "orphan":
        row["s_last_orphan"] = 12
    else:
        row["s_state"] |= STATE_ERROR
    before = bytes(device.data)
    assert not finish(device, clock=clock)
    assert device.data == before
    with pytest.raises(NeedsCheckError):
        prepare(device)


def test_wrong_counts_are_no_sign() -> None:
    device = aged_image(20 * MIB, files=10)
    row = SUPERBLOCK.view(memoryview(device.data)[1024:2048])[0]
    row["s_free_blocks_count"] += 7
    broken = bytes(device.data)
    assert not finish(device, clock=clock)
    prepare(device)
    groups = ext3.Filesystem(device).groups
    device.data[int(groups["bg_block_bitmap"][0]) * 1024 + 20] = 0
    assert not finish(device, clock=clock)
    assert sum(one != other for one, other in zip(device.data, broken, strict=True)) == 1


@pytest.mark.parametrize("number", [1 << 29, (1 << 32) - 1])
def test_numbers_beyond_their_limits(number: int) -> None:
    """They are found before anything of their size is made, also in a filesystem that looks unfinished."""
    device = aged_image(8 * MIB, files=10)
    row = SUPERBLOCK.view(memoryview(device.data)[1024:2048])[0]
    row["s_free_blocks_count"] += 7
    row["s_first_ino"] = number
    before = bytes(device.data)
    with pytest.raises(ext3.CorruptError, match="s_first_ino"):
        finish(device, clock=clock)
    assert device.data == before


def test_counts_of_a_filesystem_in_use_are_no_sign() -> None:
    """The kernel writes the counts of the superblock late."""
    device = aged_image(8 * MIB, files=10)
    row = SUPERBLOCK.view(memoryview(device.data)[1024:2048])[0]
    row["s_free_blocks_count"] += 7
    row["s_feature_incompat"] |= int(Incompat.NEEDS_RECOVERY)
    before = bytes(device.data)
    assert not finish(device, clock=clock)
    assert device.data == before
