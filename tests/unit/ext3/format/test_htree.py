"""The index of a directory: judged, searched, planned and packed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3.format.dirent_block import new_directory_block
from ext3.format.htree import (
    DxNode,
    OddIndexError,
    leaves_of,
    node_limit,
    node_violations,
    pack_node,
    pack_root,
    probe,
    read_node,
    read_root_info,
    root_limit,
    root_violations,
)
from ext3.format.htree_columns import IndexPlan, plan_index
from ext3.format.violation import Violation

from ....support.directory_damage import INDEX_DAMAGE, damaged_index, directory_blocks, indexed_image

SIZE = 1024
HEAD = new_directory_block(12, 2, block_size=SIZE)


def root(*entries: tuple[int, int], levels: int = 0) -> bytes:
    hashes, blocks = zip(*entries, strict=True)
    return pack_root(HEAD, 1, levels, hashes, blocks)


def node(*entries: tuple[int, int]) -> bytes:
    hashes, blocks = zip(*entries, strict=True)
    return pack_node(hashes, blocks, SIZE)


def changed(block: bytes, at: int, code: str, value: int) -> bytes:
    copy = bytearray(block)
    struct.pack_into("<" + code, copy, at, value)
    return bytes(copy)


def test_every_byte_of_a_root_and_a_node() -> None:
    want = struct.pack("<IHBB4sIHBB4s", 12, 12, 1, 2, b".", 2, SIZE - 12, 2, 2, b"..")
    want += struct.pack("<IBBBBHHIII", 0, 1, 8, 0, 0, 124, 2, 7, 0x1000, 8)
    assert root((0, 7), (0x1000, 8)) == want.ljust(SIZE, b"\0")
    want = struct.pack("<IHBBHHIII", 0, SIZE, 0, 0, 127, 2, 7, 0x1000, 8)
    assert node((0, 7), (0x1000, 8)) == want.ljust(SIZE, b"\0")
    assert (root_limit(SIZE), node_limit(SIZE)) == (124, 127)


def test_what_was_packed_is_read() -> None:
    assert read_root_info(root((0, 1), levels=1)) == (1, 1)
    for block, data in ((0, root((0, 3), (10, 1), (10, 2))), (4, node((0, 3), (10, 1), (10, 2)))):
        found = read_node(data, block, blocks=5)
        assert (found.block, found.hashes, found.blocks, found.full) == (block, [0, 10, 10], [3, 1, 2], False)


def test_the_upper_bits_of_a_block_number_are_not_looked_at() -> None:
    data = root((0, 0xF0000003))
    assert read_node(data, 0, blocks=4).blocks == [3]
    assert not list(node_violations(data, 0, blocks=4))


@pytest.mark.parametrize(
    ("at", "code", "value", "field"),
    [
        (4, "H", 16, "rec_len"),
        (16, "H", 12, "rec_len"),
        (24, "I", 1, "reserved_zero"),
        (28, "B", 3, "hash_version"),
        (29, "B", 9, "info_length"),
        (30, "B", 2, "indirect_levels"),
        (31, "B", 1, "unused_flags"),
    ],
)
def test_no_root(at: int, code: str, value: int, field: str) -> None:
    data = changed(root((0, 1)), at, code, value)
    assert [found.field for found in root_violations(data)] == [field]
    with pytest.raises(OddIndexError, match=field):
        read_root_info(data)


@pytest.mark.parametrize(
    ("start", "data"), [(32, root((0, 1), (10, 2), (20, 3))), (8, node((0, 1), (10, 2), (20, 3)))], ids=["root", "node"]
)
@pytest.mark.parametrize(
    ("at", "code", "value", "fields"),
    [
        (0, "H", 123, ["limit"]),
        (0, "H", 0, ["limit"]),
        (2, "H", 0, ["count"]),
        (2, "H", 200, ["count"]),
        (4, "I", 0, ["block of entry 0"]),
        (4, "I", 4, ["block of entry 0"]),
        (12, "I", 900, ["block of entry 1"]),
        (8, "I", 30, ["hash of entry 2"]),
        (2, "H", 5, ["hash of entry 3", "block of entry 3", "block of entry 4"]),
    ],
)
def test_entries_that_cannot_be(start: int, data: bytes, at: int, code: str, value: int, fields: list[str]) -> None:
    block = 0 if start == 32 else 1
    read_node(data, block, blocks=4)
    assert not list(node_violations(data, block, blocks=4))
    data = changed(data, start + at, code, value)
    assert [found.field for found in node_violations(data, block, blocks=4)] == fields
    with pytest.raises(OddIndexError, match=fields[0]):
        read_node(data, block, blocks=4)


@pytest.mark.parametrize(("at", "code", "value"), [(0, "I", 5), (4, "H", 12)])
def test_a_leaf_is_no_node(at: int, code: str, value: int) -> None:
    data = changed(node((0, 1)), at, code, value)
    assert [found.field for found in node_violations(data, 1, blocks=4)] == ["inode, rec_len"]
    with pytest.raises(OddIndexError):
        read_node(data, 1, blocks=4)


def test_names_where_the_root_should_be_say_nothing_of_it() -> None:
    data = changed(changed(root((0, 1)), 16, "H", 12), 24, "I", 7)
    assert [(found.where, found.field, found.want) for found in root_violations(data)] == [
        ("index root at byte 12", "rec_len", SIZE - 12)
    ]


def test_violations_go_on_behind_the_first() -> None:
    data = root((0, 9), (20, 2), (10, 0), (5, 3))
    for at, code, value in ((24, "I", 7), (30, "B", 9), (31, "B", 3), (32, "H", 9)):
        data = changed(data, at, code, value)
    assert [found.field for found in root_violations(data)] == ["reserved_zero", "unused_flags", "indirect_levels"]
    assert [(found.field, found.got) for found in node_violations(data, 0, blocks=4)] == [
        ("limit", 9),
        ("hash of entry 2", "0xa"),
        ("hash of entry 3", "0x5"),
        ("block of entry 0", 9),
        ("block of entry 2", 0),
    ]


def index_faults(image: bytes) -> list[str]:
    """What the readers of the blocks of a damaged directory's index raise, and that it is the first violation of each."""
    starts = directory_blocks(bytearray(image))
    faults: list[str] = []

    def judge(found: list[str], read: Callable[[], object]) -> None:
        try:
            read()
        except OddIndexError as error:
            assert found[:1] == [str(error)]
            faults.extend(found)
        else:
            assert not found

    for logical, start in enumerate(starts):
        data = image[start : start + SIZE]
        if not logical:
            judge([str(found) for found in root_violations(data)], partial(read_root_info, data))
        found = [str(found) for found in node_violations(data, logical, blocks=len(starts))]
        if not logical or not any(data[:4]):
            judge(found, partial(read_node, data, logical, blocks=len(starts)))
    return faults


HIDDEN = {"other hash version", "a level more", "a level less", "leaves swapped", "nodes swapped", "node: leaves swapped"}
"""Damage that no block of the index shows by itself."""


@pytest.mark.parametrize("name", INDEX_DAMAGE)
def test_the_readers_raise_the_first_violation(name: str) -> None:
    recipe = INDEX_DAMAGE[name]
    assert not index_faults(indexed_image(recipe.levels))
    assert bool(index_faults(bytes(damaged_index(recipe)))) == (name not in HIDDEN)


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0, 1, 2, 3, 8, 12, 124, 127, 255])), max_size=4), st.booleans())
def test_the_readers_raise_the_first_violation_of_any_block(changes: list[tuple[int, int]], is_root: bool) -> None:
    entries = ((0, 1), (10, 2), (20, 3))
    data = root(*entries) if is_root else node(*entries)
    for at, value in changes:
        data = changed(data, at, "B", value)
    block = 0 if is_root else 1
    reads: list[tuple[Iterator[Violation], Callable[[], object]]] = [
        (node_violations(data, block, blocks=4), partial(read_node, data, block, blocks=4))
    ]
    if is_root:
        reads.append((root_violations(data), partial(read_root_info, data)))
    for violations, read in reads:
        found = [str(violation) for violation in violations][:1]
        try:
            read()
        except OddIndexError as error:
            assert found == [str(error)]
        else:
            assert not found


def tree() -> dict[int, DxNode]:
    """Two nodes; the hash 20 goes on in the second leaf of the first node and into the second node."""
    blocks = {
        0: root((0, 1), (21, 2), levels=1),
        1: node((0, 3), (10, 4), (20, 5), (21, 6)),
        2: node((0, 7), (21, 8), (30, 9)),
    }
    return {number: read_node(data, number, blocks=10) for number, data in blocks.items()}


@pytest.mark.parametrize(
    ("number", "leaf", "more"),
    [(0, 3, []), (8, 3, []), (10, 4, []), (18, 4, []), (20, 5, [6, 7, 8]), (22, 8, []), (30, 9, []), (0xFFFFFFFC, 9, [])],
)
def test_search(number: int, leaf: int, more: list[int]) -> None:
    nodes = tree()
    frames = probe(number, 1, nodes.__getitem__)
    assert frames[-1].child == leaf
    assert list(leaves_of(frames, number, nodes.__getitem__, blocks=10)) == [leaf, *more]


def test_a_search_ends() -> None:
    data = root((0, 1), *[(21, 1)] * 50)
    nodes = {0: read_node(data, 0, blocks=3)}
    frames = probe(0, 0, nodes.__getitem__)
    with pytest.raises(OddIndexError):
        list(leaves_of(frames, 20, nodes.__getitem__, blocks=3))


@given(st.lists(st.integers(1, 2**31 - 1).map(lambda number: number * 2), min_size=1, max_size=100, unique=True), st.data())
def test_entries_are_inserted_in_place(hashes: list[int], data: st.DataObject) -> None:
    number = hashes.pop()
    hashes = [0, *sorted(hashes)]
    found = read_node(pack_node(hashes, range(1, 1 + len(hashes)), SIZE), 5, blocks=1000)
    slot = found.slot(number) + 1
    inserted = found.inserted(slot, number, 999)
    assert inserted == found.packed(*found.with_entry(slot, number, 999))
    assert read_node(inserted, 5, blocks=1000).hashes == [0, *sorted([*hashes[1:], number])]


def planned(count: int, block_size: int = SIZE, length: int = 60) -> IndexPlan | None:
    hashes = np.random.default_rng(1).integers(0, 1 << 31, count, np.uint32) * np.uint32(2)
    return plan_index(hashes, np.full(count, length, np.int64), block_size)


@pytest.mark.parametrize(("count", "nodes"), [(20, 0), (1600, 0), (1700, 2), (100_000, 76)])
def test_a_plan_leads_to_each_leaf(count: int, nodes: int) -> None:
    plan = planned(count)
    assert plan is not None
    assert plan.nodes == nodes
    data = plan.pack(12, 2)
    assert len(data) == (1 + nodes) * SIZE
    parts = {at: read_node(data[at * SIZE : (at + 1) * SIZE], at, blocks=plan.blocks) for at in range(1 + nodes)}
    assert read_root_info(data[:SIZE]) == (1, bool(nodes))
    for first, leaf in zip(plan.hashes.tolist(), range(1 + nodes, plan.blocks), strict=True):
        if not first & 1:
            assert probe(first, bool(nodes), parts.__getitem__)[-1].child == leaf


def test_too_many_names_for_an_index() -> None:
    assert planned(300_000) is None
