"""Pass 1 beside e2fsck: the same verdicts, exit codes and files for every fault of an inode, and sound images after repairs."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from ext3.constants import Incompat
from ext3.device.base import FileDevice
from ext3.format.superblock import read_superblock
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.policy import Yes
from tests.support.fsck_inodes import Inodes, attribute, sample
from tests.support.inode_faults import CASES, damaged
from tests.support.tools import assert_clean, require, run
from tools.judge_fsck import judge

pytestmark = pytest.mark.compat

OTHERWISE = {
    # e2fsck takes i_blocks for right, and the target of a symbolic link for a block number.
    "blocks of a short symlink",
    "blocks of a long symlink",
    # It sets a feature of ext4.
    "directory with a high size beyond 32 bits of blocks",
}
"""Faults that we repair in another way than e2fsck."""
QUICK = 9
"""One case of so many is tried in every run; the others are slow together."""


def several(names: list[str]) -> list[object]:
    return [pytest.param(name, marks=[] if at % QUICK == 0 else [pytest.mark.slow]) for at, name in enumerate(names)]


def judged(image: Inodes, scratch: Path, *, same: bool = True) -> None:
    require("e2fsck")
    path = scratch / "image"
    path.write_bytes(image.data)
    if same:
        result = judge(path, scratch, "image")
        assert not result.differences, "\n".join([*result.differences, result.their_text, *result.codes])
        return
    with path.open("r+b") as file:
        check(FileDevice(file.fileno()), Yes(), options=CheckOptions(force=True))
    assert_clean(path)


@pytest.mark.parametrize("name", several([*CASES]))
def test_fault(name, scratch):
    judged(damaged(name), scratch, same=name not in OTHERWISE)


AREAS = {
    "value at the end": attribute(b"ab", 88, 4),
    "value beyond the end": attribute(b"ab", 89, 4),
    "value over its entry": attribute(b"ab", 4, 4),
    "value too large": attribute(b"ab", 88, 200),
    "value in an inode": attribute(b"ab", 88, 4, inum=12),
    "hash that does not fit": attribute(b"ab", 88, 4, number=77),
    "name index 0": attribute(b"ab", 0, 0, index=0),
    "no room for an end": attribute(b"a" * 76, 0, 0),
    "room for an end": attribute(b"a" * 72, 0, 0),
    "last word in use": attribute(b"a" * 72, 0, 0) + b"\1\2\3\4",
    "long name": attribute(b"a" * 200, 0, 0),
}


@pytest.mark.parametrize("name", several([*AREAS]))
def test_attribute_area(name, scratch):
    image = sample()
    image.set_area(image["empty"], AREAS[name])
    judged(image, scratch)


BLOCKS = {
    "magic": (0, 0xEA010000),
    "references": (4, 5),
    "blocks": (8, 2),
    "name index": (32, 0x0004),
    "value offset": (32, 0x04000104),
    "value inode": (36, 12),
    "value size": (40, 2000),
    "hash": (44, 1),
}


@pytest.mark.parametrize("name", several([*BLOCKS]))
def test_attribute_block(name, scratch):
    image = sample()
    block = int(image.core(image["attr1"])["i_file_acl"])
    offset, value = BLOCKS[name]
    image.device.write(block * 1024 + offset, struct.pack("<I", value))
    judged(image, scratch)


SHARED = {
    "two files": [("other", 3, "small", 1)],
    "three files": [("other", 3, "small", 1), ("attr1", 0, "small", 1)],
    "one file": [("other", 3, "other", 5)],
    "pointer blocks": [("small", 12, "large", 12)],
    "directory and file": [("small", 1, "dir", 1)],
    "symlink and file": [("small", 1, "long", 0)],
}


@pytest.mark.parametrize("name", several([*SHARED]))
def test_shared_blocks(name, scratch):
    image = sample()
    for target, at, source, slot in SHARED[name]:
        image.core(image[target])["i_block"][at] = image.core(image[source])["i_block"][slot]
    judged(image, scratch)


@pytest.mark.parametrize("field", ["bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table"])
def test_block_of_metadata(field, scratch):
    image = sample()
    image.core(image["other"])["i_block"][2] = int(image.groups[field][1])
    judged(image, scratch)


@pytest.mark.parametrize("field", ["bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table"])
def test_missing_metadata(field, scratch):
    """The repaired image is sound. (e2fsck -fn never ends where an inode table is missing.)"""
    image = sample()
    image.set_group(1, **{field: 0})
    judged(image, scratch, same=False)


@pytest.mark.parametrize("inode_size", [256, pytest.param(1024, marks=pytest.mark.slow)])
@pytest.mark.parametrize("features", ["extents", "extents,inline_data", "^extents,inline_data"])
def test_later_formats(features, inode_size, tmp_path):
    """An image whose ext4 features were cleared: every file keeps its content, in what e2fsck takes for ext3."""
    require("mke2fs", "e2fsck", "debugfs")
    source, image, out = tmp_path / "source", tmp_path / "image", tmp_path / "out"
    (source / "dir" / "empty").mkdir(parents=True)
    for size in (0, 1, 59, 60, 61, 140, 160, 1000, 5000, 300_000):
        (source / f"file{size}").write_bytes(bytes(range(251)) * (size // 251 + 1))
    for number in range(40):
        (source / "dir" / f"name-{number:03}").write_bytes(b"x" * number)
    (source / "link").symlink_to("t" * 100)
    with (source / "sparse").open("wb") as file:
        for at in range(200):
            file.seek(at * 20_480)
            file.write(bytes([at % 255 + 1]) * 700)
    off = "^64bit,^flex_bg,^metadata_csum,^huge_file,^dir_nlink,^extra_isize,^has_journal"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    options = ["-q", "-F", "-t", "ext4", "-b", "1024", "-I", str(inode_size), "-O", f"{off},{features}"]
    run("mke2fs", *options, "-d", source, image)
    clear_features(image)
    with image.open("r+b") as file:
        check(FileDevice(file.fileno()), Yes(), options=CheckOptions(force=True))
    assert_clean(image)
    out.mkdir()
    run("debugfs", "-R", f"rdump / {out}", image)
    (out / "lost+found").rmdir()
    assert not subprocess.run(["diff", "-r", "--no-dereference", source, out], capture_output=True, check=False).stdout
    with image.open("rb") as file:
        assert read_superblock(FileDevice(file.fileno())).incompat == Incompat.FILETYPE


def clear_features(image: Path) -> None:
    """Clear the bits of extents and inline data in all superblocks."""
    data = bytearray(image.read_bytes())
    for group in range(len(data) // (8192 * 1024)):
        at = 1024 + group * 8192 * 1024
        if data[at + 0x38 : at + 0x3A] == b"\x53\xef":
            (bits,) = struct.unpack_from("<I", data, at + 0x60)
            struct.pack_into("<I", data, at + 0x60, bits & ~int(Incompat.EXTENTS | Incompat.INLINE_DATA))
    image.write_bytes(data)
