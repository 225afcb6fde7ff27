"""Changes that the upper layers of a container make to the lower ones.

Only directories that an upper layer has are read, of the lower ones too: whatever else is in these is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .file_differences import ComparedFile, Difference, OnSideProblem, SideError, file_differences
from .file_tree import Row, Stat, is_directory
from .union import UnionNode, UnionTree
from .walk import Walker, walk

__all__ = ["layer_changes"]

_Nodes = tuple[UnionNode, UnionNode]
"""Nodes of a directory in the lower layers and in all."""


def layer_changes(
    base: UnionTree, view: UnionTree, tops: _Nodes, on_problem: OnSideProblem, *, owners: bool = True
) -> Iterator[Difference]:
    """Iterate over the differences from ``base`` to ``view``, which has the layers of ``base`` and others above them.

    ``tops``: the directory to compare, in both. Parents come first, names in byte order; paths are relative to the top. Files
    that cannot be read are passed to ``on_problem``, and nothing is said of them. Without ``owners`` owners are not compared.
    """
    if tops[0] == tops[1]:
        return
    comparison = _Comparison(base, view, tops, on_problem, owners=owners)
    pending = [comparison.directory(b"", tops)]
    while pending:
        for found in pending[-1]:
            if not isinstance(found, Difference):
                pending.append(comparison.directory(*found))
                break
            yield found
        else:
            pending.pop()


class _Comparison:
    def __init__(self, base: UnionTree, view: UnionTree, tops: _Nodes, on_problem: OnSideProblem, *, owners: bool) -> None:
        self._trees = base, view
        self._problems = partial(on_problem, base), partial(on_problem, view)
        self._owners = owners
        # One level: what is below a directory of the base is not read ahead.
        self._walkers = [
            Walker(tree, top, levels=1, on_problem=problem)
            for tree, top, problem in zip(self._trees, tops, self._problems, strict=True)
        ]

    def directory(self, path: bytes, nodes: _Nodes) -> Iterator[Difference | tuple[bytes, _Nodes]]:
        """Yield the differences in one directory, and the directories in it that are to be compared."""
        lower, merged = (walker.read(path, node) for walker, node in zip(self._walkers, nodes, strict=True))
        if lower is None or merged is None:
            return
        old, new = ({row.name: row for row in listing.rows} for listing in (lower, merged))
        for name in sorted(old.keys() | new.keys()):
            where = path + b"/" + name if path else name
            one, other = old.get(name), new.get(name)
            if one is None:
                if lower.problem is None:
                    yield from self._alone(where, new[name], 1)
            elif other is None:
                if merged.problem is None:
                    yield from self._alone(where, one, 0)
            elif one.node != other.node:  # else no upper layer has it
                yield from self._both(where, one, other)
                if is_directory(one) and is_directory(other) and self._may_enter(where, (one.node, other.node)):
                    yield where, (one.node, other.node)

    def _may_enter(self, path: bytes, nodes: _Nodes) -> bool:
        return all(walker.may_enter(path, node, 0) for walker, node in zip(self._walkers, nodes, strict=True))

    def _both(self, path: bytes, one: Row[UnionNode], other: Row[UnionNode]) -> Iterator[Difference]:
        """Yield the differences of a file that both trees have, and what was below it, or is now."""
        stats = self._stat(path, one, 0), self._stat(path, other, 1)
        if stats[0] is None or stats[1] is None:
            return
        files = [
            ComparedFile(tree, found, row.node, row.may_have_xattrs)
            for tree, found, row in zip(self._trees, stats, (one, other), strict=True)
            if found is not None
        ]
        try:
            same = one.node[-1] == other.node[-1]  # of a metacopy, too
            what = file_differences(*files, owners=self._owners, same_content=same)
        except SideError as error:
            self._problems[error.tree is self._trees[1]](path, error.error)
            return
        if what:
            yield Difference.of(path, *stats, what)
        for row, there, side in ((one, other, 0), (other, one, 1)):
            if is_directory(row) and not is_directory(there):
                yield from self._below(path, row, side)

    def _alone(self, path: bytes, row: Row[UnionNode], side: int) -> Iterator[Difference]:
        """Yield a file that only one tree has, and everything below it."""
        if (found := self._stat(path, row, side)) is not None:
            yield self._only(path, found, side)
        if is_directory(row):
            yield from self._below(path, row, side)

    def _below(self, path: bytes, row: Row[UnionNode], side: int) -> Iterator[Difference]:
        for walked in walk(self._trees[side], row.node, path, on_problem=self._problems[side]):
            if (found := self._stat(walked.path, walked.row, side)) is not None:
                yield self._only(walked.path, found, side)

    def _only(self, path: bytes, found: Stat, side: int) -> Difference:
        return Difference.of(path, None, found) if side else Difference.of(path, found, None)

    def _stat(self, path: bytes, row: Row[UnionNode], side: int) -> Stat | None:
        """Return the Stat of a file; None, and a problem, if it cannot be read."""
        if isinstance(row.stat, OSError):
            self._problems[side](path, row.stat)
            return None
        assert row.stat is not None
        return row.stat
