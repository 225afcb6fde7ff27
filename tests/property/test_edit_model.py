"""Long random edits of small images that are often full, beside a model of them; everything is counted after each sync."""

from __future__ import annotations

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.newfs.plan import ImageOptions
from ext3.newfs.stamp import Stamp

from ..support.image_checks import check_counts
from ..support.model_edits import ModelEdits
from ..support.model_tree import compare
from ..support.sessions import clock, empty_tree

STAMP = Stamp(1_700_000_000, b"u" * 16, b"h" * 16)


@pytest.mark.parametrize(
    ("block_size", "inode_size", "journal", "inodes"),
    [
        (1024, 128, True, None),
        (1024, 256, False, 64),
        (2048, 256, True, 3000),
        (4096, 128, False, None),
        (4096, 256, True, 400),
    ],
)
def test_small_images_that_run_full(block_size: int, inode_size: int, journal: bool, inodes: int | None) -> None:
    """What does not fit leaves the image as it was, and what was done is there to the last byte."""
    size = 8 << 20
    device = MemoryDevice(size)
    options = ImageOptions(size=size, block_size=block_size, inode_size=inode_size, journal=journal, inodes=inodes)
    ext3.build_image(empty_tree(), device, options=options, stamp=STAMP)
    edits = ModelEdits(block_size + inode_size, block_size=block_size, largest=200_000)
    for _ in range(5):
        with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
            for _ in range(2):
                for _ in range(60):
                    edits.step(fs)
                fs.sync()
                compare(fs, edits.tree)
        edits.held.clear()
        with ext3.Filesystem.open(device) as after:
            compare(after, edits.tree)
            check_counts(after)
    assert edits.outcomes["done"] > 200
    assert edits.outcomes["no room"] > 5
