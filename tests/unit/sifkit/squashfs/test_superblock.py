"""Superblocks: what is refused, and where."""

from __future__ import annotations

import pytest

from sifkit.squashfs.errors import (
    CorruptSquashfsError,
    NotSquashfsError,
    SquashfsError,
    TruncatedSquashfsError,
    UnsupportedSquashfsError,
)
from sifkit.squashfs.reader import Reader
from sifkit.squashfs.schema import SUPERBLOCK
from sifkit.squashfs.superblock import NO_TABLE, SuperblockFlag, read_superblock
from tests.support.squashfs_tables import FIXTURES
from tools.squashfs_mutants import MemorySource

IMAGE = (FIXTURES / "gzip.sqfs").read_bytes()


def changed(**fields: int) -> MemorySource:
    values = SUPERBLOCK.read(IMAGE) | fields
    return MemorySource(SUPERBLOCK.build(values) + IMAGE[SUPERBLOCK.size :])


def test_what_it_says() -> None:
    found = read_superblock(MemorySource(IMAGE))
    assert (found.block_size, found.compression, found.bytes_used) == (4096, 1, len(IMAGE))
    assert (found.inodes, found.fragments, found.ids, found.mkfs_time) == (29, 1, 3, 1_700_000_000)
    assert found.has_xattrs
    assert found.is_exportable
    assert not found.has_compressor_options
    assert found.flags == SuperblockFlag.DUPLICATES | SuperblockFlag.EXPORTABLE
    options = read_superblock(MemorySource((FIXTURES / "options.sqfs").read_bytes()))
    assert not options.has_xattrs
    assert not options.is_exportable
    assert options.has_compressor_options


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"block_log": 11, "block_size": 2048}, "block_log"),
        ({"block_log": 21, "block_size": 1 << 21}, "block_log"),
        ({"block_size": 4097}, "block_size"),
        ({"bytes_used": 95}, "bytes_used"),
        ({"inode_table_start": 95}, "inode_table_start"),
        ({"inode_table_start": 1 << 40}, "inode_table_start"),
        ({"directory_table_start": 100}, "directory_table_start"),
        ({"id_table_start": len(IMAGE)}, "id_table_start"),
        ({"id_table_start": NO_TABLE}, "id_table_start"),
        ({"fragment_table_start": NO_TABLE}, "fragment_table_start"),
        ({"lookup_table_start": 0}, "lookup_table_start"),
        ({"xattr_id_table_start": NO_TABLE - 1}, "xattr_id_table_start"),
        ({"no_ids": 0}, "no_ids"),
        ({"inodes": 0}, "inodes"),
    ],
)
def test_impossible_values(fields: dict[str, int], field: str) -> None:
    with pytest.raises(CorruptSquashfsError) as caught:
        read_superblock(changed(**fields))
    assert (caught.value.where, caught.value.offset, caught.value.field) == ("superblock", 0, field)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"s_major": 3, "s_minor": 1}, "version 3.1"),
        ({"s_minor": 1}, "version 4.1"),
        ({"s_magic": 0x68737173}, "big-endian"),
        ({"compression": 7}, "compressor 7"),
        ({"compression": 0}, "compressor 0"),
    ],
)
def test_images_of_other_times(fields: dict[str, int], text: str) -> None:
    with pytest.raises(UnsupportedSquashfsError, match=text):
        Reader(changed(**fields))


@pytest.mark.parametrize("content", [b"", b"hsq", b"x" * 5000, bytes(96)])
def test_what_is_no_image(content: bytes) -> None:
    with pytest.raises(NotSquashfsError, match="not a squashfs image"):
        read_superblock(MemorySource(content))


@pytest.mark.parametrize("size", [4, 50, 95, 96, len(IMAGE) - 1])
def test_an_image_that_was_cut(size: int) -> None:
    with pytest.raises(TruncatedSquashfsError) as caught:
        read_superblock(MemorySource(IMAGE[:size]))
    assert caught.value.available_bytes == size


def test_tables_that_claim_too_much() -> None:
    """Counts without the bytes for them, and tables that point at themselves."""
    for fields in (
        {"fragments": 0xFFFFFFFF},
        {"no_ids": 65535},
        {"fragment_table_start": 96},
        {"id_table_start": 96},
        {"xattr_id_table_start": len(IMAGE) - 8},
        {"xattr_id_table_start": 96},
        {"root_inode": NO_TABLE},
        {"root_inode": 0xFFFF},
    ):
        with pytest.raises(SquashfsError) as caught:
            Reader(changed(**fields)).stat(SUPERBLOCK.read(changed(**fields).data)["root_inode"])
        assert "\n" not in str(caught.value)
    with pytest.raises(CorruptSquashfsError, match="pointers"):
        _ = Reader(changed(inodes=0xFFFFFFFF)).exports
