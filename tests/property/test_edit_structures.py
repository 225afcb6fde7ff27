"""Random edits of directories, maps and attributes against plain dictionaries; and random damage, which is never a surprise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ext3.constants import FileType
from ext3.edit.block_map_edit import BlockMapEditor
from ext3.edit.directory import Directory
from ext3.edit.xattr_edit import AttributeEditor, AttributeSharing
from ext3.errors import Ext3Error, NoSpaceError, XattrError
from ext3.format.dirhash import DirHash
from ext3.format.dirhash_columns import MIN_COLUMN_NAMES, hash_columns

from ..support.blocks import MemoryBlocks, count_blocks, read_attributes
from ..support.directory_checks import check_directory, make_directory, reopened

any_name = st.one_of(
    st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"0")),
    st.integers(0, 60).map(lambda number: b"name-%d" % number),
    st.integers(0, 60).map(lambda number: b"%03d-" % number + b"l" * 180),
).filter(lambda name: name not in (b".", b".."))
inode_numbers = st.integers(1, 1_000_000)


@given(
    st.sampled_from([0, 1, 2]),
    st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=5),
    st.tuples(*[st.integers(0, 2**32 - 1)] * 4),
    st.booleans(),
)
def test_one_name_hashes_as_many_do(version: int, names: list[bytes], seed: tuple[int, int, int, int], signed: bool) -> None:
    hashed = DirHash(version, seed, signed=signed)
    assert hash_columns(hashed, names * MIN_COLUMN_NAMES).tolist() == [hashed(name) for name in names] * MIN_COLUMN_NAMES


class DirectoryMachine(RuleBasedStateMachine):
    """A directory beside a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = make_directory(1024)
        self.want: dict[bytes, int] = {}

    @rule(name=any_name, ino=inode_numbers)
    def insert(self, name: bytes, ino: int) -> None:
        try:
            self.directory.insert(name, ino, FileType.REGULAR)
        except FileExistsError:
            assert name in self.want
        else:
            assert name not in self.want
            self.want[name] = ino

    @rule(first=st.integers(0, 400), count=st.integers(10, 120), length=st.integers(0, 200))
    def insert_many(self, first: int, count: int, length: int) -> None:
        for number in range(first, first + count):
            self.insert(b"m%d" % number + b"-" * length, number + 1)

    @precondition(lambda self: self.want)
    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.want)))
        assert self.directory.replace(name, 77, FileType.SYMLINK).ino == self.want[name]
        self.want[name] = 77

    @precondition(lambda self: self.want)
    @rule(data=st.data(), share=st.integers(1, 4))
    def remove(self, data: st.DataObject, share: int) -> None:
        for name in data.draw(st.permutations(sorted(self.want)))[: len(self.want) // share or 1]:
            assert self.directory.remove(name).ino == self.want.pop(name)

    @rule(name=any_name)
    def find(self, name: bytes) -> None:
        entry = self.directory.find(name)
        assert (entry.ino if entry else None) == self.want.get(name)

    @rule()
    def open_again(self) -> None:
        self.directory = reopened(self.directory)

    @invariant()
    def is_right(self) -> None:
        check_directory(self.directory)
        found = {entry.name: entry.ino for entry in self.directory.entries()}
        assert found == {b".": 12, b"..": 2, **self.want}
        assert self.directory.is_empty() == (not self.want)


TestDirectory = pytest.mark.slow(DirectoryMachine.TestCase)
TestDirectory.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)

map_edits = st.lists(
    st.tuples(
        st.sampled_from(["map", "punch", "truncate"]),
        st.one_of(st.integers(0, 30), st.integers(250, 300), st.integers(520, 530), st.integers(65_780, 65_850)),
        st.sampled_from([1, 2, 5, 64, 65, 300, 700]),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=80)
@given(map_edits, st.sampled_from([1, 3, 10_000]))
def test_maps(edits: list[tuple[str, int, int]], longest: int) -> None:
    blocks = MemoryBlocks(6000)
    blocks.longest = longest
    mapping = BlockMapEditor(blocks, [0] * 15, first=blocks.first, end=blocks.end, where="inode 12")
    want: dict[int, int] = {}
    for what, at, count in edits:
        if what == "map":
            try:
                found = mapping.map(at, count, 100)
            except NoSpaceError:
                continue
            for logical, physical, length in found:
                for step in range(length):
                    assert want.setdefault(logical + step, physical + step) == physical + step
            assert want.keys() >= set(range(at, at + count))
        elif what == "punch":
            mapping.punch(at, count)
            want = {logical: block for logical, block in want.items() if not at <= logical < at + count}
        else:
            mapping.truncate(at)
            want = {logical: block for logical, block in want.items() if logical < at}
        runs = mapping.runs(0, mapping.limit)
        assert {at + step: block + step for at, block, length in runs for step in range(length)} == want
        data, pointers = count_blocks(mapping)
        assert data == len(want)
        assert data + pointers == len(blocks.used) == mapping.sectors // 2
    assert len(set(want.values())) == len(want)


attribute_names = st.sampled_from([b"user.a", b"user.longer_name", b"trusted.overlay.opaque", b"security.capability"])
attribute_edits = st.lists(
    st.tuples(st.integers(0, 3), attribute_names, st.none() | st.sampled_from([0, 1, 20, 70, 200, 500, 900])), max_size=40
)


@settings(deadline=None)
@given(attribute_edits, st.sampled_from([0, 96, 352]))
def test_attributes(edits: list[tuple[int, bytes, int | None]], area: int) -> None:
    blocks = MemoryBlocks(50)
    sharing = AttributeSharing()
    some = [
        AttributeEditor(blocks, bytes(area), 0, first=1, end=blocks.end, where="inode 12", sharing=sharing) for _ in range(4)
    ]
    want: list[dict[bytes, bytes]] = [{} for _ in some]
    for who, name, length in edits:
        try:
            if length is None:
                some[who].remove(name)
                del want[who][name]
            else:
                some[who].set(name, b"v" * length)
                want[who][name] = b"v" * length
        except XattrError:
            if length is None:
                assert name not in want[who]
            else:
                assert length + sum(map(len, want[who].values())) > 1024 - 32 - 4 - 4 * 64
        assert [read_attributes(one) for one in some] == want
        held = [one.file_acl for one in some if one.file_acl]
        assert blocks.used == set(held)
        for block in blocks.used:
            assert int.from_bytes(blocks.read(block)[4:8], "little") == held.count(block)


@cache
def good(count: int) -> Directory:
    """A directory with so many names."""
    directory = make_directory(1024, count=400)
    for number in range(count):
        directory.insert(b"%d-" % number + b"d" * 40, 20, FileType.REGULAR)
    return directory


def damaged(data: st.DataObject, count: int) -> Directory:
    """A directory of some blocks in which bytes were changed."""
    blocks = good(count)._blocks
    assert isinstance(blocks, MemoryBlocks)
    blocks = blocks.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.sampled_from(sorted(blocks.content)))
        at = data.draw(st.one_of(st.integers(0, 60), st.integers(0, 1020)))
        value = data.draw(
            st.sampled_from([b"\0", b"\xff", b"\0\0", b"\xff\xff", b"\1\0\0\0", b"\x0c\0"]) | st.binary(max_size=4)
        )
        raw = blocks.content[block]
        blocks.content[block] = (raw[:at] + value + raw[at + len(value) :])[:1024]
    return reopened(good(count), blocks=blocks)


@pytest.mark.slow
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from([3, 60, 2500]))
def test_damaged_directories(data: st.DataObject, count: int) -> None:
    """Every edit works or raises one of our errors."""
    directory = damaged(data, count)
    works: list[Callable[[], object]] = [
        lambda: directory.find(b"1-" + b"d" * 40),
        lambda: directory.find(b"nothing"),
        lambda: directory.remove(b"2-" + b"d" * 40),
        lambda: [directory.insert(b"n%d-" % number + b"e" * 90, 21, FileType.REGULAR) for number in range(40)],
        lambda: list(directory.entries()),
        lambda: directory.set_parent(9),
    ]
    for work in data.draw(st.permutations(works)):
        try:
            work()
        except Ext3Error as error:
            assert "\n" not in str(error)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damaged_maps(data: st.DataObject) -> None:
    """Truncating ends in one of our errors with nothing changed, or gives back what is then no longer used."""
    blocks = MemoryBlocks(3000)
    mapping = BlockMapEditor(blocks, [0] * 15, first=blocks.first, end=blocks.end, where="inode 12")
    mapping.map(0, 700, 1)
    mapping.map(66_000, 3, 1)
    pointers = sorted(blocks.content)
    for _ in range(data.draw(st.integers(1, 5))):
        block = data.draw(st.sampled_from(pointers))
        at = data.draw(st.integers(0, 255)) * 4
        value = data.draw(st.sampled_from([0, 2**32 - 1, *pointers]) | st.integers(1, 3500)).to_bytes(4, "little")
        blocks.content[block] = blocks.content[block][:at] + value + blocks.content[block][at + 4 :]
    before = dict(blocks.content), mapping.i_block
    try:
        count_blocks(mapping)
        mapping.runs(0, mapping.limit)
        mapping.truncate(data.draw(st.integers(0, 800)))
    except (Ext3Error, KeyError):  # KeyError: a pointer to a block that is free, which MemoryBlocks finds
        assert mapping.i_block == before[1]
        assert blocks.content == before[0]
