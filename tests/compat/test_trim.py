"""Trimmed images as e2fsck, debugfs and the kernel see them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.sif import SIF

from ..support.tools import kernel_mount, require, run

pytestmark = pytest.mark.compat

MIB = 1 << 20


def make(tmp_path: Path) -> dict[str, bytes]:
    """An image with files removed between those that stay; what stays, by name."""
    source = tmp_path / "source"
    source.mkdir()
    kept = {}
    for number in range(40):
        content = os.urandom(200_000 + number * 1000)
        (source / f"f{number}").write_bytes(content)
        if number % 3:
            kept[f"f{number}"] = content
    assert main(["-q", "overlay", "create", "--size", "32M", "--from-dir", str(source), str(tmp_path / "a.img")]) == 0
    gone = [f"{tmp_path}/a.img:/upper/f{number}" for number in range(0, 40, 3)]
    assert main(["-q", "rm", *gone]) == 0
    return kept


def check(image: Path, tmp_path: Path, kept: dict[str, bytes]) -> None:
    done = run("e2fsck", "-fn", image)
    assert done.returncode == 0 and b"Fix?" not in done.stdout and b"wrong" not in done.stdout
    out = tmp_path / "out"
    for name, content in kept.items():
        run("debugfs", "-R", f"dump /upper/{name} {out}", image)
        assert out.read_bytes() == content


def wait_for_mount(point: Path) -> None:
    for _ in range(100):
        if os.path.ismount(point):
            break
        time.sleep(0.05)


def test_e2fsck_and_debugfs(tmp_path: Path) -> None:
    require("e2fsck", "debugfs")
    kept = make(tmp_path)
    image = tmp_path / "a.img"
    before = os.stat(image).st_blocks
    assert main(["-q", "overlay", "trim", str(image)]) == 0
    assert os.stat(image).st_blocks * 512 <= before * 512 - 2 * MIB
    check(image, tmp_path, kept)


@pytest.mark.root
def test_a_journal_left_by_the_kernel(tmp_path: Path) -> None:
    """Taken from under a kernel mount: its journal is replayed first; what that removes is freed, the rest is there."""
    require("e2fsck", "debugfs")
    kept = make(tmp_path)
    image, copy = tmp_path / "a.img", tmp_path / "b.img"
    with kernel_mount(image, rw=True) as point:
        assert main(["-q", "overlay", "trim", str(image)]) == 1  # mounted
        (point / "upper/f1").unlink()
        (point / "upper/new").write_bytes(b"new" * 100_000)
        run("sync", "-f", point)
        copy.write_bytes(image.read_bytes())
    assert main(["-q", "overlay", "trim", str(copy)]) == 0
    del kept["f1"]
    check(copy, tmp_path, kept | {"new": b"new" * 100_000})
    assert os.stat(copy).st_blocks * 512 < 14 * MIB
    with kernel_mount(copy, rw=True) as point:
        assert all((point / "upper" / name).read_bytes() == content for name, content in kept.items())
        (point / "upper/more").write_bytes(os.urandom(8 * MIB))
    check(copy, tmp_path, kept)


@pytest.mark.root
def test_an_image_that_fuse2fs_serves(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """fuse2fs takes no lock; what it has mounted is neither trimmed nor edited."""
    require("fuse2fs", "fusermount3")
    make(tmp_path)
    image, point = tmp_path / "a.img", tmp_path / "point"
    point.mkdir()
    run("fuse2fs", image, point)
    try:
        wait_for_mount(point)
        before = os.stat(image).st_blocks
        capfd.readouterr()
        assert main(["-q", "overlay", "trim", str(image)]) == 1
        assert "(fuse2fs)" in capfd.readouterr().err
        assert main(["-q", "rm", f"{image}:/upper/f1"]) == 1
        assert os.stat(image).st_blocks == before
    finally:
        run("fusermount3", "-u", point)
    assert main(["-q", "overlay", "trim", "--wait", "60", str(image)]) == 0  # it still writes after the unmount
    done = run("e2fsck", "-fn", image)
    assert done.returncode == 0 and b"Fix?" not in done.stdout


def test_a_partition_that_fuse2fs_serves(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is not deleted under the mount, and the file is neither copied nor replaced; what is written arrives."""
    require("fuse2fs", "fusermount3", "e2fsck")
    make(tmp_path)
    image, sif, point = tmp_path / "a.img", tmp_path / "a.sif", tmp_path / "point"
    assert main(["-q", "sif", "new", str(sif)]) == 0
    assert main(["-q", "sif", "add", "--parttype", "overlay", str(sif), str(image)]) == 0
    with SIF.open(sif) as opened:
        offset = opened.get(1).offset
    point.mkdir()
    run("fuse2fs", sif, point, "-o", f"offset={offset}")
    try:
        wait_for_mount(point)
        capfd.readouterr()
        for argv in (["sif", "del", "1"], ["sif", "compact"], ["overlay", "detach", "--keep", "-o", str(tmp_path / "c.img")]):
            assert main(["-q", *argv, str(sif)]) == 1
            assert "(fuse2fs)" in capfd.readouterr().err
        (point / "upper" / "late").write_bytes(b"late")
    finally:
        run("fusermount3", "-u", point)
    assert main(["-q", "overlay", "detach", "--wait", "60", "-o", str(tmp_path / "c.img"), str(sif)]) == 0
    assert run("debugfs", "-R", "cat /upper/late", tmp_path / "c.img").stdout == b"late"
