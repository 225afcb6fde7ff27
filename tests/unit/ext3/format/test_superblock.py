from __future__ import annotations

import io
import tarfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext3.constants import Incompat, RoCompat
from ext3.device.base import MemoryDevice
from ext3.errors import CorruptError, Ext3Error, NotExt3Error, UnsupportedError
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import feature_names, parse_superblock, read_superblock
from ext3.read.filesystem import Filesystem

from ....support.tiny_image import BLOCK, BLOCKS, INODES, TinyImage


def test_facts() -> None:
    image = TinyImage()
    ident = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
    image.superblock(s_uuid=ident.bytes, s_volume_name=b"caf\xc3\xa9".ljust(16, b"\0"), s_max_mnt_count=-1, s_r_blocks_count=5)
    image.superblock(s_feature_compat=0x3C, s_feature_incompat=6, s_feature_ro_compat=3, s_state=1, s_hash_seed=[1, 2, 3, 4])
    facts = read_superblock(MemoryDevice(image.data))
    assert facts.uuid == ident
    assert facts.label == b"caf\xc3\xa9"
    assert (facts.max_mount_count, facts.reserved_blocks, facts.hash_seed) == (-1, 5, (1, 2, 3, 4))
    assert (facts.block_size, facts.blocks_count, facts.groups_count, facts.inodes_count) == (BLOCK, BLOCKS, 1, INODES)
    assert facts.size_bytes == BLOCK * BLOCKS
    assert facts.features == (
        "has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "needs_recovery", "sparse_super", "large_file",
    )  # fmt: skip
    assert facts.has_journal
    assert facts.needs_recovery
    assert not facts.clean
    assert facts.unsupported_features == ()


def test_revision_0_has_its_own_sizes() -> None:
    image = TinyImage()
    image.superblock(s_rev_level=0, s_inode_size=0, s_first_ino=0)
    facts = read_superblock(MemoryDevice(image.data))
    assert (facts.inode_size, facts.first_ino) == (128, 11)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"s_log_block_size": 7}, "s_log_block_size"),
        ({"s_log_block_size": 0xFFFFFFFF}, "s_log_block_size"),
        ({"s_inode_size": 0}, "s_inode_size"),
        ({"s_inode_size": 192}, "s_inode_size"),
        ({"s_inode_size": 64}, "s_inode_size"),
        ({"s_inode_size": 2048}, "s_inode_size"),
        ({"s_first_data_block": 0}, "s_first_data_block"),
        ({"s_blocks_count": 1}, "s_blocks_count"),
        ({"s_blocks_count": BLOCKS + 1}, "s_blocks_count"),
        ({"s_blocks_per_group": 0}, "s_blocks_per_group"),
        ({"s_blocks_per_group": 8193}, "s_blocks_per_group"),
        ({"s_inodes_per_group": 0}, "s_inodes_per_group"),
        ({"s_inodes_per_group": 8193}, "s_inodes_per_group"),
        ({"s_inodes_count": 65}, "s_inodes_count"),
    ],
)
def test_nonsense_is_named(fields: dict[str, int], field: str) -> None:
    image = TinyImage()
    image.superblock(**fields)
    with pytest.raises(CorruptError) as caught:
        read_superblock(MemoryDevice(image.data))
    assert (caught.value.where, caught.value.field) == ("superblock", field)


def test_large_blocks_are_not_ours() -> None:
    image = TinyImage()
    image.superblock(s_log_block_size=6)
    with pytest.raises(UnsupportedError, match="65536"):
        read_superblock(MemoryDevice(image.data))


def test_features_that_forbid_reading_are_named() -> None:
    image = TinyImage()
    incompat = Incompat.FILETYPE | Incompat.EXTENTS | Incompat.FLEX_BG | 1 << 30
    image.superblock(s_feature_incompat=int(incompat), s_feature_ro_compat=int(RoCompat.SPARSE_SUPER | RoCompat.METADATA_CSUM))
    with pytest.raises(UnsupportedError) as caught:
        image.open()
    assert caught.value.features == ("extent", "flex_bg", "FEATURE_I30", "metadata_csum")
    assert "ext4" in caught.value.hint


def test_a_journal_device_is_told() -> None:
    image = TinyImage()
    image.superblock(s_feature_incompat=int(Incompat.JOURNAL_DEV))
    with pytest.raises(UnsupportedError, match="journal_dev") as caught:
        image.open()
    assert "journal" in caught.value.hint


def test_ro_compat_does_not_forbid_reading_unless_it_changes_bitmaps() -> None:
    image = TinyImage()
    image.superblock(s_feature_ro_compat=int(RoCompat.QUOTA | RoCompat.DIR_NLINK))
    with image.open() as fs:
        assert fs.superblock.unsupported_features == ("dir_nlink", "quota")
    image.superblock(s_feature_ro_compat=int(RoCompat.BIGALLOC))
    with pytest.raises(UnsupportedError, match="bigalloc"):
        image.open()


def test_names_of_unknown_bits() -> None:
    assert feature_names("compat", 1 << 31) == ("FEATURE_C31",)
    assert feature_names("ro_compat", 0) == ()


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("name"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "empty"),
        (bytes(1 << 20), "zeros"),
        (b"hsqs" + bytes(8192), "squashfs"),
        (b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0" + bytes(4096), "SIF"),
        (b"\x1f\x8b\x08" + b"x" * 8192, "gzip"),
        (b"\x1f\x8b\x08short", "gzip"),
        (b"QFI\xfb" + b"x" * 8192, "qcow2"),
        (tar_bytes(), "tar"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 8192, "zstd"),
        ((b"x" * 510 + b"\x55\xaa").ljust(8192, b"x"), "partition"),
    ],
)
def test_something_else_is_recognised(content: bytes, hint: str, tmp_path: Path) -> None:
    with pytest.raises(NotExt3Error) as caught:
        Filesystem.open(io.BytesIO(content))
    assert hint in caught.value.hint
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotExt3Error):
        Filesystem.open(path)


def test_a_lost_primary_is_recognised_by_its_backup() -> None:
    data = bytearray(9000 * 1024)
    row = SUPERBLOCK.view(data, 1, 8193 * 1024)
    row["s_magic"] = 0xEF53
    with pytest.raises(NotExt3Error) as caught:
        Filesystem(MemoryDevice(data))
    assert caught.value.backup == (8193, 1024) and not caught.value.hint


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200), st.integers(0, 1023))
def test_any_bytes(noise: bytes, at: int) -> None:
    raw = bytearray(TinyImage().data[1024:2048])
    noise = noise[: 1024 - at]
    raw[at : at + len(noise)] = noise
    try:
        facts = parse_superblock(bytes(raw), device_size=BLOCK * BLOCKS)
    except Ext3Error as error:
        assert str(error)
        return
    assert facts.size_bytes <= BLOCK * BLOCKS
    assert facts.groups_count <= BLOCKS // 8
    assert facts.inodes_count == facts.groups_count * facts.inodes_per_group


def test_where_backups_and_descriptors_lie() -> None:
    image = TinyImage()
    image.superblock(s_feature_ro_compat=1)
    sparse = read_superblock(MemoryDevice(image.data)).geometry
    assert [group for group in range(130) if sparse.has_super(group)] == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]
    assert [sparse.descriptor_block(index) for index in (0, 1, 5)] == [2, 3, 7]
    image.superblock(s_feature_incompat=0x12, s_first_meta_bg=1)
    meta = read_superblock(MemoryDevice(image.data)).geometry
    assert meta.descriptor_block(0) == 2
    assert meta.descriptor_block(1) == 1 + 32 * 8192
    image.superblock(s_feature_ro_compat=0)
    plain = read_superblock(MemoryDevice(image.data)).geometry
    assert all(plain.has_super(group) for group in range(10))
    assert plain.descriptor_block(1) == 1 + 32 * 8192 + 1
