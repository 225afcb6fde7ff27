"""Overlays inside SIF images before the real judges: e2fsck, debugfs, siftool, the kernel, Apptainer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sifkit.overlay.embedding.attaching import attach, detach
from sifkit.overlay.embedding.in_partition import embed
from sifkit.overlay.images.reservation import EmbedOptions
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, Arch, DataType, Descriptor, PartType

from ..support.partitions import open_partition_filesystem
from ..support.sif_images import STAMP, partition
from ..support.tools import assert_clean, copy_window, find, kernel_mount, require, requires_root, run

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.sif"
    with SIF.create(path, launch=b"#!/usr/bin/env run-singularity\n", stamp=STAMP) as sif:
        sif.add(b"hsqs" + b"root" * 3000, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "motd").write_bytes(b"hello\n" * 1000)
    for number in range(300):
        (tree / f"file-{number}").write_bytes(b"%d" % number)
    return tree


def assert_mounts(path: Path, found: Descriptor, source: Path) -> None:
    with kernel_mount(path, offset=found.offset, rw=True) as point:
        assert (point / "upper" / "etc" / "motd").read_bytes() == (source / "etc" / "motd").read_bytes()
        assert len(os.listdir(point / "upper")) == 301
        (point / "upper" / "new").write_bytes(os.urandom(MIB))


def test_judged_by_e2fsck_and_debugfs(image: Path, source: Path) -> None:
    done = embed(image, CreateOptions(size=64 * MIB, from_dir=source, layout="upper"))
    assert_clean(image, done.partition.offset, size=done.partition.size)
    window = copy_window(image, done.partition.offset, done.partition.size)
    shown = run("debugfs", "-R", "cat /upper/etc/motd", window)
    assert shown.stdout == b"hello\n" * 1000
    detach(image, image.parent / "out.img")
    assert (image.parent / "out.img").read_bytes() == window.read_bytes()
    assert_clean(image.parent / "out.img")


def test_what_mke2fs_made_goes_in_and_out(image: Path, source: Path, tmp_path: Path) -> None:
    require("mke2fs")
    made = tmp_path / "made.img"
    run("mke2fs", "-q", "-t", "ext3", "-d", source, made, "64M")
    content = made.read_bytes()
    attach(image, made, move=True)
    with open_partition_filesystem(image, "overlay") as filesystem:
        assert filesystem.read_bytes("/etc/motd") == b"hello\n" * 1000
    detach(image, made)
    assert made.read_bytes() == content


def test_siftool_sees_the_same_object(image: Path) -> None:
    require("siftool")
    done = embed(image, CreateOptions(size=16 * MIB))
    for size in (16, 8):
        text = run("siftool", "list", image).stdout.decode()
        (line,) = (line for line in text.splitlines() if line.startswith("2 "))
        assert "Ext3/Overlay/amd64" in line and f"{done.partition.offset}-{done.partition.end}" in line.replace(" ", "")
        assert done.partition.size == size * MIB
        done = embed(image, CreateOptions(size=8 * MIB), EmbedOptions(replace=True))
    run("siftool", "del", "2", image)
    embed(image, CreateOptions(size=16 * MIB))
    (tmp := image.parent / "x.txt").write_bytes(b"text")
    run("siftool", "add", "--datatype", "7", image, tmp)
    with SIF.open(image) as sif:
        assert [descriptor.id for descriptor in sif] == [1, 2, 3] and sif.read(3) == b"text"
        assert_clean(image, sif.get(2).offset, size=sif.get(2).size)


@requires_root
def test_the_kernel_mounts_it_over_stale_bytes(image: Path, source: Path) -> None:
    with image.open("ab") as file:
        file.write(os.urandom(80 * MIB))
    done = embed(image, CreateOptions(size=64 * MIB, from_dir=source, layout="upper"))
    assert_mounts(image, done.partition, source)
    assert_clean(image, done.partition.offset, size=done.partition.size)
    done = embed(image, CreateOptions(size=48 * MIB, from_dir=source, layout="upper"), EmbedOptions(replace=True))
    assert_mounts(image, done.partition, source)
    assert_clean(image, done.partition.offset, size=done.partition.size)


@requires_root
def test_the_kernel_mounts_it_more_than_4_gib_into_the_file(image: Path, source: Path) -> None:
    big = image.parent / "big"
    with big.open("wb") as file:
        file.truncate(5 << 30)
    with SIF.open(image, "r+") as sif:
        sif.add(big, DataType.GENERIC)
    done = embed(image, CreateOptions(size=64 * MIB, from_dir=source, layout="upper"))
    assert done.partition.offset > 5 << 30 and image.stat().st_blocks * 512 < 64 * MIB
    assert_mounts(image, done.partition, source)
    assert_clean(image, done.partition.offset, size=done.partition.size)


def test_kill_leaves_the_old_image_or_the_new_one(image: Path, source: Path) -> None:
    require("siftool")
    embed(image, CreateOptions(size=16 * MIB))
    pristine = image.with_name("pristine.sif")
    shutil.copy(image, pristine)
    argv = [sys.executable, "-m", "sifkit", "overlay", "create", "--replace", "-s", "32M", "-d", str(source)]
    argv += ["--layout", "upper", str(image)]
    began = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True)
    whole = time.monotonic() - began
    sizes = set()
    for step in range(8):
        shutil.copy(pristine, image)
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * (0.4 + 0.08 * step))
        child.kill()
        child.wait()
        run("siftool", "list", image)
        with SIF.open(image) as sif:
            (found,) = sif.overlays
            sizes.add(found.size)
            assert_clean(image, found.offset, size=found.size)
        with SIF.open(image, "r+") as sif:
            assert sif.get(found.id).size == found.size
    assert sizes <= {16 * MIB, 32 * MIB} and sizes


@requires_root
def test_apptainer_writes_to_it(tmp_path: Path, source: Path) -> None:
    """A root of nothing but what this test runs: a static busybox."""
    for tool in ("apptainer", "mksquashfs", "busybox"):  # few distributions have the first one: never promised
        if find(tool) is None:
            pytest.skip(f"{tool} is not installed")
    root = tmp_path / "root"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(find("busybox") or "", root / "bin" / "busybox")
    for name in ("sh", "cat"):
        (root / "bin" / name).symlink_to("busybox")
    run("mksquashfs", root, tmp_path / "root.sqfs", "-quiet", "-no-progress")
    image = tmp_path / "a.sif"
    arch = Arch.of_machine(os.uname().machine)
    with SIF.create(image, launch=b"#!/usr/bin/env run-singularity\n") as sif:
        meta = partition(PartType.PRIMARY_SYSTEM, arch=arch)
        sif.add(tmp_path / "root.sqfs", DataType.PARTITION, group=1, metadata=meta)
    embed(image, CreateOptions(size=64 * MIB, from_dir=source, layout="upper", owner=(0, 0)))
    run("apptainer", "exec", "--writable", image, "/bin/sh", "-c", "cat /etc/motd > /copy")
    assert run("apptainer", "exec", image, "/bin/cat", "/copy").stdout == b"hello\n" * 1000
    with open_partition_filesystem(image, "overlay") as filesystem:
        assert filesystem.read_bytes("/upper/copy") == b"hello\n" * 1000
    detach(image, tmp_path / "out.img")
    assert_clean(tmp_path / "out.img")
