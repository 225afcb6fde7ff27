"""Reserved blocks as fuse2fs, e2fsck and the kernel have them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ext3 import Filesystem
from sifkit.cli import main
from sifkit.overlay.reserve import user_bytes

from ..support.tools import require, run

pytestmark = [pytest.mark.compat, pytest.mark.root]


@pytest.mark.parametrize("percent", [None, "0", "5"])
def test_what_fuse2fs_leaves_to_a_user(tmp_path: Path, percent: str | None) -> None:
    require("fuse2fs", "fusermount3")
    image, mounted = tmp_path / "a.img", tmp_path / "mounted"
    mounted.mkdir()
    options = [] if percent is None else ["-m", percent]
    assert main(["-q", "overlay", "create", "--size", "24M", *options, str(image)]) == 0
    run("fuse2fs", image, mounted, "-o", "ro")
    try:
        for _ in range(100):
            found = os.statvfs(mounted)
            if found.f_bsize == 1024 or found.f_frsize == 1024:
                break
            time.sleep(0.05)
    finally:
        run("fusermount3", "-u", mounted)
    with Filesystem.open(image) as filesystem:
        known = filesystem.superblock
    assert found.f_bfree == known.free_blocks
    expected = user_bytes(blocks=known.blocks_count, free=known.free_blocks, reserved=known.reserved_blocks, block_size=1024)
    assert found.f_bavail * 1024 == expected


def test_a_tuned_image_is_clean(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    assert main(["-q", "overlay", "create", "--size", "24M", "-m", "0", str(image)]) == 0
    assert main(["-q", "overlay", "tune", "--reserved-blocks", "1", "--label", "lab", str(image)]) == 0
    done = run("e2fsck", "-fn", image)
    assert done.returncode == 0 and b"Fix?" not in done.stdout
    told = run("dumpe2fs", "-h", image).stdout
    assert b"Reserved block count:     1\n" in told and b"Filesystem volume name:   lab\n" in told
