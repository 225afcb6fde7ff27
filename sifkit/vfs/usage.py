"""Space used by directories of a tree (du)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple, TypeVar

from .file_tree import FileTree, Stat
from .resolve import is_dir
from .walk import OnProblem, walk

__all__ = ["Usage", "directory_usage"]

N = TypeVar("N", bound=Hashable)
SECTOR = 512


class Usage(NamedTuple):
    """Usage of a file, or of a directory with everything below it."""

    path: bytes
    allocated_bytes: int
    inodes: int
    is_directory: bool


def directory_usage(
    tree: FileTree[N], path: bytes, top: N, *, all_files: bool, on_problem: OnProblem, seen: set[tuple[int, int]]
) -> list[Usage]:
    """Return the usage of ``path`` (the file ``top``) and of the directories below it, children first.

    Files in ``seen``, as (dev, ino), are not counted again; those counted are added to it. With ``all_files`` files have rows
    too.
    """
    found = tree.stat(top)
    if (found.dev, found.ino) in seen:
        return []
    seen.add((found.dev, found.ino))
    if not is_dir(found):
        return [Usage(path, found.blocks * SECTOR, 1, False)]
    rows: list[Usage] = []
    totals: list[list[int]] = [[found.blocks * SECTOR, 1]]
    """Bytes and inodes of the open directories; 0 inodes: counted before."""
    names: list[bytes] = [path.rstrip(b"/")]

    def leave() -> None:
        size, count = totals.pop()
        name = names.pop() or b"/"
        if count:
            rows.append(Usage(name, size, count, True))
        if totals:
            totals[-1][0] += size
            totals[-1][1] += count

    for where, row, depth, _ in walk(tree, top, path, on_problem=on_problem):
        while len(names) > depth + 1:
            leave()
        size, count, is_directory = _count(where, row.stat, on_problem, seen)
        if is_directory:
            names.append(where)
            totals.append([size, count])
            continue
        totals[-1][0] += size
        totals[-1][1] += count
        if all_files and count:
            rows.append(Usage(where, size, count, False))
    while names:
        leave()
    return rows


def _count(
    path: bytes, found: Stat | OSError | None, on_problem: OnProblem, seen: set[tuple[int, int]]
) -> tuple[int, int, bool]:
    """Return the bytes and inodes that a file adds, and whether it is a directory."""
    if found is None or isinstance(found, OSError):
        if found is not None:
            on_problem(path, found)
        return 0, 0, False
    identity = found.dev, found.ino
    if identity in seen:
        return 0, 0, is_dir(found)
    seen.add(identity)
    return found.blocks * SECTOR, 1, is_dir(found)
