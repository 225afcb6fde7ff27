"""Normalizations, interrupted anywhere: every mark is the old one or the new one, for every user.

What the container that wrote the overlay saw is seen at any time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import pytest

import ext3
from ext3.device.base import BlockDevice, MemoryDevice
from ext3.device.copy_on_write import Event, RecordingDevice, play
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.session import Session
from ext3.errors import JournalFullError
from sifkit.overlay.marks.normalizing import normalize_filesystem
from sifkit.overlay.view.tree_opening import upper_directory

from ..support.crashes import Recording
from ..support.image_checks import check_counts
from ..support.memory_tree import MemoryTree
from ..support.overlay_views import VIEWS, make_upper, random_base, random_upper, seen
from ..support.sessions import COMMIT_START, clock, empty_image

MIB = 1 << 20
SEEDS = (9, 17)
"""Layers in which the order of the steps matters: opaque directories with whiteouts, and with directories, in them."""
Views = dict[str, dict[bytes, Any]]


def views(fs: ext3.Filesystem, base: MemoryTree) -> Views:
    """What each mount shows, without whiteouts that are listed as names: between two steps there are such."""
    found = {view: seen(upper_directory(fs), base, view) for view in ("writer", *VIEWS)}
    return {view: {path: what for path, what in all_.items() if what[0] != "dead"} for view, all_ in found.items()}


def record(seed: int, *, has_base: bool) -> tuple[MemoryDevice, list[Event], MemoryTree, Views, Views]:
    """Normalize a random overlay. Return the image before, what was written, the base, and the views before and after."""
    chance = random.Random(seed)
    device = empty_image(2 * MIB)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        make_upper(fs, random_upper(chance))
    base = random_base(chance)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        old = views(fs, base)
        normalize_filesystem(fs, base if has_base else None)
    with ext3.Filesystem.open(device) as fs:
        return before, recorded.events, base, old, views(fs, base)


def check_cut(left: BlockDevice, base: MemoryTree, old: Views, new: Views) -> bool:
    """Recover what is left by an interruption, and judge it. Return whether it is neither the old nor the new state."""
    with ext3.Filesystem.open(left, "r+", clock=clock) as fs:
        found = views(fs, base)
    with ext3.Filesystem.open(left) as fs:
        check_counts(fs)
    assert found["writer"] == old["writer"] == new["writer"]
    for view in VIEWS:
        assert old[view].items() & new[view].items() <= found[view].items(), view
        assert found[view].items() <= old[view].items() | new[view].items(), view
    return found not in (old, new)


def after_every_commit(seed: int, *, has_base: bool) -> int:
    """Judge what is left after each commit. Return how many states are between the old and the new one."""
    before, events, base, old, new = record(seed, has_base=has_base)
    starts = [at for at, event in enumerate(events) if event.data[:8] == COMMIT_START]
    ends = [next(end for end in range(at, len(events)) if events[end].kind == "sync") for at in starts]
    return sum(check_cut(play(before, events[: end + 1]), base, old, new) for end in ends)


@pytest.mark.parametrize("has_base", [True, False], ids=["base", "no base"])
def test_each_directory_is_committed_by_itself(monkeypatch: pytest.MonkeyPatch, has_base: bool) -> None:
    monkeypatch.setattr(Session, "should_commit", True)
    assert sum(after_every_commit(seed, has_base=has_base) for seed in SEEDS) > 9


@pytest.mark.parametrize("has_base", [True, False], ids=["base", "no base"])
def test_each_name_is_committed_by_itself(monkeypatch: pytest.MonkeyPatch, has_base: bool) -> None:
    """As it is where the journal is too short for all names of a directory."""
    atomically = WritableFilesystem.atomically

    def refuse_many(self: WritableFilesystem, work: Callable[[], Any]) -> Any:
        if isinstance(work, partial) and len(work.args[0]) > 1:
            raise JournalFullError(2, 1)
        return atomically(self, work)

    monkeypatch.setattr(Session, "should_commit", True)
    monkeypatch.setattr(WritableFilesystem, "atomically", refuse_many)
    assert after_every_commit(17 if has_base else 9, has_base=has_base) > 9


@pytest.mark.slow
def test_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """After every write, and with writes lost, in another order, or torn."""
    with monkeypatch.context() as patch:
        patch.setattr(Session, "should_commit", True)
        before, events, base, old, new = record(3, has_base=True)
    cuts = islice(Recording(bytes(before.data), events, [], []).cuts(seed=7), 0, None, 3)
    assert sum(check_cut(left, base, old, new) for _, left in cuts) > 9
