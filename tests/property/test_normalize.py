"""Random overlays, normalized: every user sees what the container that wrote the overlay saw."""

from __future__ import annotations

import random
from typing import Any

import pytest

import ext3
from ext3.device.base import MemoryDevice
from sifkit.overlay.marks.normalizing import normalize_filesystem
from sifkit.overlay.view.tree_opening import upper_directory
from sifkit.vfs.union import UnionTree
from sifkit.vfs.walk import walk

from ..support.image_checks import check_counts
from ..support.memory_tree import MemoryTree
from ..support.overlay_views import VIEWS, make_upper, random_base, random_upper, seen
from ..support.sessions import clock, empty_image

SEEDS = range(16)
MIB = 1 << 20


def make(seed: int) -> tuple[MemoryDevice, MemoryTree]:
    chance = random.Random(seed)
    device = empty_image(2 * MIB)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        make_upper(fs, random_upper(chance))
    return device, random_base(chance)


def alive(found: dict[bytes, Any]) -> dict[bytes, Any]:
    """A view without whiteouts that are listed as names: where nothing is below, only a base could say so."""
    return {path: what for path, what in found.items() if what[0] != "dead"}


def shown(fs: ext3.Filesystem, base: MemoryTree) -> set[bytes]:
    """The paths that our merged view shows."""
    union = UnionTree([base, upper_directory(fs)])
    return {b"/" + walked.path for walked in walk(union, union.root)}


def run(device: MemoryDevice, base: MemoryTree | None) -> bool:
    """Normalize; return whether something was changed. Directories keep their times."""
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        plan = normalize_filesystem(fs, base)
    assert not plan.problems
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)
        assert {fs.stat(entry.ino).mtime for _, entry in fs.walk("/upper") if fs.stat(entry.ino).is_dir} <= {10**18}
    return bool(plan.directories)


@pytest.mark.parametrize("seed", SEEDS)
def test_with_a_base_all_see_the_same(seed: int) -> None:
    device, base = make(seed)
    with ext3.Filesystem.open(device) as fs:
        before = seen(upper_directory(fs), base, "writer")
        assert shown(fs, base) == before.keys()
    run(device, base)
    with ext3.Filesystem.open(device) as fs:
        for view in VIEWS:
            assert seen(upper_directory(fs), base, view) == before, view
        assert shown(fs, base) == before.keys()
        names = [entry.name for _, entry in fs.walk("/upper")]
        assert not [name for name in names if name.startswith(b".wh.")]
    assert not run(device, base)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_base_root_and_writers_see_the_same(seed: int) -> None:
    device, base = make(seed)
    with ext3.Filesystem.open(device) as fs:
        before = seen(upper_directory(fs), base, "writer")
    run(device, None)
    with ext3.Filesystem.open(device) as fs:
        for view in ("user", "root"):
            assert alive(seen(upper_directory(fs), base, view)) == before, view
    assert not run(device, None)
    run(device, base)  # a base that becomes known later
    with ext3.Filesystem.open(device) as fs:
        for view in VIEWS:
            assert seen(upper_directory(fs), base, view) == before, view


def test_the_random_layers_differ_between_the_views() -> None:
    """The tests above would pass with layers that have nothing to change."""
    different = dict.fromkeys(VIEWS, 0)
    for seed in SEEDS:
        device, base = make(seed)
        with ext3.Filesystem.open(device) as fs:
            before = seen(upper_directory(fs), base, "writer")
            for view in VIEWS:
                different[view] += seen(upper_directory(fs), base, view) != before
    assert min(different["root"], different["read-only"]) > len(SEEDS) // 2 and different["user"], different
