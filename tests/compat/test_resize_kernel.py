"""Resizes judged by the kernel: interrupted at each sync and then filled, and images aged by it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import ext3
from ext3.device.base import FileDevice, MemoryDevice
from ext3.device.copy_on_write import play

from ..support.recorded_edits import state
from ..support.resizes import aged_image, findings_of, late_journal, made_by_mke2fs, record_resize, resize, write_out
from ..support.tools import assert_clean, fill_and_empty, kernel_mount, requires_root, run

pytestmark = [requires_root, pytest.mark.slow]

MIB = 1 << 20


def _whole(device: MemoryDevice, path: Path) -> str:
    """The content, by the digest of paths and files alone: the kernel changes times."""
    write_out(device, path)
    return _tree(path)


def _tree(path: Path) -> str:
    with kernel_mount(path) as point:
        found = []
        for at, directories, files in os.walk(os.fsencode(point)):
            directories.sort()
            for name in sorted(files):
                full = os.path.join(at, name)
                if os.path.islink(full):
                    found.append((full[len(os.fsencode(point)) :], os.readlink(full)))
                else:
                    found.append((full[len(os.fsencode(point)) :], Path(os.fsdecode(full)).read_bytes()))
        return str(hash(tuple(found)))


@pytest.mark.parametrize("kind", ["grow", "beyond the reserve", "shrink", "journal"])
def test_filled_after_an_interruption(kind: str, tmp_path: Path) -> None:
    """The kernel mounts what is left after each sync, and fills it: nothing is given out twice. A check preens the rest."""
    path = tmp_path / "image"
    if kind == "journal":
        device, size = late_journal(path, 24 * MIB), 12 * MIB
    elif kind == "shrink":
        device = aged_image(18 * MIB, files=40)
        size = ext3.resize.prepare(device).minimum().size_bytes + 200 * 1024
    else:
        options = ["-b", "1024", "-g", "512", "-N", "600"]
        if kind != "grow":
            options += ["-E", "resize=20000"]
        device, size = made_by_mke2fs(path, options, 9 * MIB), 34 * MIB
    content = _whole(device, path)
    before, events = record_resize(device, size)
    assert ext3.format.superblock.read_superblock(device).geometry.resize_inode == (kind != "beyond the reserve")
    ends = [number + 1 for number, event in enumerate(events) if event.kind == "sync"]
    assert len(ends) > 8
    for end in ends:
        write_out(play(MemoryDevice(before), events[:end]), path)
        with kernel_mount(path, rw=True) as point:
            fill_and_empty(point)
        run("e2fsck", "-f", "-p", path, ok=(0, 1))
        assert_clean(path)
        assert _tree(path) == content


AGED = {
    "1K": (["-b", "1024"], 40 * MIB),
    "small inodes": (["-b", "1024", "-I", "128"], 40 * MIB),
    "2K": (["-b", "2048"], 64 * MIB),
    "4K without a resize inode": (["-b", "4096", "-O", "^resize_inode"], 64 * MIB),
    "stride": (["-b", "1024", "-E", "stride=16,stripe_width=32"], 40 * MIB),
    "small groups": (["-b", "1024", "-g", "2048", "-N", "4000", "-J", "size=1"], 40 * MIB),
}


def _age(point: Path, seed: int) -> None:
    """Files are written, half of them deleted, and large ones written, until it is almost full."""
    generator = random.Random(seed)
    directories = [point]
    paths = []
    for number in range(400):
        if number % 20 == 0:
            directories.append(generator.choice(directories) / f"d{number}")
            directories[-1].mkdir()
        path = generator.choice(directories) / f"file {number} {'x' * generator.randrange(60)}"
        path.write_bytes(generator.randbytes(generator.choice([0, 100, 3000, 30_000])))
        if number % 9 == 0:
            os.setxattr(path, "user.own", generator.randbytes(300))
        if number % 7 == 0:
            os.setxattr(path, "user.shared", b"s" * 400)
        if number % 11 == 0:
            os.link(path, f"{path}.link")
            os.symlink("t" * generator.choice([10, 200]), f"{path}.symlink")
        paths.append(path)
    run("sync", "-f", point)
    for path in generator.sample(paths, 200):
        path.unlink()
    free = os.statvfs(point).f_bavail * os.statvfs(point).f_bsize
    for number in range(5):
        with (point / f"large{number}").open("wb") as file:
            file.write(generator.randbytes(free // 10))
            file.seek(free // 3, os.SEEK_CUR)
            file.write(b"behind a hole")
    (point / "large2").unlink()


@pytest.mark.parametrize("name", AGED)
def test_aged_by_the_kernel(name: str, tmp_path: Path) -> None:
    options, size = AGED[name]
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext3", *options, path)
    with kernel_mount(path, rw=True) as point:
        _age(point, len(name))
    with path.open("r+b") as file:
        device = FileDevice(file.fileno())
        content = state(device)
        least = ext3.resize.prepare(device).minimum()
        of_resize2fs = int(run("resize2fs", "-P", path).stdout.split(b":")[-1])
        assert least.blocks <= of_resize2fs * 1.01
        for target in (least.size_bytes, 3 * size, 2 * size + 5000, least.size_bytes):
            plan = resize(device, target)
            assert device.size == target == path.stat().st_size
            assert plan.new.size_bytes <= target
            assert not findings_of(device)
            assert_clean(path)
            assert state(device) == content
        assert plan.new.blocks == least.blocks
        with pytest.raises(ext3.TooSmallError) as caught:
            ext3.resize.prepare(device).plan(least.size_bytes - 1)
        assert caught.value.least == least.size_bytes
        resize(device, size)
        with kernel_mount(path, rw=True) as point:
            fill_and_empty(point)
        assert_clean(path)
