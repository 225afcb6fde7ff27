"""Directory listings with the Stats of the entries. Directories needed next are read ahead and their inodes read together:
one inode at a time takes four times as long."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import NamedTuple

from ext3.constants import FileType
from ext3.errors import Ext3Error
from ext3.read.filesystem import Entry, Stat
from ext3.read.inode_scan import read_facts
from ext3.read.path_walk import MAX_COMPONENTS

from .resolve import Resolver

__all__ = ["DirectoryLister", "DirectoryListing", "Row"]

BATCH_NAMES = 16384
"""Names whose inodes are read together; smaller batches cost more per inode."""
BATCH_DIRECTORIES = 512
"""Directories read together at most."""
MIN_NAMES = 512
"""Names asked for in one read at least."""
MAX_ROWS_AHEAD = 4 * BATCH_NAMES
"""Rows read ahead; beyond this only directories below the one asked for are read ahead."""
TYPICAL_NAMES = 8
"""Assumed number of names in a directory not read yet."""


class Row(NamedTuple):
    """Directory entry with the Stat of its inode, or the error of reading it."""

    name: bytes
    ino: int
    file_type: FileType
    stat: Stat | Ext3Error
    may_have_xattrs: bool


class DirectoryListing(NamedTuple):
    """Rows of a directory in byte order. ``problem``: the error that cut it short."""

    rows: list[Row]
    problem: Ext3Error | None


_row = partial(tuple.__new__, Row)
"""Row from an iterable, without checking its length: this runs once per file."""


class DirectoryLister:
    """Lister of directories for a walk in byte order, parents first.

    Each directory is read ahead at most once, so a hostile image cannot cause repeated reads.
    """

    def __init__(self, resolver: Resolver, *, levels: int = MAX_COMPONENTS) -> None:
        """``levels``: depth of the walk, the first directory included."""
        self._resolver = resolver
        self._ahead: dict[int, DirectoryListing] = {}
        self._rows_ahead = 0
        self._seen: set[int] = set()
        self._pending: list[tuple[int, int]] = []
        """(directory, levels left) below the directories already read; the next one is last."""
        self._levels = levels

    def read(self, directory: int) -> DirectoryListing:
        """Return a directory's listing, which holds any errors."""
        if directory not in self._ahead:
            self._read_ahead(directory)
        listed = self._ahead.pop(directory)
        self._rows_ahead -= len(listed.rows)
        return listed

    def all_rows(self, directory: int) -> list[Row]:
        """Return the rows of a directory. Raises Ext3Error if some cannot be read."""
        listing = self.read(directory)
        if listing.problem is not None:
            raise listing.problem
        return listing.rows

    def rows(self, directory: int, problems: list[Exception]) -> list[Row]:
        """Return the rows of a directory that can be read. The error of the others is appended to ``problems``."""
        listing = self.read(directory)
        if listing.problem is not None:
            problems.append(listing.problem)
        return listing.rows

    def _read_ahead(self, directory: int) -> None:
        """Read this directory and the next ones, up to BATCH_NAMES names."""
        batch: list[tuple[int, list[Entry], Ext3Error | None]] = []
        count = 0
        levels = 1 if self._seen else self._levels  # a directory that no entry led to is read alone
        while self._pending and (self._pending[-1][0] == directory or self._pending[-1][0] in self._seen):
            ino, left = self._pending.pop()
            levels = left if ino == directory else levels
        others = 0 if self._rows_ahead < MAX_ROWS_AHEAD else len(self._pending)
        names, directories = BATCH_NAMES, [(directory, levels)]
        while directories:
            self._seen.update(ino for ino, _ in directories)
            listed = self._resolver.scan_many([ino for ino, _ in directories], names)
            below: list[tuple[int, int]] = []
            for (ino, left), (entries, problem) in zip(directories, listed, strict=False):
                batch.append((ino, entries, problem))
                count += 1 + len(entries)
                if left > 1:
                    below += [(entry.ino, left - 1) for entry in entries if entry.file_type is FileType.DIRECTORY]
            rest = directories[len(listed) :]
            self._seen.difference_update(ino for ino, _ in rest)
            self._pending += reversed(below + rest)
            names = max(BATCH_NAMES - count, MIN_NAMES)
            directories = (
                self._next(min(max(1, names // TYPICAL_NAMES), BATCH_DIRECTORIES), others) if count < BATCH_NAMES else []
            )
        self._read_stats(batch)

    def _next(self, count: int, others: int) -> list[tuple[int, int]]:
        """Return up to ``count`` directories that will be asked for next; the first ``others`` pending ones are left."""
        chosen: dict[int, int] = {}
        pending, seen = self._pending, self._seen
        while len(pending) > others and len(chosen) < count:
            ino, levels = pending.pop()
            if ino not in seen and ino not in chosen:
                chosen[ino] = levels
        return list(chosen.items())

    def _read_stats(self, batch: list[tuple[int, list[Entry], Ext3Error | None]]) -> None:
        """Read the inodes of the entries of these directories."""
        stats, may_have_xattrs = read_facts(
            self._resolver.filesystem, [entry.ino for _, entries, _ in batch for entry in entries]
        )
        start = 0
        for directory, entries, problem in batch:
            end = start + len(entries)
            columns = zip(*entries, strict=True) if entries else repeat((), 3)
            rows = list(map(_row, zip(*columns, stats[start:end], may_have_xattrs[start:end], strict=True)))
            self._ahead[directory] = DirectoryListing(rows, problem)
            self._rows_ahead += len(rows)
            start = end
