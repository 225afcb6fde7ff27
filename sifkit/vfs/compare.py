"""Differences between two trees; see ``file_differences`` for what is compared."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

from .file_differences import ComparedFile, Difference, OnSideProblem, SideError, file_differences
from .file_tree import FileTree
from .walk import walk

__all__ = ["compare_trees"]

N = TypeVar("N", bound=Hashable)
LOST_FOUND = b"lost+found"


class _Side(Generic[N]):
    """One of the trees, with its files by path; paths have no leading slash."""

    def __init__(self, tree: FileTree[N], on_problem: OnSideProblem) -> None:
        self.tree = tree
        self.files: dict[bytes, ComparedFile[N]] = {}
        self._on_problem = on_problem
        self._unknown: set[bytes] = set()
        """Paths of files and directories that could not be read."""
        for path, row, _, _ in walk(tree, tree.root, on_problem=self.problem):
            if isinstance(row.stat, OSError):
                self.problem(path, row.stat)
            elif row.stat is not None:
                self.files[path] = ComparedFile(tree, row.stat, row.node, row.may_have_xattrs)

    def problem(self, path: bytes, error: OSError) -> None:
        self._unknown.add(path)
        self._on_problem(self.tree, path, error)

    def lacks(self, path: bytes) -> bool:
        """Return True if there is no such file, False also if that is not known."""
        if path in self.files:
            return False
        while self._unknown and path:
            if path in self._unknown:
                return False
            path = path.rpartition(b"/")[0]
        return b"" not in self._unknown

    def without_lost_found(self, other: _Side[Any]) -> None:
        """Leave out an empty lost+found that the other side lacks: every new ext3 filesystem has one."""
        is_empty = not any(path.startswith(LOST_FOUND + b"/") for path in self.files)
        if LOST_FOUND in self.files and LOST_FOUND not in other.files and is_empty:
            del self.files[LOST_FOUND]


def compare_trees(
    old: FileTree[Any], new: FileTree[Any], on_problem: OnSideProblem, *, owners: bool = True
) -> Iterator[Difference]:
    """Iterate over the differences from ``old`` to ``new``, in byte order of the paths.

    Files that cannot be read are passed to ``on_problem``, and nothing is said of them and of what may be below them. Without
    ``owners`` owners are not compared.
    """
    before, after = _Side(old, on_problem), _Side(new, on_problem)
    before.without_lost_found(after)
    after.without_lost_found(before)
    for path in sorted(before.files.keys() | after.files.keys()):
        one, other = before.files.get(path), after.files.get(path)
        if one is None:
            assert other is not None
            if before.lacks(path):
                yield Difference.of(path, None, other.stat)
        elif other is None:
            if after.lacks(path):
                yield Difference.of(path, one.stat, None)
        else:
            try:
                what = file_differences(one, other, owners=owners)
            except SideError as found:
                (before if found.tree is old else after).problem(path, found.error)
                continue
            if what:
                yield Difference.of(path, one.stat, other.stat, what)
