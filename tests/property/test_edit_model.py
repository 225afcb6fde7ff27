"""Long random edits of small images that are often full, beside a model of them; everything is counted after each sync."""

from __future__ import annotations

import pytest

import ext3

from ..support.edits import Edits
from ..support.image_checks import check_counts
from ..support.operations import ImageTree, Outcome
from ..support.random_operations import FULL_PHASES
from ..support.sessions import clock, empty_image


@pytest.mark.slow
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
    device = empty_image(block_size=block_size, inode_size=inode_size, journal=journal, inodes=inodes)
    edits = Edits(block_size + inode_size, block_size=block_size, largest=200_000, phases=FULL_PHASES, lengths=(10, 60))
    for _ in range(5):
        with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
            image = ImageTree(fs)
            for _ in range(2):
                for _ in range(60):
                    edits.step(image)
                fs.sync()
                edits.check(fs)
        with ext3.Filesystem.open(device) as after:
            edits.check(after)
            check_counts(after)
    assert edits.outcomes[Outcome.DONE] > 200
    assert edits.outcomes[Outcome.NO_ROOM] > 5
