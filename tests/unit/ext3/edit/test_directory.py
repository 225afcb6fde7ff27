"""Names added to, found in and taken from directories: linear ones, indexed ones, and ones that contradict the format."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from ext3.constants import FileType
from ext3.edit import directory as module
from ext3.edit.block_map_edit import BlockMapEditor
from ext3.edit.directory import (
    Directory,
    DirectoryFullError,
    DirectoryRules,
    NameExistsError,
    NameTooLongError,
)
from ext3.errors import CorruptError, NoSpaceError, PathNotFoundError
from ext3.format.dirent_block import new_directory_block
from ext3.format.dirhash import DirHash

from ....support.blocks import MemoryBlocks
from ....support.directory_blocks import parse_block
from ....support.directory_checks import check_directory, make_directory, reopened

SEED = struct.unpack("<4I", bytes.fromhex("0123456789abcdef0123456789abcdef"))


class WeakHash(DirHash):
    """Three hashes for all names: leaves end and begin with the same one."""

    def __call__(self, name: bytes) -> int:
        return 0x10000 * (name[0] % 3)

    def many(self, names: Sequence[bytes]) -> npt.NDArray[np.uint32]:
        return np.array([self(name) for name in names], np.uint32)


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DirHash", WeakHash)


def test_a_new_directory_has_dots() -> None:
    directory = make_directory(1024)
    assert [(entry.name, entry.ino) for entry in directory.entries()] == [(b".", 12), (b"..", 2)]
    assert directory.is_empty()
    assert directory.parent() == 2
    directory.set_parent(99)
    assert directory.parent() == 99


def test_first_fit() -> None:
    """A name goes into the first gap that holds it, as the kernel does it."""
    directory = make_directory(1024)
    for name in (b"one", b"second-name", b"three", b"four"):
        directory.insert(name, 20, FileType.REGULAR)
    directory.remove(b"second-name")
    directory.insert(b"fit", 21, FileType.REGULAR)
    assert [entry.name for entry in directory.entries()] == [b".", b"..", b"one", b"fit", b"three", b"four"]
    directory.remove(b"one")
    directory.insert(b"much-too-long-for-that", 22, FileType.REGULAR)
    assert [entry.name for entry in directory.entries()][-1] == b"much-too-long-for-that"


def test_removal_merges_into_the_record_before() -> None:
    blocks = MemoryBlocks(1000)
    directory = make_directory(1024, blocks=blocks)
    directory.insert(b"a", 20, FileType.REGULAR)
    directory.insert(b"b", 21, FileType.REGULAR)
    directory.remove(b"a")
    block = blocks.read(directory.mapping.i_block[0])
    records = [(record.offset, record.rec_len) for record in parse_block(block, 0, inodes=1000)]
    assert records == [(0, 12), (12, 24), (36, 988)]
    assert b"a" not in block


def test_removal_of_the_first_record_of_a_block() -> None:
    directory = make_directory(1024, dir_index=False)
    names = [b"n%03d" % number + b"x" * 200 for number in range(8)]
    for name in names:
        directory.insert(name, 20, FileType.REGULAR)
    assert directory.size == 2 * 1024
    removed = names[4]
    directory.remove(removed)
    assert directory.find(removed) is None
    assert {entry.name for entry in directory.entries()} == {b".", b"..", *names} - {removed}
    directory.insert(b"again", 23, FileType.REGULAR)
    assert directory.size == 2 * 1024
    check_directory(directory)


def test_an_index_when_the_block_is_full() -> None:
    directory = make_directory(1024)
    names = [b"name-%03d" % number for number in range(100)]
    for name in names:
        directory.insert(name, 20, FileType.REGULAR)
    assert directory.indexed
    assert directory.size == 3 * 1024
    check_directory(directory)
    assert {entry.name for entry in directory.entries()} == {b".", b"..", *names}
    assert directory.parent() == 2
    directory.set_parent(77)
    assert reopened(directory).parent() == 77
    check_directory(directory)


def test_without_dir_index() -> None:
    directory = make_directory(1024, dir_index=False)
    for number in range(300):
        directory.insert(b"name-%03d" % number, 20, FileType.REGULAR)
    assert not directory.indexed
    check_directory(directory)


def test_without_filetype() -> None:
    directory = make_directory(1024, filetype=False)
    directory.insert(b"a", 20, FileType.REGULAR)
    directory.replace(b"a", 21, FileType.SYMLINK)
    assert {entry.file_type for entry in directory.entries()} == {FileType.UNKNOWN}


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1024, 2048])
def test_two_levels(block_size: int) -> None:
    directory = make_directory(block_size, count=60_000)
    names = [b"%d-" % number + b"y" * 236 for number in range(1200 * block_size // 1024)]
    for name in names:
        directory.insert(name, 20, FileType.REGULAR)
    levels = check_directory(directory)
    assert levels == 1
    again = reopened(directory)
    for name in names[::7]:
        assert again.find(name) == (name, 20, FileType.REGULAR)
        again.remove(name)
    assert all((again.find(name) is None) == (number % 7 == 0) for number, name in enumerate(names))
    check_directory(again)


@pytest.mark.usefixtures("weak")
def test_one_hash_over_many_leaves() -> None:
    directory = make_directory(1024, count=9000)
    names = [b"%d" % number + b"z" * 100 for number in range(2000)]
    for name in names:
        directory.insert(name, 20, FileType.REGULAR)
    for name in names[::50]:
        with pytest.raises(NameExistsError):
            directory.insert(name, 21, FileType.REGULAR)
    check_directory(directory, hashed=WeakHash(1, SEED, signed=True))
    again = reopened(directory)
    assert all(again.find(name) for name in names)
    for name in names[::3]:
        again.remove(name)
    assert all((again.find(name) is None) == (number % 3 == 0) for number, name in enumerate(names))


def test_gaps_are_packed_before_a_leaf_is_split() -> None:
    directory = make_directory(1024)
    names = [b"%04d" % number for number in range(200)]
    for name in names:
        directory.insert(name, 20, FileType.REGULAR)
    size = directory.size
    for name in names[::2]:
        directory.remove(name)
    for number in range(8):
        directory.insert(b"%d" % number + b"w" * 40, 21, FileType.REGULAR)
    assert directory.size == size
    check_directory(directory)


def test_mistakes_of_the_caller() -> None:
    directory = make_directory(1024)
    directory.insert(b"a", 20, FileType.REGULAR)
    with pytest.raises(NameExistsError) as exists:
        directory.insert(b"a", 21, FileType.REGULAR)
    assert exists.value.errno == errno.EEXIST
    with pytest.raises(PathNotFoundError):
        directory.remove(b"b")
    with pytest.raises(PathNotFoundError):
        directory.replace(b"b", 20, FileType.REGULAR)
    with pytest.raises(NameTooLongError):
        directory.insert(b"n" * 256, 20, FileType.REGULAR)
    for name in (b"", b"a/b", b"a\0"):
        with pytest.raises(ValueError, match="no name"):
            directory.insert(name, 20, FileType.REGULAR)
    for name in (b".", b".."):
        with pytest.raises(ValueError, match="stays"):
            directory.remove(name)
        with pytest.raises(NameExistsError):
            directory.insert(name, 20, FileType.REGULAR)
    directory.insert(b"n" * 255, 20, FileType.REGULAR)


def test_no_space_leaves_the_directory_as_it_was() -> None:
    blocks = MemoryBlocks(8)
    directory = make_directory(1024, blocks=blocks)
    added = []
    with pytest.raises(NoSpaceError):
        for number in range(10_000):
            directory.insert(b"name-%05d" % number, 20, FileType.REGULAR)
            added.append(b"name-%05d" % number)
    assert len(blocks.used) == directory.size // 1024
    check_directory(directory)
    assert {entry.name for entry in directory.entries()} == {b".", b"..", *added}


def crafted(*contents: bytes, indexed: bool = True, count: int = 100) -> tuple[MemoryBlocks, Directory]:
    blocks = MemoryBlocks(count)
    mapping = BlockMapEditor(blocks, [0] * 15, first=1, end=blocks.end, where="inode 12", metadata=True)
    mapping.append(0, contents, 1)
    rules = DirectoryRules((1, 2, 3, 4), 1000)
    return blocks, Directory(blocks, mapping, rules, ino=12, size=1024 * len(contents), indexed=indexed)


def root_block(entries: list[tuple[int, int]], *, levels: int = 0, version: int = 1, limit: int = 124) -> bytes:
    head = new_directory_block(12, 2, block_size=1024)[:24] + struct.pack("<IBBBB", 0, version, 8, levels, 0)
    table = b"".join(struct.pack("<II", *entry) for entry in entries)
    return (head + struct.pack("<HH", limit, len(entries)) + table[4:]).ljust(1024, b"\0")


def node_block(entries: list[tuple[int, int]]) -> bytes:
    table = b"".join(struct.pack("<II", *entry) for entry in entries)
    return (struct.pack("<IHBB", 0, 1024, 0, 0) + struct.pack("<HH", 127, len(entries)) + table[4:]).ljust(1024, b"\0")


def leaf_block(*names: bytes) -> bytes:
    block = b""
    for number, name in enumerate(names):
        size = (len(name) + 11) & ~3
        if number == len(names) - 1:
            size = 1024 - len(block)
        block += (struct.pack("<IHBB", 20, size, len(name), 1) + name).ljust(size, b"\0")
    return block


def test_a_full_index_is_refused() -> None:
    full = [b"a" * 250, b"b" * 250, b"c" * 250, b"d" * 215]
    root = root_block([(number * 2, 1) for number in range(124)], levels=1)
    blocks, directory = crafted(root, node_block([(number * 2, 2) for number in range(127)]), leaf_block(*full))
    before = dict(blocks.content)
    with pytest.raises(DirectoryFullError, match="index is full") as full_error:
        directory.insert(b"e" * 100, 20, FileType.REGULAR)
    assert full_error.value.errno == errno.ENOSPC
    assert blocks.content == before
    assert directory.size == 3 * 1024


ODD = {
    "levels": root_block([(0, 1)], levels=2),
    "version": root_block([(0, 1)], version=7),
    "limit": root_block([(0, 1)], limit=200),
    "no entries": root_block([]),
    "leads outside": root_block([(0, 900)]),
    "leads to the root": root_block([(0, 0)]),
    "leaf as node": root_block([(0, 1)], levels=1),
    "continues for ever": root_block([(0, 1), *[(0x8000_0001, 1)] * 3]),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_index_is_read_over(what: str) -> None:
    """Names are found one by one; the first name added ends the index."""
    _, directory = crafted(ODD[what], leaf_block(b"here", b"there"))
    entry = directory.find(b"there")
    assert entry is not None
    assert entry.ino == 20
    assert directory.find(b"nowhere") is None
    directory.insert(b"new", 30, FileType.REGULAR)
    if what != "continues for ever":
        assert not directory.indexed
    assert directory.find(b"new") == (b"new", 30, FileType.REGULAR)
    directory.remove(b"here")
    assert {entry.name for entry in directory.entries()} == {b".", b"..", b"there", b"new"}


def test_an_index_that_continues_into_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred entries that all lead to one leaf: a search gives up on the index."""
    monkeypatch.setattr(module, "DirHash", WeakHash)
    root = root_block([(0, 1), *[(0x10001, 1)] * 100])
    _, directory = crafted(root, leaf_block(b"here", b"there"))
    name = next(bytes([byte]) for byte in b"abc" if byte % 3 == 1)
    assert directory.find(name) is None


def broken(offset: int, value: bytes) -> bytes:
    block = bytearray(new_directory_block(12, 2, block_size=1024)[:12] + leaf_block(b"..", b"here", b"there")[:1012])
    struct.pack_into("<H", block, 36 + 4, 1024 - 36)
    block[offset : offset + len(value)] = value
    return bytes(block)


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [
        (28, b"\0\0", "rec_len"),
        (28, b"\x0d\0", "rec_len"),
        (28, b"\x08\0", "rec_len"),
        (28, b"\xff\xff", "rec_len"),
        (30, b"\xff", "name_len"),
        (30, b"\0", "name_len"),
        (24, b"\xff\xff\xff\xff", "inode"),
    ],
)
def test_broken_records(offset: int, value: bytes, field: str) -> None:
    blocks, directory = crafted(broken(offset, value), indexed=False)
    before = dict(blocks.content)
    for work in (
        lambda: directory.find(b"there"),
        lambda: directory.insert(b"new", 20, FileType.REGULAR),
        lambda: directory.remove(b"there"),
        directory.is_empty,
    ):
        with pytest.raises(CorruptError, match="directory inode 12, block 0 at byte 24") as corrupt:
            work()
        assert corrupt.value.field == field
    assert blocks.content == before


def test_unbroken_sample() -> None:
    _, directory = crafted(broken(0, b""), indexed=False)
    assert [entry.name for entry in directory.entries()] == [b".", b"..", b"here", b"there"]


def test_a_hole_in_a_directory() -> None:
    blocks = MemoryBlocks(100)
    mapping = BlockMapEditor(blocks, [0] * 15, first=1, end=blocks.end, where="inode 12")
    mapping.append(0, [new_directory_block(12, 2, block_size=1024)], 1)
    directory = Directory(blocks, mapping, DirectoryRules((1, 2, 3, 4), 1000), ino=12, size=2048, indexed=False)
    with pytest.raises(CorruptError, match="a hole at block 1"):
        directory.find(b"name")


@pytest.mark.parametrize("size", [0, 100, 1 << 40])
def test_sizes_no_directory_has(size: int) -> None:
    blocks = MemoryBlocks(100)
    mapping = BlockMapEditor(blocks, [0] * 15, first=1, end=blocks.end, where="inode 12")
    with pytest.raises(CorruptError, match="i_size"):
        Directory(blocks, mapping, DirectoryRules((1, 2, 3, 4), 1000), ino=12, size=size, indexed=False)
