"""Signs of a resize that was interrupted, looked for whenever an image is opened for writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import CopyOnWriteDevice
from ext3.resize import prepare
from sifkit.overlay.edit.edit_session import edit_image
from sifkit.overlay.resizing.image_resize import resize
from sifkit.overlay.resizing.resize_request import ResizeOptions, ResizeTarget
from sifkit.overlay.resizing.unfinished_resize import finish_resize, may_be_unfinished

from .....support.recorded_edits import state
from .....support.resizes import aged_image, cuts, findings_of, record_resize, write_out

MIB = 1 << 20


def _grown(small: int, large: int) -> Callable[[], list[CopyOnWriteDevice]]:
    return lambda: _cuts(aged_image(small * MIB, files=10), large * MIB)


def _shrunk(size: int) -> list[CopyOnWriteDevice]:
    device = aged_image(size * MIB, files=30)
    return _cuts(device, prepare(device).minimum().size_bytes)


def _cuts(device: MemoryDevice, size: int) -> list[CopyOnWriteDevice]:
    """What is left of a resize, cut in some places."""
    before, events = record_resize(device, size)
    return [left for _, left in cuts(before, events, seed=3)][::5]


CASES = {
    "one group grows": _grown(6, 8),
    "one group becomes several": _grown(6, 20),
    "several groups grow": _grown(18, 40),
    "one group shrinks": lambda: _shrunk(8),
    "several groups shrink": lambda: _shrunk(18),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_is_seen(name: str) -> None:
    """Whatever a check would find, before and after it was finished."""
    seen = 0
    content = set()
    for left in CASES[name]():
        content.add(state(left))
        if [text for text in findings_of(left) if text.startswith("block-bitmap")]:
            seen += 1
            assert may_be_unfinished(left)
            finish_resize(left)
            assert not findings_of(left)
            assert not may_be_unfinished(left)
    assert seen
    assert len(content) == 1


def test_a_sound_filesystem_shows_no_sign() -> None:
    for size in (8, 20):
        assert not may_be_unfinished(aged_image(size * MIB, files=10))


@pytest.mark.parametrize("name", CASES)
def test_an_edit_finishes_it(name: str, tmp_path: Path) -> None:
    left = next(left for left in reversed(CASES[name]()) if findings_of(left))
    path = tmp_path / "image"
    write_out(left, path)
    with edit_image(path) as session:
        session.filesystem.chmod("/many", 0o700)
    assert not findings_of(MemoryDevice(path.read_bytes()))


@pytest.mark.parametrize("name", ["one group becomes several", "several groups shrink"])
def test_a_plan_is_that_of_the_finished_one(name: str, tmp_path: Path) -> None:
    """Nothing is written for it; the resize itself finishes the interrupted one first."""
    left = next(left for left in reversed(CASES[name]()) if findings_of(left))
    path = tmp_path / "image"
    write_out(left, path)
    before = path.read_bytes()
    planned = resize(path, ResizeOptions(target=ResizeTarget(size=44 * MIB), dry_run=True))
    assert path.read_bytes() == before
    done = resize(path, ResizeOptions(target=ResizeTarget(size=44 * MIB)))
    assert (planned.before, planned.after) == (done.before, done.after)
