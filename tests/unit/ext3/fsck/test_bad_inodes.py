"""Inodes that pass 1 marked: released with their entry, or put right."""

from __future__ import annotations

from typing import Any

import pytest

import ext3
from ext3.constants import SUPERBLOCK_OFFSET, Compat
from ext3.device.base import MemoryDevice
from ext3.format.inode import patch_inode
from ext3.format.inode_table import inode_offset
from ext3.format.schema import INODE_CORE, SUPERBLOCK
from ext3.fsck.bad_inodes import judge_bad_inode
from ext3.fsck.context import Context
from ext3.fsck.directories import check_directories
from ext3.fsck.inodes import check_inodes
from ext3.fsck.policy import Ask, Policy
from tests.support.fsck_images import Image, context_of
from tests.support.sessions import empty_image


@pytest.fixture(scope="module")
def sound() -> bytes:
    device = empty_image(4 << 20, block_size=1024, inodes=128)
    with ext3.Filesystem.open(device, "r+") as fs:
        fs.mkdir("/d")
        fs.write_bytes("/d/file", b"content")
        fs.link("/d/file", "/d/twin")
        fs.symlink("target", "/d/short")
        fs.symlink("t" * 100, "/d/long")
        fs.mknod("/d/fifo", 0o010644)
        fs.mknod("/d/socket", 0o140644)
        fs.mknod("/d/device", 0o020644, (5, 1))
    return bytes(device.data)


def damaged(sound: bytes, path: str, **fields: Any) -> tuple[Image, int]:
    image = Image(sound)
    ino = image.ino(path)
    image.set_inode(ino, **fields)
    return image, ino


def passed(image: Image, policy: Policy | None = None) -> Context:
    context = context_of(image, policy)
    check_inodes(context)
    check_directories(context)
    return context


def listing(context: Context) -> set[bytes]:
    return set(
        Image(context.storage.read(0, context.storage.size)).listing(
            Image(context.storage.read(0, context.storage.size)).ino("/d")
        )
    )


def codes(context: Context) -> list[str]:
    return [finding.code for finding in context.report.findings]


@pytest.mark.parametrize(
    ("path", "fields", "code"),
    [
        ("/d/file", {"i_mode": 0o170644}, "inode-mode"),
        ("/d/file", {"i_mode": 0o000644}, "inode-mode"),
        ("/d/short", {"i_size": 5}, "inode-symlink"),
        ("/d/short", {"i_size": 0}, "inode-symlink"),
        ("/d/long", {"i_size": 99}, "inode-symlink"),
        ("/d/fifo", {"i_flags": 0x10, "i_block": [0] * 5 + [7] + [0] * 9}, "inode-fifo"),
        ("/d/socket", {"i_flags": 0x10, "i_block": [0] * 5 + [7] + [0] * 9}, "inode-socket"),
        ("/d/device", {"i_flags": 0x20, "i_block": [0] * 5 + [7] + [0] * 9}, "inode-device"),
    ],
)
def test_what_is_no_file_is_released(sound: bytes, path: str, fields: dict[str, Any], code: str) -> None:
    image, ino = damaged(sound, path, **fields)
    context = passed(image)
    assert code in codes(context)
    name = path.rpartition("/")[2].encode()
    assert name not in listing(context)
    assert not context.census.mode[ino]
    assert not context.bad_inodes
    assert INODE_CORE.view(context.read_inode(ino))[0]["i_dtime"]


def test_every_name_of_it_goes(sound: bytes) -> None:
    image, _ = damaged(sound, "/d/file", i_mode=0o170644)
    context = passed(image)
    assert codes(context).count("inode-mode") == 1
    assert "entry-unused" in codes(context)
    assert not {b"file", b"twin"} & listing(context)


@pytest.mark.parametrize(
    ("path", "field", "value", "code"),
    [
        ("/d/file", "i_faddr", 9, "inode-faddr"),
        ("/d/file", "i_blocks_high", 1, "inode-blocks-high"),
        ("/d/file", "i_file_acl_high", 1, "inode-file-acl-high"),
        ("/d/file", "i_file_acl", 99_999, "inode-file-acl"),
        ("/d", "i_faddr", 9, "inode-faddr"),
    ],
)
def test_fields_are_cleared_and_the_file_stays(sound: bytes, path: str, field: str, value: int, code: str) -> None:
    image, ino = damaged(sound, path, **{field: value})
    context = passed(image)
    assert codes(context).count(code) == 1
    assert not INODE_CORE.view(context.read_inode(ino))[0][field]
    assert listing(context) == {b"file", b"twin", b"short", b"long", b"fifo", b"socket", b"device"}
    assert not context.bad_inodes


def test_an_attribute_block_without_the_feature(sound: bytes) -> None:
    data = bytearray(sound)
    SUPERBLOCK.view(data, 1, SUPERBLOCK_OFFSET)["s_feature_compat"] &= ~int(Compat.EXT_ATTR) & 0xFFFFFFFF
    image = Image(data)
    ino = image.ino("/d/file")
    image.set_inode(ino, i_file_acl=300)
    context = context_of(image)
    context.census.mode[ino] = 0o100644
    context.bad_inodes.add(ino)
    assert not judge_bad_inode(context, ino)
    assert codes(context) == ["inode-file-acl-feature"]
    assert not INODE_CORE.view(context.read_inode(ino))[0]["i_file_acl"]


@pytest.mark.parametrize("field", ["i_faddr", "i_mode"])
def test_what_is_not_to_be_repaired_stays_marked(sound: bytes, field: str) -> None:
    image, ino = damaged(sound, "/d/file", **{field: 0o170644})
    context = passed(image, Ask(lambda finding: False))
    assert ino in context.bad_inodes
    assert b"file" in listing(context)
    assert context.report.left


def test_inodes_that_are_not_marked_are_not_judged(sound: bytes) -> None:
    image, ino = damaged(sound, "/d/file", i_faddr=9)
    context = context_of(image)
    assert not judge_bad_inode(context, ino)
    assert not context.report.findings


def test_a_large_directory_size(sound: bytes) -> None:
    image = Image(sound)
    ino = image.ino("/d")
    at = inode_offset(image.superblock, image.groups, ino)
    raw = patch_inode(image.device.read(at, image.superblock.inode_size), i_size_high=1)
    context = context_of(image)
    context.write_inode(ino, raw)
    context.bad_inodes.add(ino)
    assert not judge_bad_inode(context, ino)
    assert codes(context) == ["inode-size-high"]
    assert not INODE_CORE.view(context.read_inode(ino))[0]["i_size_high"]


def test_the_device_is_read_through_the_repairs(sound: bytes) -> None:
    """A symlink whose block was repaired is valid."""
    image, ino = damaged(sound, "/d/long", i_size=100)
    context = context_of(image)
    block = int(INODE_CORE.view(context.read_inode(ino))[0]["i_block"][0])
    assert isinstance(image.device, MemoryDevice)
    image.device.write(block * 1024, bytes(1024))
    context.write(block, (b"t" * 100).ljust(1024, b"\0"))
    context.bad_inodes.add(ino)
    assert not judge_bad_inode(context, ino)
    assert not context.report.findings
