"""Inodes of ext4 on ext3: extents and data in the inode become block maps, and keep their content."""

from __future__ import annotations

import struct

import pytest

import ext3
from ext3.constants import InodeFlag
from ext3.format.dirent_block import record_size
from ext3.format.extent_tree import EXTENT, EXTENT_HEADER
from ext3.format.schema import DIRENT
from ext3.fsck.policy import Ask, CheckOnly, Preen, Stopped
from tests.support.fsck_inodes import BLOCK, Inodes, attribute, codes, pass_1, repair, sample
from tests.support.later_inodes import to_extents, to_inline

LATER = int(InodeFlag.EXTENTS | InodeFlag.INLINE_DATA)


def blocks_of(image: Inodes, name: str) -> list[int]:
    with ext3.Filesystem.open(image.device) as fs:
        return [first + at for _, first, count in fs.block_map(image[name]).extents for at in range(count)]


def entry(ino: int, name: bytes, file_type: int, length: int = 0) -> bytes:
    length = length or record_size(len(name))
    return (DIRENT.packer.pack(ino, length, len(name), file_type) + name).ljust(length, b"\0")


def plain(image: Inodes, name: str) -> bool:
    return not image.core(image[name])["i_flags"] & LATER


@pytest.mark.parametrize("node", [False, True])
@pytest.mark.parametrize("name", ["small", "large", "empty", "long"])
def test_extents(name, node):
    image = sample()
    content = sample().read(name) if name != "long" else b"t" * 200
    to_extents(image, name, node=image.free_block() if node and name != "empty" else 0)
    report = repair(image)
    assert codes(report)[0] == "inode-extents"
    assert plain(image, name)
    if name == "long":
        with ext3.Filesystem.open(image.device) as fs:
            assert fs.readlink("/long") == content
    else:
        assert image.read(name) == content
    assert image.superblock.incompat == Inodes(image.data).superblock.incompat


def test_extents_of_a_directory():
    image = sample()
    names = image.listing(image["dir"])
    to_extents(image, "dir", node=image.free_block())
    repair(image)
    assert image.listing(image["dir"]) == names


def test_unwritten_extent_reads_as_zeros():
    image = sample()
    to_extents(image, "small")
    root = bytearray(image.core(image["small"])["i_block"].tobytes())
    row = EXTENT.view(root, 1, EXTENT_HEADER.size)[0]
    row["ee_len"] += 32768
    image.core(image["small"])["i_block"] = struct.unpack("<15I", root)
    repair(image)
    assert image.read("small") == bytes(3000)


def test_block_that_an_extent_shares():
    image = sample()
    content = image.read("small")
    image.core(image["other"])["i_block"][0] = blocks_of(image, "small")[0]
    to_extents(image, "small")
    assert "blocks-shared" in codes(repair(image))
    assert image.read("small") == content
    assert image.read("other")[:BLOCK] == content[:BLOCK]


def test_blocks_of_a_tree_are_kept_until_the_inode_is_written():
    image = sample()
    node = image.free_block()
    to_extents(image, "large", node=node)
    context = pass_1(image)
    assert context.held[node]
    assert not context.census.used[node]
    assert node in context.freed


@pytest.mark.parametrize("flag", [InodeFlag.EXTENTS, InodeFlag.INLINE_DATA])
def test_invalid_is_cleared(flag):
    image = sample()
    image.core(image["small"])["i_flags"] |= int(flag)
    found = codes(repair(image))
    assert found[0] in ("inode-extents-invalid", "inode-inline-data-invalid")
    assert "small" not in Inodes(image.data).numbers


@pytest.mark.parametrize("flag", [InodeFlag.EXTENTS, InodeFlag.INLINE_DATA])
@pytest.mark.parametrize("name", ["fifo", "char", "short"])
def test_special_files_lose_the_flag_only(name, flag):
    image = sample()
    image.core(image[name])["i_flags"] |= int(flag)
    assert codes(repair(image)) == ["inode-later-flag-special"]
    assert name in Inodes(image.data).numbers
    assert plain(image, name)


@pytest.mark.parametrize("size", [0, 1, 59, 60, 61, 100])
def test_inline_file(size):
    image = sample()
    data = bytes(range(size))
    to_inline(image, "empty", data)
    assert codes(repair(image)) == ["inode-inline-data"]
    assert image.read("empty") == data
    assert plain(image, "empty")
    assert image.core(image["empty"])["i_blocks"] == (2 if size else 0)


def test_other_attributes_stay():
    image = sample()
    to_inline(image, "empty", b"d" * 30, others=attribute(b"mine", 88, 4))
    repair(image)
    with ext3.Filesystem.open(image.device) as fs:
        assert list(fs.xattrs("/empty")) == [b"user.mine"]


def test_inline_directory():
    """The parent is in the first word, entries in two parts."""
    image = sample()
    small, other, large = (image[name] for name in ("small", "other", "large"))
    image.core(image["empty"])["i_mode"] = 0o40755
    first = entry(small, b"first", 1) + entry(other, b"second", 1, 56 - record_size(5))
    second = entry(large, b"third", 1, 24)
    to_inline(image, "empty", struct.pack("<I", 2) + first + second)
    image.lead_name(2, b"empty", image["empty"], 2)
    for ino in (small, other, large):
        image.core(ino)["i_links_count"] = 2
    image.core(image["empty"])["i_links_count"] = 2
    image.core(2)["i_links_count"] += 1
    report = repair(image)
    assert codes(report)[0] == "inode-inline-data"
    assert image.listing(image["empty"]) == {b"first": small, b"second": other, b"third": large}
    assert image.core(image["empty"])["i_size"] == BLOCK


def test_preening():
    image = sample()
    to_extents(image, "small")
    with pytest.raises(Stopped):
        pass_1(image, Preen())
    image = sample()
    to_inline(image, "empty", b"x" * 30)
    assert codes(pass_1(image, Preen())) == ["inode-inline-data"]


def test_refused():
    image = sample()
    to_extents(image, "small")
    to_inline(image, "empty", b"x" * 30)
    context = pass_1(image, Ask(lambda finding: False))
    assert {"inode-extents", "inode-inline-data"} <= set(codes(context))
    assert not context.storage.pending


def test_check_alone():
    image = sample()
    to_extents(image, "large", node=image.free_block())
    before = image.data
    context = pass_1(image, CheckOnly())
    assert image.data == before
    assert context.census.mode[image["large"]]
