"""What upper layers change, found by reading only what they touch: the same as a comparison of the whole trees finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifkit.vfs.compare import compare_trees
from sifkit.vfs.file_differences import Difference
from sifkit.vfs.file_tree import TreeListing
from sifkit.vfs.layer_changes import layer_changes
from sifkit.vfs.union import UnionTree

from ....support.memory_tree import MemoryNode, MemoryTree

Content = bytes | None | dict[bytes, Any]
"""Bytes of a file, None for a whiteout, or a directory; b"" as a name makes a directory opaque."""

NAMES = st.sampled_from([b"a", b"b", b"c", b"a-"])
ENTRIES: st.SearchStrategy[Content] = st.recursive(
    st.none() | st.sampled_from([b"", b"one", b"two"]),
    lambda below: st.dictionaries(NAMES | st.just(b""), below, max_size=4),
    max_leaves=12,
)
LAYERS = st.lists(st.dictionaries(NAMES, ENTRIES, max_size=4), min_size=2, max_size=4)


def layer_of(entries: dict[bytes, Content], *, lowest: bool = False) -> MemoryTree:
    tree = MemoryTree()

    def add(above: bytes, found: dict[bytes, Content]) -> None:
        for name, below in found.items():
            path = above + name
            if name == b"" or (below is None and lowest):
                continue
            if isinstance(below, dict):
                xattrs = {b"trusted.overlay.opaque": b"y"} if b"" in below else {}
                tree.add(path, MemoryNode(0o040755, xattrs=xattrs))
                add(path + b"/", below)
            else:
                tree.add(path, MemoryNode(0o020000) if below is None else MemoryNode(0o100644, below))

    add(b"", entries)
    return tree


class CountingTree(MemoryTree):
    """Tree that keeps which directories were read, by path."""

    def scan_many(self, directories: Sequence[int], /, *, stats: bool = True) -> Iterator[TreeListing[int]]:
        for listing in super().scan_many(directories, stats=stats):
            self.read.add(listing.node)
            yield listing

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()


def no_problem(*found: Any) -> None:
    raise AssertionError(found)


def changes(base: UnionTree, view: UnionTree) -> list[Difference]:
    return list(layer_changes(base, view, (base.root, view.root), no_problem))


@given(LAYERS, st.data())
def test_it_finds_what_a_whole_comparison_does(layers: list[dict[bytes, Content]], data: st.DataObject) -> None:
    trees = [layer_of(entries, lowest=not number) for number, entries in enumerate(layers)]
    below = data.draw(st.integers(1, len(trees) - 1))
    base, view = UnionTree(trees[:below]), UnionTree(trees)
    found = changes(base, view)
    assert sorted(found, key=lambda one: one.path) == list(compare_trees(base, view, no_problem))


def test_only_what_a_layer_touches_is_read() -> None:
    root = CountingTree()
    for path in (b"etc", b"etc/deep", b"usr", b"usr/lib", b"opt", b"opt/x", b"opt/x/y"):
        root.add(path, MemoryNode(0o040755))
    for path in (b"etc/motd", b"usr/lib/libc", b"opt/x/y/file"):
        root.add(path, MemoryNode(0o100644, b"old"))
    upper = layer_of({b"etc": {b"motd": b"newer"}, b"opt": None, b"var": {b"log": b"x" * 10}})
    found = changes(UnionTree([root]), UnionTree([root, upper]))
    assert [(one.kind, one.path, one.old_size, one.size) for one in found] == [
        ("modified", b"etc/motd", 3, 5),
        ("deleted", b"opt", None, None),
        ("deleted", b"opt/x", None, None),
        ("deleted", b"opt/x/y", None, None),
        ("deleted", b"opt/x/y/file", 3, None),
        ("added", b"var", None, None),
        ("added", b"var/log", None, 10),
    ]
    names = {node: path for path, node in paths_of(root)}
    assert {names[node] for node in root.read} == {b"", b"etc", b"opt", b"opt/x", b"opt/x/y"}


def paths_of(tree: MemoryTree, node: int = 0, path: bytes = b"") -> Iterator[tuple[bytes, int]]:
    yield path, node
    for name, below in tree.nodes[node].entries.items():
        yield from paths_of(tree, below, f"{path.decode()}/{name.decode()}".strip("/").encode())


def test_a_file_whose_attributes_alone_are_in_the_layer_is_not_read() -> None:
    """A metacopy has the content of the lower file: that is known without reading it."""
    root = layer_of({b"file": b"content"})
    upper = MemoryTree()
    upper.add(b"file", MemoryNode(0o100600, bytes(7), xattrs={b"trusted.overlay.metacopy": b""}))
    base, view = UnionTree([root]), UnionTree([root, upper])
    root.open_file = None  # type: ignore[assignment]
    assert [(one.path, one.what) for one in changes(base, view)] == [(b"file", ("mode",))]


@pytest.mark.parametrize("side", [0, 1])
def test_a_directory_that_cannot_be_read_is_a_problem(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = layer_of({b"d": {b"a": b"", b"b": b""}}), layer_of({b"d": {b"a": None, b"c": b""}, b"e": b""})
    bad, scan = trees[side], trees[side].scan_many

    def cut(directories: Sequence[int], /, *, stats: bool = True) -> Iterator[TreeListing[int]]:
        for listing in scan(directories, stats=stats):
            broken = listing.node != bad.root
            yield listing._replace(rows=[], problem=OSError(117, "damaged")) if broken else listing

    monkeypatch.setattr(bad, "scan_many", cut)
    base, view = UnionTree(trees[:1]), UnionTree(trees)
    problems: list[bytes] = []
    found = layer_changes(base, view, (base.root, view.root), lambda _, path, __: problems.append(path))
    assert [(one.kind, one.path) for one in found] == [("added", b"e")]
    assert set(problems) == {b"d"}
