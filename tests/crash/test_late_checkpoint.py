"""Commits that stay in the log, interrupted anywhere: what was synced is there, whatever became of its blocks since."""

from __future__ import annotations

import stat

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import CopyOnWriteDevice, RecordingDevice, play
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.superblock import read_superblock

from ..support.crashes import Recording, content_of, key_of
from ..support.edits import Edits
from ..support.facts import TreeFacts, assert_same, facts_of_image
from ..support.image_checks import check_counts
from ..support.operations import ImageTree, Outcome
from ..support.recorded_edits import record_random_edits, state, state_of
from ..support.sessions import clock, empty_image, record_session, session, shorten_log, signature


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "block_size", "log"), [("moves", 1024, 150), ("attributes", 4096, 90), ("orphans", 1024, 120)]
)
def test_cut_anywhere(kind: str, block_size: int, log: int) -> None:
    """Many commits between checkpoints, and a log that goes around several times."""
    recording = record_random_edits(kind, block_size, syncs=20, most=3, late_checkpoint=True, log_blocks=log)
    seen: dict[int, str] = {}
    for number, (happened, left) in enumerate(recording.cuts(seed=block_size)):
        if number % 5:
            continue
        key = key_of(left)
        if key not in seen:
            seen[key] = state(left)
        assert seen[key] in recording.allowed(happened)
        with ext3.Filesystem.open(left, "r+", clock=clock) as fs:
            assert state_of(fs) == seen[key]
        assert read_superblock(left).clean
        with ext3.Filesystem.open(left) as fs:
            check_counts(fs)
    assert len(set(seen.values())) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_steps_cut_anywhere(block_size: int) -> None:
    """Blocks that come and go in every transaction, as metadata and as data."""
    recording = record_session(block_size, 16, late_checkpoint=True, log_blocks=60)
    for happened, left in recording.cuts(seed=block_size):
        seen = signature(left)
        assert seen in recording.allowed(happened)
        with session(left) as edit:
            for group in range(edit.superblock.groups_count):
                edit.blocks.bitmap(group)
                edit.inodes.bitmap(group)
        assert read_superblock(left).clean
        assert signature(left) == seen


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_synced_is_there(seed: int) -> None:
    """Data is written over old data, also where that is in the log. After each sync the image is what the model is."""
    device = empty_image()
    shorten_log(device, 100)
    edits = Edits(seed, largest=20_000)
    starts = set()
    with WritableFilesystem(device, clock=clock, late_checkpoint=True) as fs:
        image = ImageTree(fs)
        for number in range(120):
            for _ in range(edits.chance.randrange(1, 4)):
                edits.step(image)
            fs.sync()
            if number % 4:
                continue
            left = MemoryDevice(bytes(device.data))
            with ext3.Filesystem.open(left) as found:
                edits.check(found)
                starts.add((found.journal_superblock() or {})["s_start"])
            with ext3.Filesystem.open(left, "r+", clock=clock) as found:
                edits.check(found)
            with ext3.Filesystem.open(left) as found:
                check_counts(found)
        edits.check(fs)
    assert len(starts) > 5
    with ext3.Filesystem.open(device) as found:
        edits.check(found)
        check_counts(found)
    assert edits.outcomes[Outcome.DONE] > 60


ON_ONE_PATH = {
    "mkdir", "create", "mknod", "unlink", "orphan", "rmdir", "write_bytes", "write", "append", "truncate", "punch", "chmod",
    "lchmod", "set_xattr", "remove_xattr",
}  # fmt: skip
"""Verbs that change what is at their first argument."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_cut_between_syncs(seed: int) -> None:
    """Wherever it is cut, files that nothing was done to since the last sync are as they were: nothing old comes back."""
    device = empty_image()
    shorten_log(device, 100)
    edits = Edits(seed, largest=20_000, verbs=ON_ONE_PATH, lengths=(10, 40))
    recorded = RecordingDevice(device)
    with WritableFilesystem(recorded, clock=clock, late_checkpoint=True) as fs:
        image = ImageTree(fs)
        before, facts = bytes(device.data), edits.model.facts()
        for number in range(60):
            touched = {edits.step(image)[1] for _ in range(edits.chance.randrange(1, 5))}
            fs.sync()
            if number % 3 == 0:
                recording = Recording(before, recorded.events, [facts], [(0, 0)])
                for cut, (_, left) in enumerate(recording.cuts(seed=number)):
                    if cut % 4 == number % 4:
                        _check_untouched(left, facts, touched)
            recorded.events = []
            before, facts = bytes(device.data), edits.model.facts()
        edits.check(fs)
    with ext3.Filesystem.open(device) as found:
        edits.check(found)


def _check_untouched(left: CopyOnWriteDevice, facts: TreeFacts, touched: set[bytes]) -> None:
    """Names beside ``touched`` have these ``facts``, after a recovery too, and every block is counted once."""
    expected = {path: fact for path, fact in facts.items() if path not in touched and not stat.S_ISDIR(fact.mode)}
    for mode in ("r", "r+"):
        with ext3.Filesystem.open(left, "r+", clock=clock) if mode == "r+" else ext3.Filesystem.open(left) as fs:
            assert fs.journal_problem is None
            found = facts_of_image(fs)
            assert_same({path: found[path] for path in expected}, expected)
    with ext3.Filesystem.open(left) as fs:
        check_counts(fs)


def test_cut_while_recovering() -> None:
    """Recovery of a log that goes around its end may be interrupted anywhere, and begun again."""
    recording = record_session(1024, 9, late_checkpoint=True, log_blocks=60)
    left = play(MemoryDevice(recording.before), recording.events[: recording.syncs[-1][0]])
    expected = signature(left)
    assert expected == recording.states[-1]
    with ext3.Filesystem.open(left) as fs:
        assert (fs.journal_superblock() or {})["s_start"] > 30
    before = content_of(left)
    recorded = RecordingDevice(left)
    with session(recorded) as edit:
        assert edit.replayed > 2
    again = Recording(before, recorded.events, [expected, expected], [(0, 0), (len(recorded.events), 1)])
    for _, torn in again.cuts(seed=3):
        assert signature(torn) == expected
        with session(torn):
            pass
        assert signature(torn) == expected
        assert read_superblock(torn).clean
