"""The model that edited images are compared with, compared with the kernel: the same operations on a mounted image."""

from __future__ import annotations

from pathlib import Path

import pytest

import ext3

from ..support.edits import Edits
from ..support.operations import KERNEL_VERBS, HostTree, Outcome
from ..support.tools import assert_clean, kernel_mount, require, run

pytestmark = pytest.mark.root


@pytest.mark.parametrize("seed", range(4))
def test_the_kernel_does_what_the_model_does(seed: int, scratch: Path) -> None:
    require("mke2fs", "e2fsck")
    image = scratch / "image"
    block_size = (1024, 2048, 4096)[seed % 3]
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", str(block_size), "-N", "8000", image, "96M")
    edits = Edits(seed, block_size=block_size, largest=20_000, verbs=KERNEL_VERBS, lengths=(10, 60))
    for _ in range(3):
        with kernel_mount(image, rw=True) as point:
            mounted = HostTree(point)
            for _ in range(150):
                edits.step(mounted)
            mounted.close()
        assert_clean(image)
        with ext3.Filesystem.open(image) as fs:
            edits.check(fs)
    assert edits.outcomes[Outcome.DONE] > 200
