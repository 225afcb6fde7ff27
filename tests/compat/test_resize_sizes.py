"""A grid of filesystems, resized up and down, judged by e2fsck and our own check (large ones are sparse); and by resize2fs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ext3
from ext3.device.base import FileDevice
from ext3.format.superblock import read_superblock
from ext3.resize import ResizePlan, prepare
from ext3.resize.bad_blocks import read_bad_blocks

from ..support.facts import TreeFacts, facts_of_image
from ..support.recorded_edits import state
from ..support.resizes import fill, findings_of, late_journal, resize, write_out
from ..support.sessions import clock
from ..support.tools import assert_clean, dumpe2fs, run

pytestmark = pytest.mark.slow

MIB, GIB = 1 << 20, 1 << 30
K1, K2, K4 = ["-b", "1024"], ["-b", "2048"], ["-b", "4096"]
GRID: dict[str, tuple[list[str], int, tuple[int, ...]]] = {
    "8M": (K1, 8 * MIB, (9 * MIB, 16 * MIB, 200 * MIB)),
    "9M to 80G": (K1, 9 * MIB, (80 * GIB,)),
    "small inodes": ([*K1, "-I", "128"], 20 * MIB, (21 * MIB, GIB)),
    "large inodes": ([*K4, "-I", "1024"], 40 * MIB, (400 * MIB, 300 * MIB)),
    "short last group": (K1, (24 << 20) + 700 * 1024, (25 * MIB, 32 * MIB, 33 * MIB)),
    "2K": (K2, 33 * MIB, (66 * MIB, 2 * GIB)),
    "4K": (K4, 100 * MIB, (128 * MIB, 129 * MIB, 10 * GIB)),
    "64G": (K4, GIB, (64 * GIB, 3 * GIB)),
    "beyond resize=300000": ([*K1, "-E", "resize=300000"], 100 * MIB, (290 * MIB, 3 * GIB, 4 * GIB)),
    "without a resize inode": ([*K1, "-O", "^resize_inode"], 30 * MIB, (200 * MIB, 600 * MIB, 100 * MIB)),
    "without sparse_super": ([*K1, "-O", "^resize_inode,^sparse_super"], 30 * MIB, (200 * MIB, 600 * MIB)),
    "meta_bg": ([*K1, "-O", "^resize_inode,meta_bg"], 100 * MIB, (120 * MIB, 900 * MIB, 50 * MIB)),
    "stride": ([*K1, "-E", "stride=16,stripe_width=64"], 40 * MIB, (41 * MIB, 300 * MIB)),
    "large stride": ([*K4, "-E", "stride=4096,stripe_width=8192"], 300 * MIB, (500 * MIB, 200 * MIB)),
    "small groups": ([*K1, "-g", "512", "-N", "2000"], 12 * MIB, (60 * MIB, 9 * MIB)),
    "many inodes": ([*K1, "-i", "1024"], 30 * MIB, (45 * MIB, 20 * MIB)),
    "few inodes": ([*K4, "-N", "600"], 80 * MIB, (2 * GIB, 40 * MIB)),
    "unsigned hashes": ([*K1, "-E", "hash_seed=01234567-89ab-cdef-0123-456789abcdef"], 20 * MIB, (40 * MIB,)),
    "reserved for root": ([*K1, "-m", "50"], 30 * MIB, (60 * MIB, 15 * MIB)),
    "ext2": (["-t", "ext2", *K1], 20 * MIB, (300 * MIB, 15 * MIB)),
}


def _made(path: Path, options: list[str], size: int, files: int = 80) -> None:
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", *([] if "-t" in options else ["-t", "ext3"]), *options, path)
    with ext3.Filesystem.open(path, "r+", clock=clock) as fs:
        fill(fs, 5, files=files)
        for number in range(0, files, 3):
            fs.unlink(b"/many/%d-" % number + b"n" * 80)


def _resized(path: Path, size: int | None) -> ResizePlan:
    """Resize to ``size``, or to the smallest size; judge the result."""
    with path.open("r+b") as file:
        device = FileDevice(file.fileno())
        content = state(device)
        least = prepare(device).minimum()
        before = read_superblock(device)
        plan = resize(device, least.size_bytes if size is None else max(size, least.size_bytes))
        assert size is not None or plan.new.blocks == least.blocks
        assert state(device) == content
        assert not findings_of(device)
        after = read_superblock(device)
        assert after.geometry == plan.new
        assert (after.uuid, after.label, after.hash_seed) == (before.uuid, before.label, before.hash_seed)
        assert plan.new.size_bytes <= os.fstat(file.fileno()).st_size
    assert_clean(path)
    run("e2fsck", "-p", path)  # nothing that asks for a check
    return plan


@pytest.mark.parametrize("name", GRID)
def test_grid(name: str, scratch: Path) -> None:
    options, size, steps = GRID[name]
    path = scratch / "image"
    _made(path, options, size)
    for step in (*steps, None, size, steps[0] if steps[0] < 9 * GIB else GIB, None):
        _resized(path, step)


def test_nearly_full(scratch: Path) -> None:
    path = scratch / "image"
    _made(path, K1, 30 * MIB)
    with ext3.Filesystem.open(path, "r+", clock=clock) as fs:
        fs.write_bytes("/most", b"m" * int(fs.superblock.free_blocks * 1024 * 0.95))
    for step in (None, 31 * MIB, 90 * MIB, None):
        _resized(path, step)


def test_only_the_journal_moves(scratch: Path) -> None:
    path = scratch / "image"
    device = late_journal(path, 24 * MIB)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for entry in fs.scandir("/"):
            if entry.name != b"lost+found":
                fs.remove_tree(b"/" + entry.name)
    write_out(device, path)
    plan = _resized(path, None)
    assert len(plan.moves.journal_from)
    assert not len(plan.moves.block_from)
    _resized(path, 50 * MIB)


def test_bad_blocks(scratch: Path) -> None:
    """Those beyond the new end leave their list, as with resize2fs, and it gets as many pointer blocks as it needs then."""
    path, listed = scratch / "image", scratch / "bad"

    def make(blocks: list[int]) -> None:
        listed.write_text("".join(f"{block}\n" for block in blocks))
        _made(path, [*K1, "-l", str(listed)], 24 * MIB, files=20)

    def bad() -> list[int]:
        return [int(line) for line in run("dumpe2fs", "-b", path).stdout.split()]

    make([5000, 5001, 12_000, 24_000])
    for size, left in ((16, [5000, 5001, 12_000]), (9, [5000, 5001]), (30, [5000, 5001])):
        _resized(path, size * MIB)
        assert bad() == left
    many = [*range(5000, 5400), *range(17_000, 17_900)]
    make(many)
    for end in (17_850, 17_300, 17_002, 16_384):
        plan = _resized(path, end * 1024)
        assert plan.new.blocks == end
        assert bad() == [block for block in many if block < end]
    with path.open("rb") as file:
        fs = ext3.Filesystem(FileDevice(file.fileno()))
        assert len(read_bad_blocks(fs.device, fs.superblock, fs.groups).indirect) == 3


def test_many_subdirectories(scratch: Path) -> None:
    """A directory gets another number, and all its subdirectories name it."""
    path = scratch / "image"
    with path.open("wb") as file:
        file.truncate(60 * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext3", *K1, "-N", "8000", path)
    with ext3.Filesystem.open(path, "r+", clock=clock) as fs:
        for number in range(30):
            fs.mkdir(f"/top{number}")
        parent = max(range(30), key=lambda number: fs.stat(f"/top{number}").ino)
        assert fs.stat(f"/top{parent}").ino > 6000
        for number in range(600):
            fs.mkdir(f"/top{parent}/{number}")
        number = fs.stat(f"/top{parent}").ino
    plan = _resized(path, 20 * MIB)
    assert number in plan.moves.inode_from


def _without_times(path: Path) -> TreeFacts:
    """The content of an image; resize2fs changes the times of directories."""
    with ext3.Filesystem.open(path) as fs:
        return {name: fact._replace(mtime=None) for name, fact in facts_of_image(fs).items()}


@pytest.mark.parametrize("options", [K1, [*K1, "-I", "128"], [*K4, "-N", "4000"], [*K1, "-g", "1024", "-N", "3000"]])
def test_beside_resize2fs(options: list[str], scratch: Path) -> None:
    """Images that one resized, the other resizes further; neither needs a larger smallest size."""
    path = scratch / "image"
    _made(path, options, 40 * MIB)
    for step in ("30M", None, "200M", "ours", "70M", None, "-M", "ours", "-M"):
        if step is None or step == "ours":
            _resized(path, None if step is None else 100 * MIB)
            continue
        of_resize2fs = int(run("resize2fs", "-P", path).stdout.split(b":")[-1])
        with path.open("rb") as file:
            assert prepare(FileDevice(file.fileno())).minimum().blocks <= of_resize2fs * 1.01
        content = _without_times(path)
        run("e2fsck", "-f", "-p", path)
        run("resize2fs", *([path, step] if step != "-M" else ["-M", path]))
        with path.open("rb") as file:
            assert not findings_of(FileDevice(file.fileno()))
        assert _without_times(path) == content


def test_descriptors_beyond_the_reserve(scratch: Path) -> None:
    path = scratch / "image"
    _made(path, [*K1, "-E", "resize=300000"], 100 * MIB)
    plan = _resized(path, 3 * GIB)
    assert plan.beyond_reserve
    text = dumpe2fs(path)
    assert "meta_bg" in text
    assert "resize_inode" not in text
    assert "First meta block group:   1" in text


def test_a_terabyte(scratch: Path) -> None:
    """A terabyte: 8192 groups, with meta_bg."""
    path = scratch / "image"
    _made(path, [*K4, "-i", "4194304", "-O", "^resize_inode"], 300 * MIB, files=8)
    with path.open("r+b") as file:
        device = FileDevice(file.fileno())
        content = state(device)
        plan = resize(device, 1 << 40)
        assert plan.new.groups == 8192
        assert plan.new.first_meta_bg == 1
        assert read_superblock(device).geometry == plan.new
        assert state(device) == content
    assert "Block count:              268435456" in dumpe2fs(path, header_only=True)
    run("e2fsck", "-fn", path)
