"""Superblocks, descriptors and journals of filesystems that mke2fs made, repaired by our check and judged by e2fsck."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ext3.device.base import FileDevice
from ext3.format.group_desc_columns import read_group_columns
from ext3.format.superblock import read_superblock
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.finding import Report
from ext3.fsck.policy import Policy, Yes

from ..support.tools import assert_clean, dumpe2fs, require, run

OPTIONS = {
    "plain": ("40M", ()),
    "2K": ("80M", ("-b", "2048")),
    "4K": ("200M", ("-b", "4096")),
    "small groups": ("40M", ("-g", "4096")),
    "no sparse_super": ("40M", ("-O", "^sparse_super,^resize_inode")),
    "meta_bg": ("400M", ("-b", "1024", "-g", "1024", "-N", "6400", "-O", "meta_bg,^resize_inode")),
    "ext2": ("40M", ("-O", "^has_journal")),
    "128-byte inodes": ("40M", ("-I", "128")),
}


@pytest.fixture(params=OPTIONS)
def made(request, scratch) -> Path:
    require("mke2fs", "e2fsck")
    size, options = OPTIONS[request.param]
    image = scratch / "image.img"
    with image.open("wb") as file:
        file.truncate(int(size[:-1]) << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", *options, image)
    return image


def repaired(image: Path, policy: Policy | None = None, **options: int) -> Report:
    fd = os.open(image, os.O_RDWR)
    try:
        return check(FileDevice(fd), policy or Yes(), options=CheckOptions(force=True, **options))  # type: ignore[arg-type]
    finally:
        os.close(fd)


def overwrite(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_sound_filesystems_are_sound(made):
    report = repaired(made)
    assert not report.findings
    assert report.exit_code == 0
    assert_clean(made)


def test_the_superblock_and_the_descriptors_come_from_a_backup(made):
    before = dumpe2fs(made)
    offset = 1024
    overwrite(made, offset, bytes(1024))
    assert [finding.code for finding in repaired(made).findings] == ["superblock-unusable", "superblock-not-valid"]
    assert_clean(made)
    assert _fixed(dumpe2fs(made)) == _fixed(before)


def _fixed(text: str) -> list[str]:
    """What a repair has no reason to change."""
    changing = ("Last checked", "Last write", "Mount count", "Journal start", "Last mount", "Lifetime")
    return [line for line in text.splitlines() if not line.startswith(changing)]


def test_backups_that_we_write_are_good(made):
    with made.open("rb") as file:
        device = FileDevice(file.fileno())
        superblock = read_superblock(device)
        geometry, size = superblock.geometry, superblock.block_size
        group = geometry.backup_groups[0]
        place = geometry.first_block(group) * size
        own = read_group_columns(device, superblock)
        assert (read_group_columns(device, superblock, copy=group)["bg_inode_table"] == own["bg_inode_table"]).all()
        copies = [block for index in range(geometry.descriptor_blocks) for block in geometry.descriptor_copies(index)]
    overwrite(made, place + 0x60, b"\0\0\0\0")  # a feature word
    for block in copies[1:]:
        overwrite(made, block * size, bytes(size))
    assert repaired(made).exit_code == 0
    assert_clean(made)
    overwrite(made, 1024, bytes(1024))
    run("e2fsck", "-fy", "-b", str(place // size), "-B", str(size), made, ok=(0, 1))
    assert_clean(made)


@pytest.mark.parametrize("size", ["16M", "300M"])
@pytest.mark.parametrize("inode_size", ["128", "256"])
def test_a_new_journal(scratch, size, inode_size):
    require("mke2fs", "e2fsck", "debugfs")
    image = scratch / "image.img"
    with image.open("wb") as file:
        file.truncate(int(size[:-1]) << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-I", inode_size, image)
    sizes = [line for line in dumpe2fs(image).splitlines() if line.startswith("Total journal blocks")]
    for request in ("clri <8>", "ssv jnl_backup_type 0"):
        run("debugfs", "-w", "-R", request, image)
    report = repaired(image)
    assert "journal-missing" in [finding.code for finding in report.findings]
    assert_clean(image)
    assert "has_journal" in dumpe2fs(image, header_only=True)
    now = [line for line in dumpe2fs(image).splitlines() if line.startswith("Total journal blocks")]
    assert sizes
    assert now == sizes
    run("debugfs", "-w", "-R", "mkdir new", image)
    script = image.with_suffix(".script")
    content = image.with_suffix(".content")
    content.write_bytes(b"x" * 1024)
    script.write_text(f"jo\njw -b 5000 {content}\njc\n")
    run("debugfs", "-w", "-f", script, image)
    again = repaired(image)
    assert (again.replayed, again.exit_code) == (1, 0)
    assert_clean(image)
