"""Random operations, done to an image and to a directory of the host: both fail alike, and hold the same afterwards."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ext3
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.newfs.plan import ImageOptions
from ext3.newfs.stamp import Stamp

from ..support.filesystem_model import HostTree, Operation, apply, facts_of_host, facts_of_image
from ..support.image_checks import check_counts
from ..support.operations import operations
from ..support.random_edits import RandomEdits
from ..support.sessions import clock, empty_tree


class EditedImage(RuleBasedStateMachine):
    """An image that is edited, synced, abandoned and opened again, beside a directory to which the same is done."""

    fs: WritableFilesystem

    @initialize(block_size=st.sampled_from([1024, 4096]), inode_size=st.sampled_from([128, 256]), journal=st.booleans())
    def start(self, block_size: int, inode_size: int, journal: bool) -> None:
        size = 16 << 20 if block_size == 4096 else 8 << 20
        self.device = MemoryDevice(size)
        options = ImageOptions(size=size, block_size=block_size, inode_size=inode_size, journal=journal)
        ext3.build_image(empty_tree(), self.device, options=options, stamp=Stamp(1_700_000_000, b"u" * 16, b"h" * 16))
        self.fs = ext3.Filesystem.open(self.device, "r+", clock=clock)
        self.host = Path(tempfile.mkdtemp(prefix="sifkit-model-"))
        self.changed = False

    def teardown(self) -> None:
        if hasattr(self, "fs"):
            self.fs.close()
            shutil.rmtree(self.host)

    @rule(some=st.lists(operations(), min_size=1, max_size=8))
    def change(self, some: list[Operation]) -> None:
        for operation in some:
            assert apply(self.fs, operation) == apply(HostTree(self.host), operation), operation
        self.changed = True

    @precondition(lambda self: self.changed)
    @rule(reopened=st.booleans())
    def sync(self, reopened: bool) -> None:
        if reopened:
            self.fs.close()
            with ext3.Filesystem.open(self.device) as fs:
                check_counts(fs)
            self.fs = ext3.Filesystem.open(self.device, "r+", clock=clock)
        else:
            self.fs.sync()
        self.changed = False

    @invariant()
    def same(self) -> None:
        if hasattr(self, "fs"):
            assert facts_of_image(self.fs) == facts_of_host(self.host)


EditedImage.TestCase.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEditedImage = EditedImage.TestCase


@pytest.mark.parametrize("seed", range(6))
def test_long_random_edits(seed: int, tmp_path: Path) -> None:
    """Operations that mostly succeed, with everything counted after each sync."""
    block_size, inode_size = (1024, 4096)[seed % 2], (128, 256)[seed // 2 % 2]
    size = 24 << 20
    device = MemoryDevice(size)
    options = ImageOptions(size=size, block_size=block_size, inode_size=inode_size, journal=seed != 5)
    ext3.build_image(empty_tree(), device, options=options, stamp=Stamp(1_700_000_000, b"u" * 16, b"h" * 16))
    edits = RandomEdits(HostTree(tmp_path), seed)
    done = 0
    for _ in range(4):
        with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
            for _ in range(2):
                for operation in edits.some(40):
                    outcome = apply(fs, operation)
                    assert outcome == apply(edits.model, operation), operation
                    done += not outcome
                fs.sync()
                assert facts_of_image(fs) == facts_of_host(tmp_path)
        with ext3.Filesystem.open(device) as after:
            check_counts(after)
    assert done > 100
