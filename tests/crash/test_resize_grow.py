"""Growth, interrupted anywhere: a sound filesystem of the old size or of the new one, with the same files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ext3.device.base import MemoryDevice

from ..support.recorded_edits import state
from ..support.resizes import aged_image, cuts, judge_by_e2fsck, judge_cut, record_resize
from ..support.tools import find, run

MIB = 1 << 20
CASES = {
    "inside the reserve": (["-b", "1024"], 9 * MIB, 26 * MIB, True),
    "more descriptor blocks": (["-b", "1024", "-g", "1024", "-N", "600"], 9 * MIB, 34 * MIB, True),
    "beyond the reserve": (["-b", "1024", "-g", "1024", "-N", "600", "-E", "resize=20000"], 9 * MIB, 34 * MIB, False),
    "without a resize inode": (["-b", "1024", "-g", "1024", "-N", "600", "-O", "^resize_inode"], 9 * MIB, 34 * MIB, False),
    "large blocks": (["-b", "4096", "-g", "1024", "-N", "600"], 18 * MIB, 30 * MIB, True),
}


def _made(path: Path, options: list[str], size: int) -> MemoryDevice:
    """An image of mke2fs with files of ours."""
    import ext3

    from ..support.resizes import fill
    from ..support.sessions import clock

    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-J", "size=4" if "4096" in options else "size=1", *options, path)
    device = MemoryDevice(path.read_bytes())
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fill(fs, 1, files=30)
    return device


@pytest.mark.parametrize("name", CASES)
def test_growth_cut_anywhere(name: str, tmp_path: Path) -> None:
    options, before_size, size, keeps_inode = CASES[name]
    device = _made(tmp_path / "image", options, before_size)
    whole = {state(device)}
    before, events = record_resize(device, size)
    assert state(device) in whole
    seen = set()
    for number, (_, left) in enumerate(cuts(before, events, seed=1)):
        if number % 5 == 0 and find("e2fsck"):
            assert judge_by_e2fsck(left, tmp_path / "left") in whole
        seen.add(judge_cut(left, whole))
    sizes = {blocks for blocks, _ in seen}
    assert len(sizes) == 2, seen
    if keeps_inode:
        assert {inode for _, inode in seen} == {True}


def test_growth_of_an_image_of_ours(tmp_path: Path) -> None:
    device = aged_image(8 * MIB)
    whole = {state(device)}
    before, events = record_resize(device, 9 * MIB + 5000)
    for _, left in cuts(before, events, seed=1):
        judge_cut(left, whole)
