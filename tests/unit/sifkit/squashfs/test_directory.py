"""Directory listings made by hand: what is read of them, and what cuts them short."""

from __future__ import annotations

import errno

import pytest

from sifkit.squashfs import directory
from sifkit.squashfs.directory import Entry, find_entry, read_directory
from sifkit.squashfs.errors import CorruptSquashfsError
from sifkit.squashfs.inode import Inode
from sifkit.squashfs.schema import DIR_ENTRY, DIR_HEADER, DIR_INDEX, EXTENDED_DIRECTORY_INODE
from tests.support.squashfs_tables import stored_table

Names = list[tuple[bytes, int]]


def run(names: Names, *, start: int = 7, first: int = 100, count: int | None = None) -> bytes:
    """A run of entries: (name, kind), inodes one behind the other."""
    found = DIR_HEADER.packer.pack(len(names) - 1 if count is None else count, start, first)
    for number, (name, kind) in enumerate(names):
        found += DIR_ENTRY.packer.pack(number, number - 1, kind, len(name) - 1) + name
    return found


def files(*names: bytes) -> Names:
    return [(name, 2) for name in names]


def inode(listing: bytes, *, more: int = 0, **fields: int) -> Inode:
    return Inode(1, 0o040755, 0, 0, 0, 5, 2, len(listing) + 3 + more, None, **fields)


def read(listing: bytes, *, more: int = 0, behind: bytes = b"") -> tuple[list[bytes], str]:
    """Names, and the problem as text."""
    found = read_directory(stored_table(listing + behind, before=50), inode(listing, more=more))
    problem = found.problem
    if problem is not None:
        assert isinstance(problem, CorruptSquashfsError)
        assert problem.errno == getattr(errno, "EUCLEAN", errno.EIO)
        assert problem.offset == 50
        assert problem.where == "directory inode 5"
    return [entry.name for entry in found.entries], str(problem or "")


def test_entries() -> None:
    listing = run([(b"a", 2), (b"b", 1)]) + run([(b"c", 3)], start=9000, first=1)
    found = read_directory(stored_table(listing), inode(listing))
    assert found.problem is None
    assert found.entries == [
        Entry(b"a", 7 << 16 | 0, 2, 99),
        Entry(b"b", 7 << 16 | 1, 1, 100),
        Entry(b"c", 9000 << 16, 3, 0),
    ]
    assert found.stored_bytes == len(listing) + 2


def test_nothing_in_it() -> None:
    """Sizes below that of ``.`` and ``..`` are nothing, too, as for the kernel."""
    table = stored_table(b"x" * 100)
    for size in (0, 1, 3):
        found = read_directory(table, inode(b"")._replace(size=size))
        assert (found.entries, found.problem, found.stored_bytes) == ([], None, 0)
        assert find_entry(table, table, 0, inode(b"")._replace(size=size), b"x") is None


@pytest.mark.parametrize("block_bytes", [1, 2, 9, 13, 64, 8192])
def test_blocks_end_anywhere(block_bytes: int) -> None:
    names = [b"n%03d" % number + b"x" * (number % 50) for number in range(300)]
    listing = run(files(*names[:256])) + run(files(*names[256:]))
    table = stored_table(b"....." + listing + b"others", block_bytes=block_bytes)
    found = read_directory(table, inode(listing, offset=5))
    assert found.problem is None
    assert [entry.name for entry in found.entries] == names


def test_names_out_of_order_are_sorted() -> None:
    assert read(run(files(b"b", b"a", b"c"))) == ([b"a", b"b", b"c"], "")


@pytest.mark.parametrize("name", [b"a/b", b"/", b"a\0", b"\0", b".", b".."])
def test_names_that_cannot_be(name: bytes) -> None:
    names, problem = read(run(files(b"-", name, b"zz")))
    assert names == [b"-"]
    assert "name of an entry" in problem
    assert read(run(files(b"...", b"..a", b".a"))) == ([b"...", b"..a", b".a"], "")


@pytest.mark.parametrize("kind", [0, 8, 14, 65535])
def test_types_that_cannot_be(kind: int) -> None:
    assert read(run([(b"a", 2), (b"b", kind)])) == (
        [b"a"],
        f"directory inode 5 at byte 50: type of the entry 'b' is {kind}, want 1 to 7",
    )


def test_a_name_that_is_there_twice() -> None:
    names, problem = read(run(files(b"a", b"b", b"a")))
    assert names == [b"a", b"b"]
    assert "want one that is there once" in problem


def test_longest_names() -> None:
    assert read(run(files(b"n" * 256))) == ([b"n" * 256], "")
    names, problem = read(run(files(b"a", b"n" * 257)))
    assert names == [b"a"]
    assert "size of a name is 256, want below 256" in problem
    listing = run(files(b"a")) + DIR_HEADER.packer.pack(0, 0, 0) + DIR_ENTRY.packer.pack(0, 0, 2, 65535) + b"rest"
    assert "size of a name is 65535" in read(listing)[1]


def test_runs_of_too_many() -> None:
    assert "count of a run is 256, want below 256" in read(run(files(b"a"), count=256))[1]
    names, problem = read(run(files(b"a")) + run(files(b"b"), count=0xFFFFFFFF))
    assert names == [b"a"]
    assert "count of a run is 4294967295" in problem


def test_listings_that_end_elsewhere() -> None:
    whole = run(files(b"a", b"bb"))
    assert "end is in an entry" in read(whole[:-1], behind=b"bxx")[1]
    assert "end is in an entry" in read(run(files(b"a"), count=3))[1]
    assert "end is in an entry" in read(whole + b"trailing")[1]
    names, problem = read(whole, more=1000)
    assert names == [b"a", b"bb"]
    assert "end is in the next table" in problem
    table = stored_table(whole)
    for fields in ({"offset": 8192}, {"offset": 65535}, {"offset": 5000}, {"start_block": 9999}, {"start_block": 1}):
        assert read_directory(table, inode(whole, **fields)).problem is not None


def test_listings_that_repeat_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes that decompress to names without end are not read to the end."""
    monkeypatch.setattr(directory, "NAMES_PER_BYTE", 0)
    listing = b"".join(run(files(*(b"%d" % number for number in range(at, at + 256)))) for at in range(10_000, 90_000, 256))
    repeated = read_directory(stored_table(listing), inode(listing))
    assert "names in its listing" in str(repeated.problem)
    assert len(repeated.entries) < 6000
    found, listing, raw = indexed([b"%d" % number for number in range(10_000, 30_000)])
    few = found._replace(index_count=1)
    assert find_entry(stored_table(listing), stored_table(raw), 0, found, b"29999") is not None
    with pytest.raises(CorruptSquashfsError, match="names in its listing"):
        find_entry(stored_table(listing), stored_table(raw), 0, few, b"29999")


def indexed(names: list[bytes], *, spoil: int | None = None) -> tuple[Inode, bytes, bytes]:
    """A large directory, its listing, and its inode with the index behind it: an entry for every 256 names."""
    listing, index = b"", b""
    for at in range(0, len(names), 256):
        if at:
            size = len(names[at]) - 1 if spoil is None else spoil
            index += DIR_INDEX.packer.pack(len(listing), len(listing) // 8192 * 8194, size) + names[at]
        listing += run(files(*names[at : at + 256]), start=at)
    return inode(listing, index_count=-(-len(names) // 256) - 1), listing, bytes(EXTENDED_DIRECTORY_INODE.size) + index


def test_names_are_found_by_the_index() -> None:
    names = sorted(b"name-%05d" % number for number in range(0, 20_000, 2))
    found, listing, raw = indexed(names)
    table, inodes = stored_table(listing), stored_table(raw)
    for number in (0, 1, 255, 256, 257, 4999, 9999):
        entry = find_entry(table, inodes, 0, found, names[number])
        assert entry is not None
        assert (entry.name, entry.node) == (names[number], number // 256 * 256 << 16 | number % 256)
    for missing in (b"", b"a", b"name-00001", b"name-19999", b"z"):
        assert find_entry(table, inodes, 0, found, missing) is None
    assert read_directory(table, found).problem is None


def test_a_damaged_index() -> None:
    found, listing, raw = indexed([b"name-%05d" % number for number in range(2000)], spoil=256)
    with pytest.raises(CorruptSquashfsError, match="index of directory inode 5 at byte 0: size of a name is 256"):
        find_entry(stored_table(listing), stored_table(raw), 0, found, b"name-00300")
    found, listing, raw = indexed([b"name-%05d" % number for number in range(2000)])
    with pytest.raises(CorruptSquashfsError, match="before the end"):
        find_entry(stored_table(listing), stored_table(raw[:60]), 0, found, b"name-00300")


def test_a_name_in_the_sound_part() -> None:
    listing = run(files(b"a", b"b")) + run(files(b"c/d"))
    table = stored_table(listing)
    found = find_entry(table, table, 0, inode(listing), b"b")
    assert found is not None
    with pytest.raises(CorruptSquashfsError, match="name of an entry"):
        find_entry(table, table, 0, inode(listing), b"e")
