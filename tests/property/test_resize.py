"""Random images and sizes: after each resize the filesystem is sound, and every file the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ext3
from ext3.device.base import MemoryDevice

from ..support.recorded_edits import state
from ..support.resizes import aged_image, findings_of, made_by_mke2fs, resize, write_out
from ..support.sessions import clock
from ..support.tools import assert_clean, find

MIB = 1 << 20
STEPS = st.lists(st.one_of(st.just("least"), st.floats(0, 3)), min_size=1, max_size=4)


def _judge(device: MemoryDevice, steps: list[str | float], size: int) -> None:
    content = state(device)
    with tempfile.TemporaryDirectory() as scratch:
        for step in steps:
            least = ext3.resize.prepare(device).minimum()
            target = least.size_bytes if step == "least" else int(least.size_bytes + float(step) * size)
            plan = resize(device, target)
            assert plan.new.size_bytes <= target == device.size
            if step == "least":
                assert plan.new.blocks == least.blocks
            assert not findings_of(device)
            assert state(device) == content
            superblock = ext3.format.superblock.read_superblock(device)
            assert superblock.geometry == plan.new
            if find("e2fsck"):
                path = Path(scratch, "image")
                write_out(device, path)
                assert_clean(path)
        # Later edits find the filesystem in order, and use what was freed.
        with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
            room = fs.superblock.free_blocks * fs.superblock.block_size
            if room > 100_000 and fs.superblock.free_inodes:
                fs.write_bytes("/last", b"l" * (room // 2))
        assert not findings_of(device)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(8 * 1024, 24 * 1024),
    st.sampled_from([(1024, 256), (1024, 128), (2048, 256), (4096, 256)]),
    st.booleans(),
    st.integers(0, 1000),
    STEPS,
)
def test_images_of_ours(kib: int, sizes: tuple[int, int], journal: bool, seed: int, steps: list[str | float]) -> None:
    size = kib * 1024 * (1 if sizes[0] == 1024 else 2)
    device = aged_image(size, block_size=sizes[0], inode_size=sizes[1], journal=journal, seed=seed, files=24)
    _judge(device, steps, size)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(9, 20),
    st.sampled_from([512, 1024, 2048, 4096]),
    st.sampled_from(["", "^resize_inode", "^resize_inode,^sparse_super", "^resize_inode,meta_bg", "^dir_index"]),
    st.sampled_from(["", "resize=20000", "resize=120000", "stride=8,stripe_width=16"]),
    st.sampled_from(["128", "256"]),
    STEPS,
)
def test_images_of_mke2fs(
    mib: int, per_group: int, features: str, extended: str, inode_size: str, steps: list[str | float]
) -> None:
    """Small groups: there are many of them, and descriptors in more than one block."""
    options = ["-b", "1024", "-g", str(per_group), "-N", str(40 * (mib * 1024 // per_group) + 200), "-I", inode_size]
    options += ["-O", features] if features else []
    options += ["-E", extended] if extended and not (features and "resize" in extended) else []
    with tempfile.TemporaryDirectory() as scratch:
        device = made_by_mke2fs(Path(scratch, "image"), options, mib * MIB)
    _judge(device, steps, mib * MIB)
