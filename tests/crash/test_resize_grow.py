"""Growth, interrupted anywhere: a sound filesystem of the old size or of the new one, with the same files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ..support.recorded_edits import state
from ..support.resizes import aged_image, cuts, judge_by_e2fsck, judge_cut, made_by_mke2fs, record_resize
from ..support.tools import find

MIB = 1 << 20
CASES = {
    "inside the reserve": (["-b", "1024"], 9 * MIB, 26 * MIB, True),
    "more descriptor blocks": (["-b", "1024", "-g", "1024", "-N", "600"], 9 * MIB, 34 * MIB, True),
    "beyond the reserve": (["-b", "1024", "-g", "512", "-N", "600", "-E", "resize=20000"], 9 * MIB, 34 * MIB, False),
    "without a resize inode": (["-b", "1024", "-g", "1024", "-N", "600", "-O", "^resize_inode"], 9 * MIB, 34 * MIB, False),
    "large blocks": (["-b", "4096", "-g", "1024", "-N", "600"], 18 * MIB, 30 * MIB, True),
}


@pytest.mark.parametrize("name", CASES)
def test_growth_cut_anywhere(name: str, tmp_path: Path) -> None:
    options, before_size, size, keeps_inode = CASES[name]
    device = made_by_mke2fs(tmp_path / "image", options, before_size)
    whole = {state(device)}
    before, events = record_resize(device, size)
    assert state(device) in whole
    seen, chosen = set(), random.Random(1)
    for number, (_, left) in enumerate(cuts(before, events, seed=1)):
        if number and chosen.random() < 0.6:
            continue
        if number % 5 == 0 and find("e2fsck"):
            assert judge_by_e2fsck(left, tmp_path / "left") in whole
        seen.add(judge_cut(left, whole))
    seen.add(judge_cut(left, whole))  # the last, also if it was passed over
    sizes = {blocks for blocks, _ in seen}
    assert len(sizes) == 2, seen
    if keeps_inode:
        assert {inode for _, inode in seen} == {True}
    else:
        assert (max(sizes), True) not in seen


def test_growth_of_an_image_of_ours(tmp_path: Path) -> None:
    device = aged_image(8 * MIB)
    whole = {state(device)}
    before, events = record_resize(device, 9 * MIB + 5000)
    for _, left in cuts(before, events, seed=1):
        judge_cut(left, whole)
