"""Field paths of tools/damage.py: each names the bytes that it says."""

from __future__ import annotations

import pytest

import ext3
from ext3.device.base import MemoryDevice
from tools.damage import Damage
from tools.ext3_mutants import samples


@pytest.fixture(scope="module")
def image() -> bytes:
    return samples()[1].data  # 128-byte inodes, a journal without a log


@pytest.fixture
def damage(image):
    return Damage(image)


def reread(damage: Damage) -> ext3.Filesystem:
    return ext3.Filesystem(MemoryDevice(bytes(damage.data)))


@pytest.mark.parametrize(
    "path",
    [
        "super.s_mtime",
        "super.s_jnl_blocks[3]",
        "group[0].bg_used_dirs_count",
        "inode[/d].i_mtime",
        "inode[2].i_ctime",
        "inode[/large].i_block[14]",
        "map[/large:3]",
        "map[/large:40]",
        "map[/large:271]",
        "map[/large:65807]",
        "entry[/d:twin].inode",
        "dirent[/:0:12].rec_len",
        "xattr[/large].h_refcount",
        "xattr[/large:1].e_hash",
        "journal.s_errno",
        "log[5].h_sequence",
        "block[700:16]",
        "byte[1600]",
    ],
)
def test_a_value_that_is_set_is_there(path, damage, image):
    before = damage.get(path)
    damage.set(path, 77)
    assert damage.get(path) == 77
    changed = [at for at, (one, two) in enumerate(zip(image, damage.data, strict=True)) if one != two]
    assert all(damage.offset(path) <= at < damage.offset(path) + 4 for at in changed)
    damage.set(path, before)
    assert damage.data == image


def test_the_reader_sees_the_same(damage):
    damage.set("inode[/large].i_mtime", 12345)
    damage.set("super.s_volume_name", b"named")
    damage.set("entry[/d:e].name", b"E")
    damage.set("group[0].bg_free_blocks_count", 3)
    fs = reread(damage)
    assert fs.stat("/large").mtime == 12345 * 10**9
    assert fs.superblock.label == b"named"
    assert b"E" in [entry.name for entry in fs.scandir("/d")]
    assert fs.superblock.free_blocks == 3


def test_pointers_of_all_levels(damage):
    """The block that a pointer names is the one that the reader has for that place."""
    for logical in (0, 11, 12, 39, 12 + 256 + 3, 12 + 256 + 256**2 + 3):
        assert damage.get(f"map[/large:{logical}]") == damage.block_of("/large", logical)


def test_bits(damage):
    block, ino = damage.block_of("/large", 0), damage.ino("/large")
    for path in (f"used.block[{block}]", f"used.inode[{ino}]"):
        assert damage.get(path) == 1
        damage.set(path, 0)
        assert damage.get(path) == 0
    fs = reread(damage)
    assert not fs.block_bitmap(0)[block - fs.superblock.first_data_block]
    assert not fs.inode_bitmap(0)[ino - 1]


def test_values_of_other_fields_and_functions(damage):
    damage.set("map[/large:0]", "map[/d:0]")
    assert damage.get("map[/large:0]") == damage.block_of("/d", 0)
    damage.set("super.s_state", lambda d: d.get("super.s_state") | 2)
    assert damage.get("super.s_state") == 3
    damage.set("super.s_mnt_count", "number[/d]")
    assert damage.get("super.s_mnt_count") == damage.fs.lookup("/d")


@pytest.mark.parametrize(
    "path", ["nothing", "nothing[1].x", "super.s_nothing", "inode[/missing].i_mode", "entry[/d:missing].inode"]
)
def test_wrong_paths(path, damage):
    with pytest.raises((ValueError, LookupError, ext3.Ext3Error)):
        damage.set(path, 1)
