"""Resizes and rebuilds of overlays in SIF images, interrupted anywhere: the image is sound, the filesystem has the old size or
the new one and fits its partition, and every file and object keeps its bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.format.superblock import read_superblock
from sifkit.overlay.resizing.image_resize import resize
from sifkit.overlay.resizing.rebuilding import RebuildOptions, rebuild
from sifkit.overlay.resizing.resize_request import ResizeOptions, ResizeTarget
from sifkit.sif import SIF, DataType, FSType, PartType

from ..support.facts import TreeFacts, facts_of_image
from ..support.recorded_file import interruptions, recorded_file
from ..support.sif_edits import recovered
from ..support.sif_images import LATER, STAMP, assert_sound, partition
from ..support.sif_recorder import apply
from ..support.tools import fill_and_empty, find, kernel_mount, requires_root, run

MIB = 1 << 20
MOST = 120
"""States that are judged; of more a sample is."""


def overlay(size: int, *, journal: bool = True) -> bytes:
    """A filled filesystem of 1 KiB blocks, of which some files were deleted."""
    device, generator = MemoryDevice(size), Random(1)
    ext3.mkfs(
        device,
        size,
        block_size=1024,
        inodes=512 * -(-size // (8 * MIB)),
        journal_blocks=1024 if journal else None,
        journal=journal,
    )
    with ext3.Filesystem.open(device, "r+") as fs:
        fs.mkdir("/upper")
        for number in range(120):
            fs.write_bytes(f"/upper/{number}-{'n' * 40}", generator.randbytes(generator.choice([10, 900, 30_000])))
        for number in range(0, 120, 3):
            fs.unlink(f"/upper/{number}-{'n' * 40}")
    return bytes(device.data)


def make(path: Path, content: bytes, *, behind: bool) -> None:
    with SIF.create(path, capacity=8, stamp=STAMP) as sif:
        sif.add(b"hsqs" + b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        sif.add(content, DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
        if behind:
            sif.add(b"behind" * 1000, DataType.GENERIC)


class Judge:
    """Judge of what is left: ``sizes``: those that the filesystem may have."""

    def __init__(self, path: Path, sizes: set[int]) -> None:
        self.sizes = sizes
        self.rest = self._others(path)
        self.tree = self._tree(path.read_bytes())
        self.seen: set[tuple[int, int]] = set()

    @staticmethod
    def _others(path: Path) -> list[tuple[int, bytes]]:
        with SIF.open(path) as sif:
            return [(one.id, sif.read(one.id)) for one in sif if one.part_type != PartType.OVERLAY]

    @staticmethod
    def _tree(raw: bytes) -> TreeFacts:
        with SIF.open(io.BytesIO(raw)) as sif:
            found = sif.overlays[0]
        with ext3.Filesystem.open(MemoryDevice(raw[found.offset : found.end])) as fs:
            return facts_of_image(fs)

    def check(self, what: str, raw: bytearray, scratch: Path, *, by_e2fsck: bool) -> None:
        sound = recovered(bytes(raw))
        assert_sound(sound)
        scratch.write_bytes(sound)
        assert self._others(scratch) == self.rest, what
        with SIF.open(scratch) as sif:
            (found,) = sif.overlays
        window = MemoryDevice(sound[found.offset : found.end])
        superblock = read_superblock(window)
        assert superblock.size_bytes in self.sizes and found.size >= superblock.size_bytes, what
        self.seen.add((found.size, superblock.size_bytes))
        assert self._tree(sound) == self.tree, what
        if by_e2fsck:
            scratch.write_bytes(window.data)
            run("e2fsck", "-fp", scratch, ok=(0, 1))
            assert self._tree_of(scratch.read_bytes()) == self.tree, what
        report = ext3.fsck.check(window, ext3.Preen(), options=ext3.CheckOptions(force=True))
        assert report.clean, what
        assert not ext3.fsck.check(window, ext3.CheckOnly(), options=ext3.CheckOptions(force=True)).findings, what
        assert self._tree_of(bytes(window.data)) == self.tree, what

    @staticmethod
    def _tree_of(raw: bytes) -> TreeFacts:
        with ext3.Filesystem.open(MemoryDevice(raw)) as fs:
            return facts_of_image(fs)


def resize_to(path: Path, size: int) -> None:
    resize(path, ResizeOptions(target=ResizeTarget(size=size), stamp=LATER))


def rebuild_to(path: Path, size: int) -> None:
    rebuild(path, RebuildOptions(size=size, inodes=3000, stamp=LATER))


def interrupted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    size: int,
    *,
    behind: bool,
    job: Callable[[Path, int], None] = resize_to,
) -> set[tuple[int, int]]:
    """Do the job, interrupt that everywhere, and judge. Return the sizes seen: of the partition, and of the filesystem."""
    path, scratch = tmp_path / "a.sif", tmp_path / "scratch"
    make(path, content, behind=behind)
    judge = Judge(path, {len(content), size})
    before = path.read_bytes()
    with recorded_file(path, monkeypatch) as ops:
        job(path, size)
    after = path.read_bytes()
    states = list(range(3 * len(ops)))
    chosen = set(Random(2).sample(states, min(MOST, len(states))))
    assert sum(op.kind == "sync" for op in ops) > 6
    for number, (what, left) in enumerate(interruptions(before, ops, seed=size)):
        if number in chosen or number < 10:
            judge.check(what, left, scratch, by_e2fsck=find("e2fsck") is not None and number % 7 == 0)
    judge.check("end", bytearray(after), scratch, by_e2fsck=find("e2fsck") is not None)
    replayed = bytearray(before)
    for op in ops:
        apply(replayed, op)
    assert bytes(replayed) == after  # nothing was missed by the recording
    return judge.seen


def test_a_growth_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The partition grows first."""
    seen = interrupted(tmp_path, monkeypatch, overlay(6 * MIB), 12 * MIB, behind=False)
    assert seen == {(6 * MIB, 6 * MIB), (12 * MIB, 6 * MIB), (12 * MIB, 12 * MIB)}


def test_a_growth_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old partition stays until the new one is complete."""
    seen = interrupted(tmp_path, monkeypatch, overlay(6 * MIB), 12 * MIB, behind=True)
    assert seen == {(6 * MIB, 6 * MIB), (12 * MIB, 12 * MIB)}


def test_a_growth_without_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = interrupted(tmp_path, monkeypatch, overlay(6 * MIB, journal=False), 12 * MIB, behind=False)
    assert seen == {(6 * MIB, 6 * MIB), (12 * MIB, 12 * MIB)}


@pytest.mark.parametrize("behind", [False, True])
def test_a_shrink_with_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: bool) -> None:
    """The filesystem shrinks first, the partition after it, and the file last; or all of it happens in the copy."""
    device = MemoryDevice(overlay(18 * MIB))
    with ext3.Filesystem.open(device, "r+") as fs:
        for number in range(60):
            fs.write_bytes(f"/upper/large{number}", Random(number).randbytes(200_000))
        fs.sync()
        for number in range(52):
            fs.unlink(f"/upper/large{number}")
    seen = interrupted(tmp_path, monkeypatch, bytes(device.data), 9 * MIB, behind=behind)
    between = set() if behind else {(18 * MIB, 9 * MIB)}
    assert seen == {(18 * MIB, 18 * MIB), (9 * MIB, 9 * MIB)} | between


@requires_root
@pytest.mark.slow
@pytest.mark.parametrize("grows", [True, False])
def test_filled_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grows: bool) -> None:
    """It mounts what is left after a sync, and fills that: nothing is given out twice, in the partition or beside it."""
    path, left = tmp_path / "a.sif", tmp_path / "left"
    make(path, overlay(6 * MIB if grows else 18 * MIB), behind=False)
    judge = Judge(path, {6 * MIB, 12 * MIB, 18 * MIB})
    before = path.read_bytes()
    with recorded_file(path, monkeypatch) as ops:
        resize_to(path, 12 * MIB)
    raw = bytearray(before)
    syncs = [number for number, op in enumerate(ops) if op.kind == "sync"]
    assert len(syncs) > 8
    for number, op in enumerate(ops):
        apply(raw, op)
        if number not in syncs[:: 1 if grows else 2]:
            continue
        left.write_bytes(recovered(bytes(raw)))
        with SIF.open(left) as sif:
            (found,) = sif.overlays
        with kernel_mount(left, rw=True, offset=found.offset) as point:
            fill_and_empty(point)
        run("e2fsck", "-fp", f"{left}?offset={found.offset}", ok=(0, 1))
        judge.check("filled", bytearray(left.read_bytes()), tmp_path / "scratch", by_e2fsck=False)
    assert {size for _, size in judge.seen} == {12 * MIB, 6 * MIB if grows else 18 * MIB}


def test_a_rebuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old filesystem stays until the new one is complete."""
    seen = interrupted(tmp_path, monkeypatch, overlay(6 * MIB), 12 * MIB, behind=True, job=rebuild_to)
    assert seen == {(6 * MIB, 6 * MIB), (12 * MIB, 12 * MIB)}
