"""Rebuilt overlays before e2fsck, dumpe2fs, siftool and the kernel, images aged by the kernel among them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from ext3 import Filesystem
from sifkit.overlay.embedding.attaching import attach
from sifkit.overlay.resizing.rebuilding import RebuildOptions, rebuild
from sifkit.sif import SIF, DataType, PartType

from ..support.facts import TreeFacts, facts_of_image
from ..support.sif_images import STAMP, partition
from ..support.tools import assert_clean, dumpe2fs, fill_and_empty, kernel_mount, require, requires_root, run
from ..support.trees import everything

pytestmark = pytest.mark.compat
MIB = 1 << 20


def facts(path: Path, offset: int = 0) -> TreeFacts:
    with Filesystem.open(path, offset=offset) as fs:
        return facts_of_image(fs)


def aged(path: Path, tmp_path: Path, *options: str) -> TreeFacts:
    """An image made by mke2fs and filled by the kernel, half of whose files were deleted, and large ones written."""
    require("mke2fs", "e2fsck")
    with path.open("wb") as file:
        file.truncate(48 * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext3", *options, path)
    generator = random.Random(1)
    with kernel_mount(path, rw=True) as point:
        everything(point / "upper", big=False)
        for number in range(300):
            (point / f"f{number}").write_bytes(generator.randbytes(generator.randrange(60_000)))
        for number in range(0, 300, 2):
            (point / f"f{number}").unlink()
        for number in range(3):
            (point / f"large{number}").write_bytes(generator.randbytes(3 * MIB))
        (point / "wide").mkdir()
        for number in range(500):
            (point / "wide" / f"a name of some length, number {number}").touch()
    return facts(path)


@requires_root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "made"),
    [
        (RebuildOptions(), []),
        (RebuildOptions(size="auto", inodes=30_000), ["-b", "1024", "-I", "128"]),
        (RebuildOptions(block_size=4096, inode_size=256), ["-b", "1024", "-I", "128", "-O", "^resize_inode"]),
        (RebuildOptions(block_size=1024, size=70 * MIB), ["-b", "4096", "-m", "2", "-L", "aged"]),
    ],
)
def test_images_aged_by_the_kernel(tmp_path: Path, options: RebuildOptions, made: list[str]) -> None:
    image = tmp_path / "a.img"
    before = aged(image, tmp_path, *made)
    old = dumpe2fs(image, header_only=True)
    rebuild(image, options)
    assert_clean(image)
    assert facts(image) == before
    new = dumpe2fs(image, header_only=True)
    for word in ("Filesystem volume name", "Directory Hash Seed"):
        assert [line for line in old.splitlines() if word in line] == [line for line in new.splitlines() if word in line]
    with kernel_mount(image, rw=True) as point:
        assert len(os.listdir(point / "wide")) == 500 and (point / "wide" / "a name of some length, number 77").exists()
        fill_and_empty(point)
    assert_clean(image)
    assert facts(image) == before


@requires_root
def test_flags_that_chattr_sets(tmp_path: Path) -> None:
    require("mke2fs", "e2fsck", "chattr", "lsattr")
    image = tmp_path / "a.img"
    run("mke2fs", "-q", "-F", "-t", "ext3", image, "8M")
    letters = "iadASc"  # of files; of a directory D and T
    with kernel_mount(image, rw=True) as point:
        (point / "directory").mkdir()
        run("chattr", "+DT", point / "directory")
        for letter in letters:
            (point / letter).touch()
            run("chattr", f"+{letter}", point / letter)
        before = listed_flags(point)
    rebuild(image, RebuildOptions(block_size=4096))
    assert_clean(image)
    with kernel_mount(image, rw=True) as point:
        assert listed_flags(point) == before
        with pytest.raises(PermissionError):
            (point / "i").write_bytes(b"x")
        run("chattr", "-ia", point / "i", point / "a")
    assert_clean(image)


def listed_flags(point: Path) -> dict[str, str]:
    lines = (line.split() for line in run("lsattr", point).stdout.decode().splitlines())
    return {os.path.basename(path): flags for flags, path in lines}


@requires_root
@pytest.mark.slow
@pytest.mark.parametrize("last", [True, False])
def test_in_a_sif(tmp_path: Path, last: bool) -> None:
    require("siftool")
    image, path = tmp_path / "a.img", tmp_path / "a.sif"
    before = aged(image, tmp_path)
    with SIF.create(path, stamp=STAMP) as sif:
        sif.add(b"hsqs" + b"root" * 3000, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    attach(path, image)
    if not last:
        with SIF.open(path, "r+") as sif:
            sif.add(b"behind" * 1000, DataType.GENERIC)
    done = rebuild(path, RebuildOptions(size=60 * MIB, inodes=30_000))
    assert done.partition is not None
    assert_clean(path, done.partition.offset, size=done.partition.size)
    assert facts(path, done.partition.offset) == before
    listed = run("siftool", "list", path).stdout.decode()
    assert f"{done.partition.offset}-{done.partition.offset + 60 * MIB}" in listed.replace(" ", "")
    assert run("siftool", "dump", "1", path).stdout == b"hsqs" + b"root" * 3000
    with kernel_mount(path, offset=done.partition.offset, rw=True) as point:
        fill_and_empty(point)
    assert_clean(path, done.partition.offset, size=done.partition.size)
