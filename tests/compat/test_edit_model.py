"""Long random edits of images of every shape mke2fs makes, most of the time full; e2fsck judges after each sync."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ext3

from ..support.crashes import content_of
from ..support.edits import Edits
from ..support.operations import ImageTree, Outcome
from ..support.random_operations import FULL_PHASES
from ..support.recorded_edits import KINDS, record_random_edits, state_of
from ..support.tools import assert_clean, fill_and_empty, kernel_mount, require, requires_root, run, why_no_mount

SHAPES = [
    ("-t", "ext2", "-r", "0", "-O", "none", "-b", "1024"),
    ("-t", "ext2", "-r", "0", "-O", "none", "-b", "4096", "-N", "64"),
    ("-t", "ext3", "-b", "1024", "-I", "128", "-O", "^filetype"),
    ("-t", "ext3", "-b", "1024", "-I", "256", "-N", "80"),
    ("-t", "ext3", "-b", "1024", "-I", "256", "-O", "meta_bg,^resize_inode", "-g", "1024"),
    ("-t", "ext3", "-b", "1024", "-I", "128", "-O", "^sparse_super,^resize_inode", "-g", "2048"),
    ("-t", "ext3", "-b", "2048", "-I", "256", "-N", "4000"),
    ("-t", "ext3", "-b", "2048", "-I", "128", "-O", "^dir_index,^ext_attr"),
    ("-t", "ext3", "-b", "4096", "-I", "256", "-N", "2000"),
    ("-t", "ext2", "-b", "4096", "-I", "128", "-N", "300"),
]


def made(path: Path, shape: tuple[str, ...], size: int = 8 << 20) -> int:
    """An empty image of a shape; its block size."""
    require("mke2fs", "e2fsck")
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-m", "0", *shape, path)
    with ext3.Filesystem.open(path) as fs:
        return fs.superblock.block_size


@pytest.mark.parametrize("shape", SHAPES, ids=" ".join)
def test_small_images_that_run_full(shape: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "model.img"
    block_size = made(path, shape, 16 << 20 if "4096" in shape and "ext3" in shape else 8 << 20)
    edits = Edits(len(" ".join(shape)), block_size=block_size, largest=150_000, phases=FULL_PHASES, lengths=(10, 60))
    for _ in range(6):
        with ext3.Filesystem.open(path, "r+") as fs:
            image = ImageTree(fs)
            for _ in range(60):
                edits.step(image)
            fs.sync()
            edits.check(fs)
            if not image.held:  # else they are in the orphan list, which e2fsck does not work off where it only looks
                assert_clean(path)
        assert_clean(path)
    with ext3.Filesystem.open(path) as fs:
        edits.check(fs)
        assert fs.superblock.revision == (0 if "-r" in shape else 1)
    assert edits.outcomes[Outcome.DONE] > 150


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_and_recovered_by_others(kind: str, tmp_path: Path) -> None:
    """What e2fsck and the kernel recover is the tree after some operation, and the image can be filled to the last block."""
    require("e2fsck")
    recording = record_random_edits(kind, 1024, syncs=7)
    judges = ["e2fsck"] if why_no_mount() else ["e2fsck", "kernel"]
    path = tmp_path / "cut.img"
    for number, (happened, left) in enumerate(recording.cuts(seed=3)):
        if number % 25 > 1:
            continue
        expected = recording.allowed(happened)
        for judge in judges:
            path.write_bytes(content_of(left))
            if judge == "e2fsck":
                run("e2fsck", "-fp", path, ok=(0, 1))
            else:
                with kernel_mount(path, rw=True) as point:
                    fill_and_empty(point)
            assert_clean(path)
            with ext3.Filesystem.open(path) as fs:
                assert state_of(fs) in expected, (number, judge)


@requires_root
def test_one_block_of_attributes_for_many(tmp_path: Path) -> None:
    """No more than 1024 inodes share an attribute block; the kernel reads them, shares on and parts some, and so do we."""
    path = tmp_path / "shared.img"
    made(path, ("-t", "ext3", "-b", "1024", "-I", "128", "-N", "3000"), 16 << 20)
    value = b"the same value for everyone" * 9
    with ext3.Filesystem.open(path, "r+") as fs:
        for number in range(1030):
            fs.set_xattr(fs.create(b"/%d" % number), b"user.x", value)
        blocks = {fs.stat(b"/%d" % number).file_acl for number in range(1030)}
        assert len(blocks) == 2
    assert_clean(path)
    with kernel_mount(path, rw=True) as point:
        for number in range(1030):
            assert os.getxattr(point / str(number), "user.x") == value
        for number in range(0, 1030, 3):
            (point / str(number)).unlink()
        os.setxattr(point / "1", "user.y", b"own")
    assert_clean(path)
    with ext3.Filesystem.open(path, "r+") as fs:
        assert fs.xattrs("/1") == {b"user.x": value, b"user.y": b"own"}
        for number in range(1030):
            if number % 3 == 1:
                fs.remove_xattr(b"/%d" % number, b"user.x")
            if number % 3 == 2:
                fs.set_xattr(b"/%d" % number, b"user.z", b"parted" * (number % 5))
    assert_clean(path)
