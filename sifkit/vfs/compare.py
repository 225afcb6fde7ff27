"""Differences between two trees.

Compared are type, mode, owner, content, symlink target, device number and xattrs, but not times, inode numbers or data
placement.
"""

from __future__ import annotations

import stat
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ext3 import hostio

from .file_tree import FileTree, Stat
from .walk import OnProblem, walk
from .whiteouts import is_whiteout

__all__ = ["Difference", "compare_trees"]

N = TypeVar("N", bound=Hashable)
CHUNK_BYTES = 1 << 20
LOST_FOUND = b"lost+found"


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


class _Side(Generic[N]):
    """One of the trees, with its files by path; paths have no leading slash."""

    def __init__(self, tree: FileTree[N], on_problem: OnProblem) -> None:
        self.tree = tree
        self.files: dict[bytes, _File[N]] = {}
        for path, row, _, _ in walk(tree, tree.root, on_problem=on_problem):
            if isinstance(row.stat, OSError):
                on_problem(path, row.stat)
            elif row.stat is not None:
                self.files[path] = _File(row.stat, row.node, row.may_have_xattrs)

    def without_lost_found(self, other: _Side[Any]) -> None:
        """Leave out an empty lost+found that the other side lacks: every new ext3 filesystem has one."""
        is_empty = not any(path.startswith(LOST_FOUND + b"/") for path in self.files)
        if LOST_FOUND in self.files and LOST_FOUND not in other.files and is_empty:
            del self.files[LOST_FOUND]

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes] | None:
        """Return the xattrs of a file, None if the tree cannot have any."""
        file = self.files[path]
        try:
            return self.tree.xattrs(file.node) if file.may_have_xattrs else {}
        except OSError as error:
            if error.errno in hostio.NO_XATTRS:
                return None
            raise


def compare_trees(
    old: FileTree[Any], new: FileTree[Any], on_problem: OnProblem, *, owners: bool = True
) -> Iterator[Difference]:
    """Iterate over the differences from ``old`` to ``new``, in byte order of the paths.

    Files that cannot be read are passed to ``on_problem``. Without ``owners`` owners are not compared.
    """
    before, after = _Side(old, on_problem), _Side(new, on_problem)
    before.without_lost_found(after)
    after.without_lost_found(before)
    for path in sorted(before.files.keys() | after.files.keys()):
        one, other = before.files.get(path), after.files.get(path)
        if one is None:
            assert other is not None
            yield Difference("added", path, other.stat.mode)
        elif other is None:
            yield Difference("deleted", path, one.stat.mode)
        else:
            try:
                what = _differences(before, after, path, owners=owners)
            except OSError as error:
                on_problem(path, error)
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
    if kind == stat.S_IFLNK and old.tree.readlink(one.node) != new.tree.readlink(other.node):
        found.append("target")
    if kind == stat.S_IFREG and (first.size != second.size or not _same_content(old, one, new, other)):
        found.append("content")
    if one.may_have_xattrs or other.may_have_xattrs:
        before, after = old.xattrs(path), new.xattrs(path)
        if before is not None and after is not None and dict(before) != dict(after):
            found.append("xattrs")
    return found


def _same_content(old: _Side[Any], one: _File[Any], new: _Side[Any], other: _File[Any]) -> bool:
    """Return True if two files of the same size have the same content."""
    if not one.stat.size:
        return True
    with old.tree.open_file(one.node) as first, new.tree.open_file(other.node) as second:
        at = 0
        while chunk := first.read_at(at, CHUNK_BYTES):
            if chunk != second.read_at(at, len(chunk)):
                return False
            at += len(chunk)
        return not second.read_at(at, 1)
