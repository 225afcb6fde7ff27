"""Inodes made by hand: every kind, across blocks, and what cannot be."""

from __future__ import annotations

import pytest

from sifkit.packed_struct import PackedStruct
from sifkit.squashfs import schema
from sifkit.squashfs.errors import CorruptSquashfsError
from sifkit.squashfs.inode import Inode, InodeTable, stat_of_inode
from tests.support.squashfs_tables import stored_table

IDS = (0, 1000, 4_000_000_000)
NONE = 0xFFFFFFFF
BASE = {"mode": 0o7755, "uid": 1, "guid": 2, "mtime": 4_000_000_000, "inode_number": 9}
COMMON = {"uid": 1000, "gid": 4_000_000_000, "mtime": 4_000_000_000, "ino": 9, "xattr_index": None}


def raw_inode(layout: PackedStruct, kind: int, **fields: int) -> bytes:
    return layout.build(dict.fromkeys(layout.names, 0) | BASE | {"inode_type": kind} | fields)


def table(stream: bytes, *, block_bytes: int = 8192) -> InodeTable:
    return InodeTable(stored_table(stream, block_bytes=block_bytes, before=96), IDS, inodes=20, block_size=4096)


FILE = {"start_block": 500, "fragment": 3, "offset": 77, "file_size": 4096 * 2 + 5}
LARGE_FILE = FILE | {"start_block": 1 << 40, "file_size": 1 << 33, "sparse": 1 << 32, "nlink": 3, "fragment": NONE, "xattr": 6}
DIRECTORY = {"start_block": 8194, "nlink": 4, "file_size": 65535, "offset": 300, "parent_inode": 12}
KINDS = {
    "file": (
        raw_inode(schema.REGULAR_INODE, 2, **FILE),
        {"kind": 2, "mode": 0o107755, "links": 1, "size": 8197, "start_block": 500, "fragment_index": 3}
        | {"fragment_offset": 77, "block_list_at": 32, "block_count": 2},
    ),
    "file without a fragment": (
        raw_inode(schema.REGULAR_INODE, 2, **FILE | {"fragment": NONE}),
        {"kind": 2, "mode": 0o107755, "links": 1, "size": 8197, "start_block": 500, "block_list_at": 32, "block_count": 3},
    ),
    "large file": (
        raw_inode(schema.EXTENDED_REGULAR_INODE, 9, **LARGE_FILE),
        {"kind": 2, "mode": 0o107755, "links": 3, "size": 1 << 33, "start_block": 1 << 40, "block_list_at": 56}
        | {"block_count": 1 << 21, "sparse_bytes": 1 << 32, "xattr_index": 6},
    ),
    "directory": (
        raw_inode(schema.DIRECTORY_INODE, 1, **DIRECTORY),
        {"kind": 1, "mode": 0o047755, "links": 4, "size": 65535, "start_block": 8194, "offset": 300, "parent": 12},
    ),
    "large directory": (
        raw_inode(schema.EXTENDED_DIRECTORY_INODE, 8, **DIRECTORY | {"i_count": 40, "xattr": 0, "file_size": 1 << 31}),
        {"kind": 1, "mode": 0o047755, "links": 4, "size": 1 << 31, "start_block": 8194, "offset": 300, "parent": 12}
        | {"index_count": 40, "xattr_index": 0},
    ),
    "symlink": (
        raw_inode(schema.SYMLINK_INODE, 3, nlink=2, symlink_size=6) + b"target",
        {"kind": 3, "mode": 0o127755, "links": 2, "size": 6},
    ),
    "symlink with attributes": (
        raw_inode(schema.SYMLINK_INODE, 10, nlink=2, symlink_size=6) + b"target\x05\0\0\0",
        {"kind": 3, "mode": 0o127755, "links": 2, "size": 6, "xattr_index": 5},
    ),
    "symlink without attributes after all": (
        raw_inode(schema.SYMLINK_INODE, 10, nlink=2, symlink_size=6) + b"target\xff\xff\xff\xff",
        {"kind": 3, "mode": 0o127755, "links": 2, "size": 6},
    ),
    "block device": (
        raw_inode(schema.DEVICE_INODE, 4, nlink=1, rdev=0x1234_5678),
        {"kind": 4, "mode": 0o067755, "links": 1, "size": 0, "rdev": 0x1234_5678},
    ),
    "character device with attributes": (
        raw_inode(schema.EXTENDED_DEVICE_INODE, 12, nlink=1, rdev=0x501, xattr=8),
        {"kind": 5, "mode": 0o027755, "links": 1, "size": 0, "rdev": 0x501, "xattr_index": 8},
    ),
    "FIFO": (raw_inode(schema.IPC_INODE, 6, nlink=1), {"kind": 6, "mode": 0o017755, "links": 1, "size": 0}),
    "socket with attributes": (
        raw_inode(schema.EXTENDED_IPC_INODE, 14, nlink=1, xattr=1),
        {"kind": 7, "mode": 0o147755, "links": 1, "size": 0, "xattr_index": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name: str) -> None:
    """At the start of a block, behind others, and with a block's end in any place of it."""
    raw, expected = KINDS[name]
    want = Inode(**COMMON | expected)  # type: ignore[arg-type]
    assert table(raw).read(0) == want
    assert table(raw + bytes(100)).read(0) == want
    at = 500
    moved = want if not want.block_list_at else want._replace(block_list_at=want.block_list_at + at)
    for block_bytes in range(at + 1, at + len(raw) + 2):
        assert table(bytes(at) + raw, block_bytes=block_bytes).read(at) == moved


@pytest.mark.parametrize("name", KINDS)
def test_a_table_that_ends_too_early(name: str) -> None:
    raw, _ = KINDS[name]
    rest = 6 if name == "symlink" else 0  # the target is read when it is needed
    for size in range(1, len(raw) - rest):
        with pytest.raises(CorruptSquashfsError, match="before the end"):
            table(raw[:size]).read(0)


def test_what_the_kernel_reports() -> None:
    def blocks(name: str, xattr_bytes: int = 0) -> tuple[int, int, int]:
        stat = stat_of_inode(table(KINDS[name][0]).read(0), xattr_bytes)
        return stat.blocks, stat.major, stat.minor

    assert blocks("file") == (17, 0, 0)
    assert blocks("large file") == ((1 << 32) // 512, 0, 0)
    assert blocks("large file", 513) == ((1 << 32) // 512 + 2, 0, 0)
    assert blocks("directory") == (0, 0, 0)
    assert blocks("block device") == (0, 0x456, 0x12378)
    assert blocks("character device with attributes", 40) == (1, 5, 1)
    stat = stat_of_inode(table(KINDS["file"][0]).read(0))
    assert (stat.ino, stat.dev, stat.uid, stat.gid, stat.size, stat.links) == (9, 0, 1000, 4_000_000_000, 8197, 1)
    assert stat.atime == stat.mtime == stat.ctime == 4_000_000_000 * 10**9
    more_holes_than_bytes = raw_inode(schema.EXTENDED_REGULAR_INODE, 9, **LARGE_FILE | {"sparse": 1 << 60})
    assert stat_of_inode(table(more_holes_than_bytes).read(0)).blocks == 0


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (raw_inode(schema.IPC_INODE, 0, nlink=1), "inode_type is 0, want 1 to 14"),
        (raw_inode(schema.IPC_INODE, 15, nlink=1), "inode_type is 15, want 1 to 14"),
        (raw_inode(schema.IPC_INODE, 65535, nlink=1), "inode_type is 65535"),
        (raw_inode(schema.IPC_INODE, 6, nlink=1, uid=3), "index of its owner is 3, want below 3"),
        (raw_inode(schema.REGULAR_INODE, 2, guid=65535), "index of its owner is 65535"),
        (raw_inode(schema.IPC_INODE, 6, inode_number=0), "inode_number is 0, want 1 to 20"),
        (raw_inode(schema.DIRECTORY_INODE, 1, inode_number=21), "inode_number is 21"),
        (raw_inode(schema.SYMLINK_INODE, 3, symlink_size=65536), "symlink_size is 65536, want at most 65535"),
        (raw_inode(schema.SYMLINK_INODE, 10, symlink_size=NONE), "symlink_size is 4294967295"),
        (raw_inode(schema.EXTENDED_REGULAR_INODE, 9, file_size=1 << 63), f"file_size is {1 << 63}"),
    ],
)
def test_what_cannot_be(raw: bytes, text: str) -> None:
    with pytest.raises(CorruptSquashfsError, match=text) as caught:
        table(raw + bytes(100)).read(0)
    assert caught.value.offset == 96
    assert caught.value.where == "inode 0x0:0"


@pytest.mark.parametrize("node", [200, 65535, 1 << 16, 8194 << 16, 1 << 62, (1 << 64) - 1])
def test_references_to_nothing(node: int) -> None:
    with pytest.raises(CorruptSquashfsError):
        table(KINDS["file"][0]).read(node)
