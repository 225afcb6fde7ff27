"""Random operations, done to an image and to a directory of the host: both fail alike, and hold the same afterwards."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ext3

from ..support.edits import Edits, host_options
from ..support.image_checks import check_counts
from ..support.operations import HostTree, ImageTree, Outcome
from ..support.random_operations import FEW_NAMES
from ..support.sessions import clock, empty_image


class EditedImage(RuleBasedStateMachine):
    """An image that is edited, synced, abandoned and opened again, beside a directory to which the same is done.

    Paths collide often, so that much of what is tried fails, or replaces something.
    """

    image: ImageTree

    @initialize(block_size=st.sampled_from([1024, 4096]), inode_size=st.sampled_from([128, 256]), journal=st.booleans())
    def start(self, block_size: int, inode_size: int, journal: bool) -> None:
        size = 16 << 20 if block_size == 4096 else 8 << 20
        self.device = empty_image(size, block_size=block_size, inode_size=inode_size, journal=journal)
        self.image = ImageTree(ext3.Filesystem.open(self.device, "r+", clock=clock))
        self.host = HostTree(Path(tempfile.mkdtemp(prefix="sifkit-model-")))
        self.edits = Edits(0, few_names=FEW_NAMES, largest=40_000, **host_options())
        self.changed = False

    def teardown(self) -> None:
        if hasattr(self, "image"):
            self.image.fs.close()
            self.host.close()
            shutil.rmtree(self.host.path)

    @rule(chance=st.randoms(use_true_random=False), count=st.integers(1, 8))
    def change(self, chance: random.Random, count: int) -> None:
        self.edits.chance = chance
        for _ in range(count):
            self.edits.step(self.image, self.host)
        self.changed = True

    @precondition(lambda self: self.changed)
    @rule(reopened=st.booleans())
    def sync(self, reopened: bool) -> None:
        if reopened:
            self.image.fs.close()
            with ext3.Filesystem.open(self.device) as fs:
                check_counts(fs)
            self.image = ImageTree(ext3.Filesystem.open(self.device, "r+", clock=clock))
        else:
            self.image.fs.sync()
        self.changed = False

    @invariant()
    def same(self) -> None:
        if hasattr(self, "image"):
            self.edits.check(self.image.fs, self.host)


EditedImage.TestCase.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEditedImage = pytest.mark.slow(EditedImage.TestCase)


@pytest.mark.parametrize("seed", range(6))
def test_long_random_edits(seed: int, tmp_path: Path) -> None:
    """Operations that mostly succeed, with everything counted after each sync."""
    block_size, inode_size = (1024, 4096)[seed % 2], (128, 256)[seed // 2 % 2]
    device = empty_image(24 << 20, block_size=block_size, inode_size=inode_size, journal=seed != 5)
    host = HostTree(tmp_path)
    edits = Edits(seed, block_size=block_size, **host_options())
    for _ in range(4):
        with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
            image = ImageTree(fs)
            for _ in range(2):
                for _ in range(40):
                    edits.step(image, host)
                fs.sync()
                edits.check(fs, host)
        with ext3.Filesystem.open(device) as after:
            check_counts(after)
    host.close()
    assert edits.outcomes[Outcome.DONE] > 100
