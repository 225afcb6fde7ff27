"""Overlays that are resized in SIF images before siftool, e2fsck and the kernel, which agree at every stage."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from ext3 import Filesystem
from sifkit.overlay.resizing.image_resize import resize
from sifkit.overlay.resizing.resize_request import ResizeOptions, ResizeTarget
from sifkit.sif import SIF, DataType, FSType, PartType

from ..support.facts import TreeFacts, facts_of_image
from ..support.sif_images import STAMP, assert_sound, partition
from ..support.tools import assert_clean, fill_and_empty, kernel_mount, require, requires_root, run
from ..support.trees import everything

pytestmark = [pytest.mark.compat, requires_root, pytest.mark.slow]
MIB = 1 << 20


def aged(path: Path, size: int, *options: str) -> None:
    """An image made by mke2fs and filled by the kernel, half of whose files were deleted."""
    require("mke2fs", "e2fsck", "siftool")
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext3", *options, path)
    generator = random.Random(1)
    with kernel_mount(path, rw=True) as point:
        everything(point / "upper", big=False)
        (point / "work").mkdir()
        for number in range(200):
            (point / f"f{number}").write_bytes(generator.randbytes(generator.randrange(60_000)))
        for number in range(0, 200, 2):
            (point / f"f{number}").unlink()
        (point / "large").write_bytes(generator.randbytes(3 * MIB))


class Image:
    """A SIF image with an overlay, and what must not change in it."""

    def __init__(self, path: Path, overlay: Path, *, behind: bool) -> None:
        self.path = path
        with SIF.create(path, capacity=8, stamp=STAMP) as sif:
            sif.add(b"hsqs" + b"root" * 3000, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
            sif.add(overlay, DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
            if behind:
                sif.add(b"behind" * 1000, DataType.GENERIC)
        self.tree = self.facts()
        self.others = self._others()

    def _others(self) -> dict[int, bytes]:
        with SIF.open(self.path) as sif:
            return {one.id: sif.read(one.id) for one in sif if one.id != 2}

    def place(self) -> tuple[int, int]:
        with SIF.open(self.path) as sif:
            return sif.get(2).offset, sif.get(2).size

    def facts(self) -> TreeFacts:
        with Filesystem.open(self.path, offset=self.place()[0]) as fs:
            return facts_of_image(fs)

    def judge(self, size: int) -> None:
        offset, found = self.place()
        assert found == size
        assert_sound(self.path.read_bytes())
        listed = run("siftool", "list", self.path).stdout.decode().replace(" ", "")
        assert f"|{offset}-{offset + size}|FS(Ext3/Overlay/" in listed
        for number, content in self.others.items():
            assert run("siftool", "dump", str(number), self.path).stdout == content
        assert_clean(self.path, offset, size=size)
        with kernel_mount(self.path, offset=offset, rw=True) as point:
            assert (point / "upper").is_dir() and os.statvfs(point).f_blocks * 1024 < size
            fill_and_empty(point)
        assert_clean(self.path, offset, size=size)
        assert self.facts() == self.tree and self._others() == self.others


@pytest.mark.parametrize(
    ("options", "largest"),
    [
        (["-b", "1024"], 300),  # descriptors in two blocks
        (["-b", "4096", "-O", "^resize_inode"], 150),
        (["-b", "1024", "-E", "resize=300000"], 330),  # more than the reserve
    ],
)
@pytest.mark.parametrize("behind", [False, True])
def test_grown_step_by_step(tmp_path: Path, behind: bool, options: list[str], largest: int) -> None:
    aged(tmp_path / "a.img", 40 * MIB, *options)
    image = Image(tmp_path / "a.sif", tmp_path / "a.img", behind=behind)
    image.judge(40 * MIB)
    start = image.place()[0]
    for size in (50, largest):
        before = os.stat(image.path).st_blocks * 512
        done = resize(image.path, ResizeOptions(target=ResizeTarget(size=size * MIB)))
        assert done.after.file_bytes == size * MIB
        assert os.stat(image.path).st_blocks * 512 < before + 4 * MIB  # new groups are holes, and so is an old place
        image.judge(size * MIB)
    assert (image.place()[0] == start) == (not behind)


@pytest.mark.parametrize("options", [[], ["-b", "4096", "-I", "128"]])
@pytest.mark.parametrize("behind", [False, True])
def test_shrunk_and_grown_again(tmp_path: Path, behind: bool, options: list[str]) -> None:
    """To the smallest size, with all that the kernel left at the end, and back."""
    aged(tmp_path / "a.img", 80 * MIB, *options)
    image = Image(tmp_path / "a.sif", tmp_path / "a.img", behind=behind)
    start, length = image.place()[0], image.path.stat().st_size
    done = resize(image.path, ResizeOptions(target=ResizeTarget(minimum=True, slack_bytes=MIB)))
    size = done.after.file_bytes
    assert size < 40 * MIB and done.start.moved_bytes > 0
    if not behind:
        assert image.path.stat().st_size == length - 80 * MIB + size
    image.judge(size)
    resize(image.path, ResizeOptions(target=ResizeTarget(size=80 * MIB)))
    image.judge(80 * MIB)
    assert (image.place()[0] == start) == (not behind)


@pytest.mark.parametrize("options", [[], ["-b", "1024", "-I", "128"]])
def test_files_shrunk_by_us_and_by_resize2fs(tmp_path: Path, options: list[str]) -> None:
    """Each goes on with what the other one left; the smallest size is not larger than resize2fs's by more than 1 %."""
    require("resize2fs")
    path = tmp_path / "a.img"
    aged(path, 80 * MIB, *options)
    with Filesystem.open(path) as fs:
        before = facts_of_image(fs)
    run("e2fsck", "-fp", path, ok=(0, 1))
    theirs = int(run("resize2fs", "-P", path).stdout.rsplit(b":", 1)[1]) * 1024
    least = resize(path, ResizeOptions(target=ResizeTarget(minimum=True))).after.file_bytes
    assert least <= theirs * 1.01
    for size, by_us in ((100, False), (60, True), (90, True), (50, False), (70, True), (least >> 20, True)):
        if by_us:
            target = ResizeTarget(size=max(size * MIB, least)) if size * MIB > least else ResizeTarget(minimum=True)
            resize(path, ResizeOptions(target=target))
        else:
            run("e2fsck", "-fp", path, ok=(0, 1))
            run("resize2fs", path, f"{size}M")
        assert_clean(path)
        with Filesystem.open(path) as fs:
            assert facts_of_image(fs) == before
    with kernel_mount(path, rw=True) as point:
        fill_and_empty(point)
    assert_clean(path)


def test_what_siftool_adds_after_it(tmp_path: Path) -> None:
    """Behind the resized partition, in images of either program."""
    aged(tmp_path / "a.img", 16 * MIB)
    image = Image(tmp_path / "a.sif", tmp_path / "a.img", behind=False)
    resize(image.path, ResizeOptions(target=ResizeTarget(size=30 * MIB)))
    payload = tmp_path / "payload"
    payload.write_bytes(b"theirs" * 1000)
    run("siftool", "add", image.path, payload, "--datatype", "7", "--filename", "theirs")
    image.others[3] = payload.read_bytes()
    image.judge(30 * MIB)
    resize(image.path, ResizeOptions(target=ResizeTarget(size=40 * MIB)))
    image.judge(40 * MIB)
