"""Filesystems in disk images, before real judges: tables of sfdisk, FAT of mkfs.fat; the kernel and e2fsck see our edits."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sifkit.cli import main

from ..support.commands import Run, good, refused
from ..support.disks import MIB, write_gpt, write_mbr
from ..support.tools import assert_clean, kernel_mount, require, run

PARTS = [(MIB, 8 * MIB), (16 * MIB, 40 * MIB)]
START = 16 * MIB


@pytest.fixture
def sifkit(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command in this process: (exit code, stdout, stderr)."""

    def call(*argv: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        sys.stdout.flush()
        found = capfdbinary.readouterr()
        return code, found.out.decode(), found.err.decode()

    return call


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path, inner = tmp_path / "disk.img", tmp_path / "inner.img"
    for file, size in ((path, 64 * MIB), (inner, PARTS[1][1])):
        file.touch()
        os.truncate(file, size)
    run("mke2fs", "-q", "-F", "-t", "ext3", inner)
    run("dd", f"if={inner}", f"of={path}", "bs=1M", "seek=16", "conv=notrunc,sparse")
    return path


@pytest.mark.root
def test_the_kernel_sees_the_edits(disk: Path, sifkit: Run) -> None:
    """What is written into a partition is mounted from there; while it is mounted, it is in use."""
    write_mbr(disk, PARTS)
    (disk.parent / "f").write_bytes(b"content" * 10_000)
    good(sifkit, "mkdir", "-p", "--offset", START, "disk.img:/upper/d")
    good(sifkit, "cp", "--offset", "16M", "f", "disk.img:/upper/d/f")
    assert_clean(disk, START, size=PARTS[1][1])
    with kernel_mount(disk, rw=True, offset=START) as point:
        assert (point / "upper/d/f").read_bytes() == b"content" * 10_000
        (point / "upper/kernel").write_bytes(b"kernel")
        run("sync", "-f", point)
        assert "mounted at" in refused(sifkit, "rm", "--offset", START, "disk.img:/upper/d/f")
        assert "mounted at" in refused(sifkit, "rm", "disk.img:/upper/d/f")
        assert "kernel" in good(sifkit, "ls", "--offset", START, "disk.img", "/upper")
    assert good(sifkit, "cat", "--offset", START, "disk.img:/upper/kernel") == "kernel"
    good(sifkit, "rm", "-r", "--offset", START, "disk.img:/upper/d")
    assert_clean(disk, START, size=PARTS[1][1])


@pytest.mark.parametrize("label", ["dos", "gpt"])
def test_tables_of_sfdisk(label: str, disk: Path, sifkit: Run) -> None:
    """The hint has the offset that sfdisk gave the partition."""
    require("sfdisk")
    table = f"label: {label}\nstart=2048,size=16384\nstart={START // 512},size={PARTS[1][1] // 512}\n"
    run("sfdisk", "-q", disk, stdin=table.encode())
    assert f"give --offset {START} (partition 2)" in refused(sifkit, "ls", "disk.img")
    assert "lost+found" in good(sifkit, "ls", "--offset", START, "disk.img")


def test_a_gpt(disk: Path, sifkit: Run) -> None:
    write_gpt(disk, PARTS)
    assert f"give --offset {START} (partition 2)" in refused(sifkit, "ls", "disk.img")


@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_fat(bits: str, tmp_path: Path, sifkit: Run) -> None:
    """What mkfs.fat makes is no partitioned disk."""
    require("mkfs.fat")
    path = tmp_path / "fat.img"
    path.touch()
    os.truncate(path, 64 * MIB)
    run("mkfs.fat", "-F", bits, path)
    said = refused(sifkit, "ls", path)
    assert "this looks like a FAT filesystem" in said
    assert "offset" not in said
