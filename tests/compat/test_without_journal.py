"""Edits of images without a journal that were interrupted, before e2fsck: it looks at them, and mends them."""

from __future__ import annotations

from pathlib import Path

from ext3.device.base import MemoryDevice

from ..support.crashes import content_of
from ..support.recorded_edits import is_valid, record_steps
from ..support.tools import assert_clean, run


def test_e2fsck_looks_at_what_is_not_in_order(tmp_path: Path) -> None:
    recording = record_steps(1024, journal=False)
    broken = [left for _, left in recording.cuts(seed=7) if not is_valid(left)]
    path = tmp_path / "cut.img"
    for left in broken[:: len(broken) // 12]:
        path.write_bytes(content_of(left))
        done = run("e2fsck", "-p", path, ok=range(16))
        assert b"was not cleanly unmounted" in done.stdout or b"contains a file system with errors" in done.stdout
        run("e2fsck", "-fy", path, ok=range(4))
        assert_clean(path)
        assert is_valid(MemoryDevice(path.read_bytes()))
