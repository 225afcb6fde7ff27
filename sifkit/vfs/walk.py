"""Walk of a tree: everything below a directory, parents first, in byte order of names.

A walk ends whatever the image holds, in little memory: a directory met twice is not entered, nor one deeper than
MAX_COMPONENTS or with a path of more than MAX_PATH, and all together take no more bytes than the filesystem has.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from .errors import DamagedTreeError, TreePathError
from .file_tree import DIRECTORY, UNKNOWN, FileTree, Listing, Row, is_directory
from .resolve import MAX_COMPONENTS, NAME_MAX

__all__ = ["DirectoryReader", "OnProblem", "WalkedDirectory", "WalkedFile", "Walker", "walk", "walk_directories"]

N = TypeVar("N", bound=Hashable)

BATCH_NAMES = 16384
"""Names read ahead together; smaller batches cost more per name."""
BATCH_DIRECTORIES = 512
"""Directories read together at most."""
MIN_NAMES = 512
"""Names asked for in one read at least."""
MAX_ROWS_AHEAD = 4 * BATCH_NAMES
"""Rows read ahead; beyond this only directories below the one asked for are read ahead."""
TYPICAL_NAMES = 8
"""Assumed number of names in a directory not read yet."""

MAX_PATH = 1 << 16
"""Bytes of the longest path of a directory that is entered: paths are in memory, and could be of a megabyte each."""

MAY_BE_DIRECTORY = (DIRECTORY, UNKNOWN)

OnProblem = Callable[[bytes, OSError], None]
"""Callback for a directory that cannot be read or entered: its path, and the error."""


class WalkedFile(NamedTuple, Generic[N]):
    """File met by a walk.

    ``depth``: directories above it below the top, 0 for the top's entries. ``is_last``: no further name is in its directory.
    """

    path: bytes
    row: Row[N]
    depth: int
    is_last: bool


_walked = partial(tuple.__new__, WalkedFile)
"""WalkedFile from a tuple, without checking its length: this runs once per file."""


class WalkedDirectory(NamedTuple, Generic[N]):
    """Directory met by a walk, and the rows of it that can be read."""

    path: bytes
    listing: Listing[N]
    depth: int


class Walker(Generic[N]):
    """Reader of the directories of one walk: it knows which were entered, and the bytes of directories so far.

    For walks of an order of their own; see ``walk``.
    """

    def __init__(
        self,
        tree: FileTree[N],
        top: N,
        *,
        stats: bool = True,
        levels: int = MAX_COMPONENTS,
        on_problem: OnProblem | None = None,
        entered: set[N] | None = None,
    ) -> None:
        self.reader = DirectoryReader(tree, stats=stats, levels=levels)
        self.levels = levels
        self.on_problem = on_problem
        self._entered = set() if entered is None else entered
        self._entered.add(top)
        self._bytes_left = tree.statfs().total_bytes

    def problem(self, path: bytes, error: OSError) -> None:
        if self.on_problem is None:
            raise error
        self.on_problem(path, error)

    def read(self, path: bytes, node: N) -> Listing[N] | None:
        """Read a directory that may be entered; None, and a problem, if all directories take more than there is."""
        listing = self.reader.read(node)
        self._bytes_left -= listing.directory_bytes
        if self._bytes_left < 0:
            self.problem(path, DamagedTreeError(path, "the image is damaged: its directories share blocks"))
            return None
        if listing.problem is not None:
            self.problem(path, listing.problem)
        return listing

    def may_enter(self, path: bytes, node: N, depth: int) -> bool:
        """Return True if a directory is to be entered, ``depth`` levels below the top; that it cannot be is a problem."""
        if depth >= self.levels or len(path) > MAX_PATH:
            if self.levels == MAX_COMPONENTS or len(path) > MAX_PATH:
                end = b"..." + path[-NAME_MAX:]
                self.problem(path, TreePathError(end, errno.ENAMETOOLONG, "directories are nested too deep"))
            return False
        if node in self._entered:
            self.problem(path, DamagedTreeError(path, "the image is damaged: this directory is in it twice"))
            return False
        self._entered.add(node)
        return True


def walk(
    tree: FileTree[N],
    top: N,
    path: bytes = b"",
    *,
    stats: bool = True,
    levels: int = MAX_COMPONENTS,
    on_problem: OnProblem | None = None,
) -> Iterator[WalkedFile[N]]:
    """Walk everything below the directory ``top``, a directory's content after it.

    ``path``: of the top; b"" makes the paths relative. ``levels``: depth of the walk. Without ``on_problem`` the error of a
    directory that cannot be read or entered is raised.
    """
    walker = Walker(tree, top, stats=stats, levels=levels, on_problem=on_problem)
    listing = walker.read(path, top)
    if listing is None:
        return
    pending = [(_base(path), iter(listing.rows), len(listing.rows))]
    while pending:
        base, rows, left = pending.pop()
        depth = len(pending)
        for row in rows:
            left -= 1
            name = base + row.name
            yield _walked((name, row, depth, not left))
            if row.file_type in MAY_BE_DIRECTORY and is_directory(row) and walker.may_enter(name, row.node, depth + 1):
                below = walker.read(name, row.node)
                if below is None:
                    return
                pending += [(base, rows, left), (name + b"/", iter(below.rows), len(below.rows))]
                break


def walk_directories(
    tree: FileTree[N],
    top: N,
    path: bytes = b"",
    *,
    stats: bool = True,
    levels: int = MAX_COMPONENTS,
    on_problem: OnProblem | None = None,
    entered: set[N] | None = None,
    order: Callable[[Sequence[Row[N]]], Sequence[Row[N]]] | None = None,
) -> Iterator[WalkedDirectory[N]]:
    """Walk the directory ``top`` and all below it; see ``walk``.

    ``entered``: directories that are not to be met below ``top``; those of this walk are added. ``order``: sorts the rows of a
    directory; the directories in it are walked in this order, by default in byte order.
    """
    walker = Walker(tree, top, stats=stats, levels=levels, on_problem=on_problem, entered=entered)
    pending = [(path, top, 0)]
    while pending:
        name, node, depth = pending.pop()
        listing = walker.read(name, node)
        if listing is None:
            return
        yield WalkedDirectory(name, listing, depth)
        base = _base(name)
        below = [
            (base + row.name, row.node, depth + 1)
            for row in (listing.rows if order is None else order(listing.rows))
            if row.file_type in MAY_BE_DIRECTORY
            and is_directory(row)
            and walker.may_enter(base + row.name, row.node, depth + 1)
        ]
        pending += reversed(below)


def _base(path: bytes) -> bytes:
    return path if not path or path.endswith(b"/") else path + b"/"


class DirectoryReader(Generic[N]):
    """Reader of directories for a walk in byte order, parents first: those needed next are read ahead, together.

    One directory at a time takes four times as long. Each is read ahead at most once, so a hostile image cannot cause
    repeated reads.
    """

    def __init__(self, tree: FileTree[N], *, stats: bool = True, levels: int = MAX_COMPONENTS) -> None:
        """``levels``: depth of the walk, the first directory included."""
        self._tree = tree
        self._stats = stats
        self._levels = levels
        self._ahead: dict[N, Listing[N]] = {}
        self._rows_ahead = 0
        self._seen: set[N] = set()
        self._pending: list[tuple[N, int]] = []
        """(directory, levels left) below the directories already read; the next one is last."""

    def read(self, directory: N) -> Listing[N]:
        """Return a directory's listing, which holds any errors."""
        if directory not in self._ahead:
            self._read_ahead(directory)
        listing = self._ahead.pop(directory)
        self._rows_ahead -= len(listing.rows)
        return listing

    def _read_ahead(self, directory: N) -> None:
        """Read this directory and the next ones, up to BATCH_NAMES names."""
        count = 0
        levels = 1 if self._seen else self._levels  # a directory that no entry led to is read alone
        while self._pending and (self._pending[-1][0] == directory or self._pending[-1][0] in self._seen):
            node, left = self._pending.pop()
            levels = left if node == directory else levels
        others = 0 if self._rows_ahead < MAX_ROWS_AHEAD else len(self._pending)
        names, directories = BATCH_NAMES, [(directory, levels)]
        while directories:
            listings = self._scan([node for node, _ in directories], names)
            below: list[tuple[N, int]] = []
            for (node, left), listing in zip(directories, listings, strict=False):
                self._seen.add(node)
                self._ahead[node] = listing
                self._rows_ahead += len(listing.rows)
                count += 1 + len(listing.rows)
                if left > 1:
                    below += [
                        (row.node, left - 1) for row in listing.rows if row.file_type in MAY_BE_DIRECTORY and is_directory(row)
                    ]
            self._pending += reversed(below + directories[len(listings) :])
            names = max(BATCH_NAMES - count, MIN_NAMES)
            directories = (
                self._next(min(max(1, names // TYPICAL_NAMES), BATCH_DIRECTORIES), others) if count < BATCH_NAMES else []
            )

    def _scan(self, directories: Sequence[N], names: int) -> list[Listing[N]]:
        """Read the first of these directories: at least one, and no more once there are so many names."""
        listings: list[Listing[N]] = []
        for listing in self._tree.scan_many(directories, stats=self._stats):
            listings.append(listing)
            names -= len(listing.rows)
            if names <= 0:
                break
        return listings

    def _next(self, count: int, others: int) -> list[tuple[N, int]]:
        """Return up to ``count`` directories that will be asked for next; the first ``others`` pending ones are left."""
        chosen: dict[N, int] = {}
        pending, seen = self._pending, self._seen
        while len(pending) > others and len(chosen) < count:
            node, levels = pending.pop()
            if node not in seen and node not in chosen:
                chosen[node] = levels
        return list(chosen.items())
