"""Reserved blocks as fuse2fs, e2fsck and the kernel have them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ext3 import Filesystem
from sifkit.cli import main
from sifkit.in_use import image_use
from sifkit.overlay.info import image_info
from sifkit.overlay.reserve import user_bytes
from sifkit.sif import SIF

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
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    assert main(["-q", "overlay", "tune", "--reserved-blocks", "1", "--label", "lab", "-U", uuid, str(image)]) == 0
    done = run("e2fsck", "-fn", image)
    assert done.returncode == 0 and b"Fix?" not in done.stdout
    told = run("dumpe2fs", "-h", image).stdout
    copy = run("dumpe2fs", "-h", "-o", "superblock=8193", "-o", "blocksize=1024", image).stdout
    for text in (told, copy):
        assert b"Reserved block count:     1\n" in text and b"Filesystem volume name:   lab\n" in text
        assert b"Filesystem UUID:          " + uuid.encode() in text


def test_a_partition_written_by_fuse2fs(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """fuse2fs writes superblock fields at byte 1024 of a SIF instead of its partition: check knows, and counts are right."""
    require("fuse2fs", "fusermount3", "e2fsck")
    overlay, sif, mounted = tmp_path / "a.img", tmp_path / "a.sif", tmp_path / "mounted"
    mounted.mkdir()
    assert main(["-q", "overlay", "create", "--size", "24M", str(overlay)]) == 0
    assert main(["-q", "sif", "new", str(sif)]) == 0
    assert main(["-q", "sif", "add", "--parttype", "overlay", str(sif), str(overlay)]) == 0
    with SIF.open(sif) as opened:
        offset = opened.descriptors[0].offset
    run("fuse2fs", sif, mounted, "-o", f"offset={offset}")
    try:
        for _ in range(100):
            if os.path.ismount(mounted):
                break
            time.sleep(0.05)
        (mounted / "upper/new").write_bytes(bytes(3 << 20))
        (mounted / "upper/other").write_bytes(b"x")
    finally:
        run("fusermount3", "-u", mounted)
    for _ in range(100):  # it writes after the unmount
        if not image_use(sif).busy:
            break
        time.sleep(0.05)
    with SIF.open(sif) as opened:
        (tmp_path / "part.img").write_bytes(opened.read(1))
    run("e2fsck", "-fy", tmp_path / "part.img", ok=(0, 1))
    with Filesystem.open(tmp_path / "part.img") as filesystem:
        want = filesystem.superblock
    found = image_info(sif)
    assert (found.free_bytes, found.inodes_free) == (want.free_blocks * 1024, want.free_inodes)
    capsysbinary.readouterr()
    assert main(["sif", "check", str(sif)]) == 0
    assert b"warning" not in capsysbinary.readouterr().out
    assert main(["-q", "sif", "check", "--repair", str(sif)]) == 0
    assert main(["--json", "sif", "check", str(sif)]) == 0
    assert b"misplaced-superblock" not in capsysbinary.readouterr().out
