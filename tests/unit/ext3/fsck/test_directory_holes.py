"""Holes of directories."""

from __future__ import annotations

import numpy as np
import pytest

import ext3
from ext3.constants import SUPERBLOCK_OFFSET, Compat
from ext3.device.base import MemoryDevice
from ext3.format.schema import SUPERBLOCK
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.finding import Report
from ext3.fsck.policy import Ask, CheckOnly, Policy, Preen, Yes
from tests.support.fsck_images import STAMP, Image
from tests.support.sessions import clock, empty_image

SIZE = 1024
FORCE = CheckOptions(force=True)


def run(image: bytes, policy: Policy | None = None) -> tuple[Report, bytes]:
    device = MemoryDevice(image)
    report = check(device, policy or Yes(), options=FORCE, stamp=STAMP)
    return report, bytes(device.data)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def made() -> bytes:
    device = empty_image(4 << 20, block_size=SIZE, inodes=512)
    SUPERBLOCK.view(device.data, 1, SUPERBLOCK_OFFSET)["s_feature_compat"] ^= int(Compat.DIR_INDEX)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir(b"/d")
        for number in range(90):
            fs.create(b"/d/name-%04d-" % number + b"x" * 30)
    return bytes(device.data)


def with_words(image: bytes, words: dict[int, int], size: int | None = None) -> bytes:
    """The image with other words in the map of /d."""
    found = Image(image)
    ino = found.ino("/d")
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        i_block = list(fs.inode(ino).i_block)
        length = fs.stat(ino).size
    for slot, block in words.items():
        i_block[slot] = block
    found.set_inode(ino, i_block=i_block, i_size=length if size is None else size)
    return found.data


def names(image: bytes) -> set[bytes]:
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        return {entry.name for entry in fs.scandir(b"/d")}


@pytest.mark.parametrize("logical", [0, 2])
def test_a_hole_becomes_an_empty_block(logical: int) -> None:
    image = with_words(made(), {logical: 0})
    report, after = run(image)
    assert "directory-hole" in codes(report)
    assert report.exit_code == 1
    assert names(after) < names(made())
    with ext3.Filesystem.open(MemoryDevice(after)) as fs:
        assert fs.lookup(b"/d/..") == 2
        assert fs.stat(b"/d").size == fs.data_extents(b"/d")[-1][0] * SIZE + fs.data_extents(b"/d")[-1][2] * SIZE
    assert not run(after, CheckOnly())[0].findings
    preened, _ = run(image, Preen())
    assert preened.exit_code == 4


def test_a_hole_that_is_to_stay() -> None:
    image = with_words(made(), {2: 0})
    report, after = run(image, Ask(lambda finding: False))
    assert report.exit_code == 4
    with ext3.Filesystem.open(MemoryDevice(after)) as fs:
        assert not fs.inode(fs.lookup(b"/d")).i_block[2]
    assert run(after)[0].exit_code == 1


def far_image(count: int, *, first_hole: bool = False) -> bytes:
    """The image with /d's blocks far apart, behind an indirect block."""
    image = made()
    found = Image(image)
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        blocks = [block for _, first, length in fs.data_extents(b"/d") for block in range(first, first + length)]
        table = int(np.flatnonzero(~fs.block_bitmap(0))[-1]) + fs.superblock.first_data_block
    pointers = np.zeros(SIZE // 4, "<u4")
    places = np.linspace(100, count - 1, len(blocks) - 1).astype(int)
    pointers[places] = blocks[1:]
    found.device.write(table * SIZE, pointers.tobytes())
    words = dict.fromkeys(range(12), 0) | {0: 0 if first_hole else blocks[0], 12: table}
    return with_words(found.data, words, (12 + count) * SIZE)


@pytest.mark.parametrize("first_hole", [False, True])
def test_blocks_between_very_many_holes_are_moved_together(first_hole: bool) -> None:
    image = far_image(256, first_hole=first_hole)
    report, after = run(image)
    assert codes(report).count("directory-holes") == 1
    assert codes(report).count("directory-hole") == int(first_hole)
    assert report.exit_code == 1
    assert not run(after, CheckOnly())[0].findings
    with ext3.Filesystem.open(MemoryDevice(after)) as fs:
        blocks = fs.stat(b"/d").size // SIZE
        assert sum(count for _, _, count in fs.data_extents(b"/d")) == blocks < 12
    if not first_hole:
        assert names(after) == names(made())


def test_blocks_that_are_not_to_be_moved_together_keep_their_holes() -> None:
    image = far_image(256)
    report, after = run(image, Ask(lambda finding: False))
    assert report.exit_code == 4
    assert report.left > 200
    assert run(after)[0].exit_code == 1


def test_more_blocks_than_holes_are_filled_up() -> None:
    image = far_image(256)
    report, _ = run(image, CheckOnly())
    assert codes(report).count("directory-holes") == 1
    image = with_words(made(), {1: 0, 3: 0})
    assert codes(run(image, CheckOnly())[0]).count("directory-hole") == 2
