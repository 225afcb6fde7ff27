"""Reader: the same tree from images of every compressor, and errors of its calls."""

from __future__ import annotations

import errno
import io
import stat
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sifkit import squashfs
from sifkit.errors import SifkitError
from sifkit.squashfs import CorruptSquashfsError, FileWindow, Reader, SeekableWindow
from sifkit.squashfs.schema import (
    DIR_ENTRY,
    DIR_HEADER,
    EXTENDED_DIRECTORY_INODE,
    EXTENDED_REGULAR_INODE,
    REGULAR_INODE,
    SYMLINK_INODE,
)
from sifkit.vfs.file_tree import REGULAR, UNKNOWN, stat_of
from sifkit.vfs.walk import walk
from tests.support.facts import TreeFacts
from tests.support.squashfs_images import facts_of_tree, stats_of_tree
from tests.support.squashfs_tables import FIXTURES, IMAGES
from tools.squashfs_mutants import MemorySource, sample_of

TIME = 1_600_000_000 * 10**9
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
LONG = b"value " * 60


def opened(name: str) -> Reader:
    return Reader(MemorySource((FIXTURES / f"{name}.sqfs").read_bytes()))


def find(reader: Reader, path: bytes) -> int:
    node = reader.root
    for name in path.split(b"/"):
        found = reader.find_name(node, name)
        assert found is not None, path
        node = found
    return node


@pytest.fixture(scope="module")
def facts() -> TreeFacts:
    return facts_of_tree(opened("gzip"))


def test_what_is_in_it(facts: TreeFacts) -> None:
    def of(path: bytes) -> tuple[object, ...]:
        fact = facts[b"/kinds/" + path]
        return oct(fact.mode), fact.uid, fact.gid, fact.links, fact.rdev, fact.size, fact.xattrs

    def note(name: bytes) -> dict[bytes, bytes]:
        return {b"trusted.note": name}

    assert of(b"file") == ("0o100644", 1000, 70000, 1, (0, 0), 6, {b"security.capability": CAPABILITY, b"user.long": LONG})
    noted = note(b"noted-file-again") | {b"user.empty": b"", b"user.long": LONG}
    assert of(b"noted-file") == of(b"noted-file-again") == ("0o106711", 0, 0, 2, (0, 0), 6, noted)
    directory = note(b"noted-directory") | {b"user.long": LONG}
    assert of(b"noted-directory") == ("0o41777", 0, 0, None, (0, 0), 0, directory)
    assert of(b"symlink") == ("0o120777", 0, 0, 1, (0, 0), 12, {})
    assert of(b"noted-symlink") == ("0o120777", 0, 0, 1, (0, 0), 200, note(b"noted-symlink"))
    assert of(b"fifo") == ("0o10644", 0, 0, 1, (0, 0), 0, {})
    assert of(b"noted-fifo") == ("0o10644", 0, 0, 1, (0, 0), 0, note(b"noted-fifo"))
    assert of(b"socket") == ("0o140755", 0, 0, 1, (0, 0), 0, {})
    assert of(b"noted-socket") == ("0o140755", 0, 0, 1, (0, 0), 0, note(b"noted-socket"))
    assert of(b"block") == ("0o60644", 0, 0, 1, (259, 70000), 0, {})
    assert of(b"noted-block") == ("0o60644", 0, 0, 1, (8, 1), 0, note(b"noted-block"))
    assert of(b"character") == ("0o20644", 0, 0, 1, (1, 3), 0, {})
    assert of(b"noted-character") == ("0o20644", 0, 0, 1, (4095, 1048575), 0, note(b"noted-character"))
    assert {b"/kinds/not utf-8 \xff", b"/kinds/new\nline", b"/empty", b"/deep/er/file"} <= facts.keys()
    assert facts[b"/kinds/noted-file-again"].first == b"/kinds/noted-file"
    assert facts[b"/many/a-name-of-some-length-0000"].links == 260
    assert len(facts) == 289
    assert {fact.mtime for path, fact in facts.items() if path != b"/data/small"} == {TIME}
    assert facts[b"/data/small"].mtime == 4_000_000_000 * 10**9


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_holds_the_same(name: str, facts: TreeFacts) -> None:
    reader = opened(name)
    without_xattrs = {path: fact._replace(xattrs={}) for path, fact in facts.items()}
    assert facts_of_tree(reader) == (facts if reader.superblock.has_xattrs else without_xattrs)
    stats_of_tree(reader)
    assert reader.statfs()[:6] == (reader.superblock.bytes_used, 0, 0, reader.superblock.inodes, 0, None)
    assert reader.superblock.bytes_used == (FIXTURES / f"{name}.sqfs").stat().st_size


def test_content() -> None:
    reader = opened("zstd")
    numbers = b"".join(b"%d\n" % number for number in range(1, 1501))
    hole = bytes(50_000) + b"in the middle" + bytes(49_987)
    for path, content in (
        (b"data/tail", numbers),
        (b"data/whole", numbers[:4096]),
        (b"data/hole", hole),
        (b"kinds/file", b"plain\n"),
    ):
        with reader.open_file(find(reader, path)) as file:
            assert file.read_at(0, file.size + 10) == content
            assert file.read_at(3000, 3000) == content[3000:6000]
    assert reader.readlink(find(reader, b"kinds/symlink")) == b"../data/tail"
    assert reader.readlink(find(reader, b"kinds/noted-symlink")) == b"t" * 200


def test_inodes_by_number() -> None:
    reader = opened("xz")
    by_number = {reader.inode(row.node).ino: row.node for _, row, _, _ in walk(reader, reader.root)}
    by_number[reader.inode(reader.root).ino] = reader.root
    assert by_number.keys() == set(range(1, reader.superblock.inodes + 1))
    for ino, node in by_number.items():
        block, offset = reader.exports.block_of(ino - 1)
        assert struct.unpack_from("<Q", block, offset) == (node,)
    assert opened("options").exports.count == 0
    assert reader.inode(find(reader, b"deep/er")).parent == reader.inode(find(reader, b"deep")).ino


def test_windows(tmp_path: Path) -> None:
    """An image in the middle of a file, by its path, by a descriptor, and by a file object."""
    content = (FIXTURES / "lzma.sqfs").read_bytes()
    path = tmp_path / "outer"
    path.write_bytes(b"x" * 777 + content + b"y" * 5000)
    with Reader.open(path, offset=777, size=len(content) + 100) as reader:
        want = facts_of_tree(reader)
    with path.open("rb") as file:
        assert facts_of_tree(Reader(FileWindow(file.fileno(), 777))) == want
        assert facts_of_tree(Reader(SeekableWindow(file, 777, len(content)))) == want
    assert facts_of_tree(Reader(SeekableWindow(io.BytesIO(content)))) == want
    with path.open("rb"), path.open("rb"), pytest.raises(OSError, match="Bad file descriptor"):  # one has its number
        reader.metadata.source.read_at(0, 10)


def test_calls_for_another_type() -> None:
    reader = opened("gzip")
    file, directory, fifo = (find(reader, path) for path in (b"kinds/file", b"kinds", b"kinds/fifo"))
    for call, number in (
        (lambda: reader.find_name(file, b"x"), errno.ENOTDIR),
        (lambda: reader.listing(fifo), errno.ENOTDIR),
        (lambda: reader.readlink(file), errno.EINVAL),
        (lambda: reader.open_file(directory), errno.EISDIR),
        (lambda: reader.open_file(fifo), errno.EINVAL),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == number
    assert reader.find_name(directory, b"no such") is None
    assert reader.find_name(directory, b"") is None
    (listing,) = reader.scan_many([file])
    assert (list(listing.rows), listing.directory_bytes) == ([], 0)
    assert isinstance(listing.problem, NotADirectoryError)


def test_listings_without_stats() -> None:
    reader = opened("gzip")
    directories = [find(reader, path) for path in (b"kinds", b"empty", b"many")]
    quick = list(reader.scan_many(directories, stats=False))
    full = list(reader.scan_many(directories))
    assert [listing.node for listing in quick] == directories
    for one, two in zip(quick, full, strict=True):
        assert [row[:3] for row in one.rows] == [row[:3] for row in two.rows]
        assert {row.stat for row in one.rows} <= {None}
        assert one.directory_bytes == two.directory_bytes
        for row in two.rows:
            assert row.may_have_xattrs is bool(reader.xattrs(row.node))
            assert row.file_type == {stat.S_IFREG: REGULAR}.get(stat.S_IFMT(stat_of(row).mode), row.file_type) != UNKNOWN
    lazy = reader.scan_many([reader.root, 1 << 60])
    assert next(lazy).problem is None
    assert isinstance(next(lazy).problem, CorruptSquashfsError)


def test_threads() -> None:
    """A small cache that all of them use."""
    reader = opened("stored")
    want = facts_of_tree(reader)
    reader.metadata._most = 1
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: facts_of_tree(reader), range(8)):
            assert found == want


# Damage: the fixture's tables are stored, so that their bytes can be changed.


class Damaged:
    """The image with stored tables, with some of its bytes changed."""

    def __init__(self) -> None:
        self.raw = bytearray((FIXTURES / "stored.sqfs").read_bytes())
        self.sound = Reader(MemorySource(bytes(self.raw)))

    def reader(self) -> Reader:
        return Reader(MemorySource(bytes(self.raw)))

    def inode_at(self, path: bytes) -> int:
        node = find(self.sound, path) if path else self.sound.root
        return self.sound.superblock.inode_table_start + (node >> 16) + 2 + (node & 0xFFFF)

    def listing_at(self, path: bytes) -> int:
        inode = self.sound.inode(find(self.sound, path) if path else self.sound.root)
        return self.sound.superblock.directory_table_start + inode.start_block + 2 + inode.offset


def test_an_entry_that_names_another_type() -> None:
    damaged = Damaged()
    at = damaged.listing_at(b"deep/er") + DIR_HEADER.size + DIR_ENTRY.offset_of("type")
    assert damaged.raw[at] == 2
    damaged.raw[at] = 1
    reader = damaged.reader()
    (listing,) = reader.scan_many([find(reader, b"deep/er")])
    assert listing.problem is None
    (row,) = listing.rows
    assert "inode_type is 2, want 1, as its directory entry says" in str(row.stat)
    assert row.file_type == REGULAR
    assert len(list(walk(reader, reader.root))) == 288


def test_a_directory_in_itself() -> None:
    """The walk ends, and says so."""
    damaged = Damaged()
    above, root = damaged.listing_at(b"deep"), damaged.sound.root
    struct.pack_into("<I", damaged.raw, above + DIR_HEADER.offset_of("start_block"), root >> 16)
    struct.pack_into("<H", damaged.raw, above + DIR_HEADER.size, root & 0xFFFF)
    reader = damaged.reader()
    problems: list[str] = []
    count = sum(1 for _ in walk(reader, reader.root, on_problem=lambda path, error: problems.append(str(error))))
    assert count == 287
    assert problems == ["deep/er: the image is damaged: this directory is in it twice"]


def test_a_directory_of_absurd_size() -> None:
    damaged = Damaged()
    at = damaged.inode_at(b"many") + EXTENDED_DIRECTORY_INODE.offset_of("file_size")
    struct.pack_into("<I", damaged.raw, at, 0xFFFFFFFF)
    reader = damaged.reader()
    (listing,) = reader.scan_many([find(reader, b"many")])
    assert isinstance(listing.problem, CorruptSquashfsError)
    assert [row.name for row in listing.rows[:260]] == [b"a-name-of-some-length-%04d" % number for number in range(260)]


def test_a_symlink_of_absurd_size() -> None:
    damaged = Damaged()
    at = damaged.inode_at(b"kinds/symlink")
    struct.pack_into("<I", damaged.raw, at + SYMLINK_INODE.offset_of("symlink_size"), 65535)
    reader = damaged.reader()
    with pytest.raises(CorruptSquashfsError, match="before the end"):
        reader.readlink(find(reader, b"kinds/symlink"))
    damaged.raw[at : at + SYMLINK_INODE.size + 1] = Damaged().raw[at : at + SYMLINK_INODE.size] + b"\0"
    reader = damaged.reader()
    with pytest.raises(CorruptSquashfsError, match="target is one with NUL"):
        reader.readlink(find(reader, b"kinds/symlink"))


def test_attributes_that_are_not_there() -> None:
    """The Stat counts their blocks, so it is unreadable, as for the kernel."""
    damaged = Damaged()
    at = damaged.inode_at(b"kinds/noted-fifo")
    struct.pack_into("<I", damaged.raw, at + 20, 99)
    reader = damaged.reader()
    node = find(reader, b"kinds/noted-fifo")
    for call in (reader.stat, reader.xattrs):
        with pytest.raises(CorruptSquashfsError, match="index is 99, want below 8"):
            call(node)
    (listing,) = reader.scan_many([find(reader, b"kinds")])
    assert [row.name for row in listing.rows if isinstance(row.stat, OSError)] == [b"noted-fifo"]


def test_a_fragment_that_is_not_there() -> None:
    damaged = Damaged()
    struct.pack_into("<I", damaged.raw, damaged.inode_at(b"data/small") + REGULAR_INODE.offset_of("fragment"), 99)
    reader = damaged.reader()
    with pytest.raises(CorruptSquashfsError, match="index is 99, want below"):
        reader.open_file(find(reader, b"data/small")).read_at(0, 10)


def test_a_start_that_means_nothing() -> None:
    """A file that is all in a fragment has no blocks, so it does not matter where they would begin."""
    damaged = Damaged()
    at = damaged.inode_at(b"kinds/file")
    struct.pack_into("<Q", damaged.raw, at + EXTENDED_REGULAR_INODE.offset_of("start_block"), (1 << 64) - 190)
    reader = damaged.reader()
    assert reader.open_file(find(reader, b"kinds/file")).read_at(0, 10) == b"plain\n"


@pytest.mark.parametrize("size", range(0, 31_000, 1500))
def test_a_truncated_image(size: int) -> None:
    raw = (FIXTURES / "stored.sqfs").read_bytes()
    with pytest.raises(SifkitError) as caught:
        Reader(MemorySource(raw[:size]))
    assert caught.value.kind in ("truncated", "not-squashfs")


def test_mutants() -> None:
    """A small part of what tools/fuzz_squashfs.py tries."""
    import random

    from tools.fuzz_squashfs import try_image
    from tools.squashfs_mutants import mutate

    samples = [sample_of((FIXTURES / f"{name}.sqfs").read_bytes()) for name in IMAGES]
    outcomes = set()
    for number in range(200):
        chance = random.Random(f"test {number}")
        outcomes.add(try_image(mutate(samples[number % len(samples)], chance), chance))
    assert {"fine", "CorruptSquashfsError", "TruncatedSquashfsError"} <= outcomes


def test_help_has_a_word_on_everything() -> None:
    for name in squashfs.__all__:
        found = getattr(squashfs, name)
        members = [
            member
            for key, member in vars(found).items()
            if key[0] != "_" and (callable(member) or isinstance(member, property))
        ]
        assert found.__doc__ and all(member.__doc__ for member in members), name
