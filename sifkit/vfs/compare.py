"""Differences between two trees.

Compared are type, mode, owner, content, symlink target, device number and xattrs, but not times, inode numbers or data
placement.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ext3 import hostio

from .file_tree import FileTree, Stat
from .walk import walk
from .whiteouts import is_whiteout

__all__ = ["Difference", "OnSideProblem", "compare_trees"]

N = TypeVar("N", bound=Hashable)
CHUNK_BYTES = 1 << 20
LOST_FOUND = b"lost+found"


OnSideProblem = Callable[[FileTree[Any], bytes, OSError], None]
"""Callback for a file that cannot be read: the tree it is in, its path there, and the error."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of one file. ``what``, if modified: any of type mode owner content target device xattrs."""

    kind: Literal["added", "deleted", "modified"]
    path: bytes
    mode: int
    what: tuple[str, ...] = ()


class _File(NamedTuple, Generic[N]):
    stat: Stat
    node: N
    may_have_xattrs: bool


class _SideError(Exception):
    """Error of reading a file of one side."""

    def __init__(self, side: _Side[Any], error: OSError) -> None:
        super().__init__(str(error))
        self.side = side
        self.error = error


class _Side(Generic[N]):
    """One of the trees, with its files by path; paths have no leading slash."""

    def __init__(self, tree: FileTree[N], on_problem: OnSideProblem) -> None:
        self.tree = tree
        self.files: dict[bytes, _File[N]] = {}
        self._on_problem = on_problem
        self._unknown: set[bytes] = set()
        """Paths of files and directories that could not be read."""
        for path, row, _, _ in walk(tree, tree.root, on_problem=self.problem):
            if isinstance(row.stat, OSError):
                self.problem(path, row.stat)
            elif row.stat is not None:
                self.files[path] = _File(row.stat, row.node, row.may_have_xattrs)

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

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise _SideError for an OSError in this block, which only reads this side."""
        try:
            yield
        except OSError as error:
            raise _SideError(self, error) from error

    def readlink(self, file: _File[N]) -> bytes:
        with self.reading():
            return self.tree.readlink(file.node)

    def without_lost_found(self, other: _Side[Any]) -> None:
        """Leave out an empty lost+found that the other side lacks: every new ext3 filesystem has one."""
        is_empty = not any(path.startswith(LOST_FOUND + b"/") for path in self.files)
        if LOST_FOUND in self.files and LOST_FOUND not in other.files and is_empty:
            del self.files[LOST_FOUND]

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes] | None:
        """Return the xattrs of a file, None if the tree cannot have any."""
        file = self.files[path]
        with self.reading():
            try:
                return self.tree.xattrs(file.node) if file.may_have_xattrs else {}
            except OSError as error:
                if error.errno in hostio.NO_XATTRS:
                    return None
                raise


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
                yield Difference("added", path, other.stat.mode)
        elif other is None:
            if after.lacks(path):
                yield Difference("deleted", path, one.stat.mode)
        else:
            try:
                what = _differences(before, after, path, owners=owners)
            except _SideError as found:
                found.side.problem(path, found.error)
                continue
            if what:
                yield Difference("modified", path, other.stat.mode, tuple(what))


def _differences(old: _Side[Any], new: _Side[Any], path: bytes, *, owners: bool) -> list[str]:
    """Return the attributes of a file that differ, in order of output."""
    one, other = old.files[path], new.files[path]
    first, second = one.stat, other.stat
    kind = stat.S_IFMT(first.mode)
    if kind != stat.S_IFMT(second.mode):
        return ["type"]
    found = []
    # The mode of a whiteout has no meaning.
    if first.mode != second.mode and kind != stat.S_IFLNK and not (is_whiteout(first) and is_whiteout(second)):
        found.append("mode")
    if owners and (first.uid != second.uid or first.gid != second.gid):
        found.append("owner")
    if first.major != second.major or first.minor != second.minor:
        found.append("device")
    if kind == stat.S_IFLNK and old.readlink(one) != new.readlink(other):
        found.append("target")
    if kind == stat.S_IFREG and not _same_content(old, one, new, other):
        found.append("content")
    if one.may_have_xattrs or other.may_have_xattrs:
        before, after = old.xattrs(path), new.xattrs(path)
        if before is not None and after is not None and dict(before) != dict(after):
            found.append("xattrs")
    return found


def _same_content(old: _Side[Any], one: _File[Any], new: _Side[Any], other: _File[Any]) -> bool:
    """Return True if two regular files have the same content. An open file knows its size where a Stat may not, as in proc."""
    with ExitStack() as stack:
        files, sizes = [], set()
        for side, file in ((old, one), (new, other)):
            with side.reading():
                opened = stack.enter_context(side.tree.open_file(file.node))
                sizes.add(opened.size)
            files.append((side, opened))
        if len(sizes) > 1:
            return False
        at = 0
        while True:
            chunks = []
            for side, opened in files:
                with side.reading():
                    chunks.append(opened.read_at(at, CHUNK_BYTES))
            if chunks[0] != chunks[1]:
                return False
            if not chunks[0]:
                return True
            at += len(chunks[0])
