"""Selection of files to extract from a tree: directories, parents first, and the other files in them."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from ext3.progress import Progress

from .errors import DamagedTreeError, NotDirectoryPathError, TreePathError, path_error, reason_of
from .file_tree import UNKNOWN, FileTree, Row, Stat, TreeRow, is_directory
from .host_writer import ExtractResult
from .resolve import is_dir
from .walk import MAY_BE_DIRECTORY, walk_directories

__all__ = ["Selection", "select_paths"]

N = TypeVar("N", bound=Hashable)

MAX_SHOWN_BYTES = 4096
"""Longer paths, which no system call accepts, are shortened in messages."""
NO_SYMLINKS = "a component is not a directory (symbolic links are not followed here)"


@dataclass(slots=True)
class Selection(Generic[N]):
    """Directories (parents first, 0 is the top), and entries in them that are other files."""

    nodes: list[N]
    names: list[bytes] = field(default_factory=lambda: [b""])
    parents: list[int] = field(default_factory=lambda: [0])

    entry_directories: array[int] = field(default_factory=lambda: array("I"))
    entry_names: list[bytes] = field(default_factory=list)
    entry_nodes: list[N] = field(default_factory=list)

    depth: int = 0
    """Levels of directories, the top included."""

    def path(self, directory: int, name: bytes = b"") -> bytes:
        """Return the path of an entry from the top, for messages."""
        parts = [name] if name else []
        size = len(name)
        while directory and size < MAX_SHOWN_BYTES:
            parts.append(self.names[directory])
            size += len(parts[-1]) + 1
            directory = self.parents[directory]
        return (b"..." if directory else b"") + b"/" + b"/".join(reversed(parts))

    def location(self, entry: int) -> tuple[int, bytes]:
        """Return (directory, name) of an entry."""
        return self.entry_directories[entry], self.entry_names[entry]

    def entry_path(self, entry: int) -> bytes:
        return self.path(*self.location(entry))

    def add_directory(self, parent: int, name: bytes, node: N) -> int:
        """Add a directory; return its index."""
        self.names.append(name)
        self.parents.append(parent)
        self.nodes.append(node)
        return len(self.names) - 1

    def add_files(self, directory: int, rows: Iterable[Row[N]]) -> None:
        """Add the rows of a directory that are not directories."""
        files = [row for row in rows if row.file_type not in MAY_BE_DIRECTORY or not is_directory(row)]
        self.entry_names.extend([row.name for row in files])
        self.entry_nodes.extend([row.node for row in files])
        self.entry_directories.extend([directory] * len(files))


class _Step(NamedTuple, Generic[N]):
    """Component of a path. ``stat``: its metadata, or the error of reading that."""

    name: bytes
    node: N
    stat: Stat | OSError


def select_paths(tree: FileTree[N], paths: Sequence[bytes], result: ExtractResult, progress: Progress) -> Selection[N]:
    """Select ``paths`` and everything in them; without ``paths`` everything.

    Directories that cannot be read or entered are problems of ``result``. Raises MissingPathError, NotDirectoryPathError for
    a path that leads through a symlink, TreePathError for one with ``..``, and OSError of the tree.
    """
    selection = Selection([tree.root])
    entered = {tree.root}
    starts = [] if paths else [(0, 0)]
    known: dict[tuple[int, bytes], int] = {}
    for steps in _without_nested([_resolve_named(tree, path) for path in paths]):
        wanted = _add_path(selection, steps, known, entered)
        if wanted is not None:
            starts.append((wanted, len(steps)))

    def on_problem(path: bytes, error: OSError) -> None:
        result.add_problem(_shortened(path), reason_of(error))

    for start, depth in starts:
        chain = [start]
        path = selection.path(start)
        walked = walk_directories(tree, selection.nodes[start], path, stats=False, on_problem=on_problem, entered=entered)
        for found in walked:
            if found.depth:
                del chain[found.depth :]
                name = found.path[found.path.rindex(b"/") + 1 :]
                chain.append(selection.add_directory(chain[-1], name, found.listing.node))
            selection.depth = max(selection.depth, depth + found.depth + 1)
            selection.add_files(chain[-1], found.listing.rows)
            progress.advance(len(found.listing.rows))
    return selection


def _resolve_named(tree: FileTree[N], path: bytes) -> list[_Step[N]]:
    """Resolve a path; errors of the tree name it."""
    try:
        return _resolve(tree, path)
    except TreePathError:
        raise
    except OSError as error:
        named = TreePathError(path, error.errno or errno.EIO, reason_of(error))
        named.kind = getattr(error, "kind", "io")
        raise named from error


def _resolve(tree: FileTree[N], path: bytes) -> list[_Step[N]]:
    """Resolve a path that leads through no symlink; return its components."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise TreePathError(path, errno.EINVAL, ".. is not supported: write the path it leads to")
    node = tree.root
    steps: list[_Step[N]] = []
    for position, name in enumerate(parts, 1):
        below = tree.find_name(node, name)
        if below is None:
            raise path_error(path, errno.ENOENT)
        node = below
        try:
            found: Stat | OSError = tree.stat(node)
        except OSError as error:
            found = error  # of the last component: reported when that is extracted
        if position < len(parts) or path.endswith((b"/", b"/.")):
            if isinstance(found, OSError):
                raise found
            if not is_dir(found):
                raise NotDirectoryPathError(path, errno.ENOTDIR, NO_SYMLINKS)
        steps.append(_Step(name, node, found))
    return steps


def _without_nested(paths: list[list[_Step[N]]]) -> list[list[_Step[N]]]:
    """Return the paths that are not the same as an earlier one, or in a directory that is another one."""
    whole: dict[tuple[bytes, ...], list[_Step[N]]] = {}
    for steps in paths:
        whole.setdefault(tuple(step.name for step in steps), steps)
    return [steps for names, steps in whole.items() if not any(names[:count] in whole for count in range(len(names)))]


def _add_path(
    selection: Selection[N], path: list[_Step[N]], known: dict[tuple[int, bytes], int], entered: set[N]
) -> int | None:
    """Add the directories above a path, and its file; return the index of a directory whose content is wanted."""
    index = 0
    for name, node, found in path:
        if isinstance(found, OSError) or not is_dir(found):
            selection.add_files(index, [TreeRow(name, node, UNKNOWN, found, True)])
            return None
        below = known.get((index, name))
        if below is None:
            if node in entered:
                raise DamagedTreeError(selection.path(index, name), "the image is damaged: this directory is in it twice")
            entered.add(node)
            below = known[index, name] = selection.add_directory(index, name, node)
        index = below
    return index


def _shortened(path: bytes) -> bytes:
    """Return a path for messages: of a long one the last components."""
    return path if len(path) <= MAX_SHOWN_BYTES else b"..." + path[path.find(b"/", len(path) - MAX_SHOWN_BYTES) :]
