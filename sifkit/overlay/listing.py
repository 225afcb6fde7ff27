"""Directories with the facts of what is in them. Those that are asked for next are read along, and their inodes at once:
one inode after the other takes four times as long."""

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

__all__ = ["Listed", "Listings", "Row"]

AT_ONCE = 16384
"""Names whose inodes are read in one go; fewer cost more each."""
WAVE = 512
"""Directories read together at most."""
LEAST = 512
"""Names asked for, even where fewer are missing."""
MOST_AHEAD = 4 * AT_ONCE
"""Once so many rows wait to be asked for, only what lies below the directory asked for is read ahead."""
USUAL_NAMES = 8
"""In a directory, where nothing is known of it."""


class Row(NamedTuple):
    """An entry of a directory with its inode's facts, or why they cannot be known. ``attributed``: it may have extended
    attributes."""

    name: bytes
    ino: int
    file_type: FileType
    facts: Stat | Ext3Error
    attributed: bool


class Listed(NamedTuple):
    """What is in a directory, in byte order; ``problem``: why there may be more."""

    rows: list[Row]
    problem: Ext3Error | None


_row = partial(tuple.__new__, Row)
"""Without the check that each has five fields: rows are made of very many."""


class Listings:
    """Lists directories for someone who goes from the top down, in byte order, each directory behind its name.

    Each directory is read ahead at most once, so that one that lies costs no more than it holds.
    """

    def __init__(self, resolver: Resolver, *, levels: int = MAX_COMPONENTS) -> None:
        """``levels``: how many directories lie between the first one that is asked for, itself counted, and the lowest."""
        self._resolver = resolver
        self._ahead: dict[int, Listed] = {}
        self._rows_ahead = 0
        self._seen: set[int] = set()
        self._pending: list[tuple[int, int]] = []
        """Directories below those that were read and the levels left, the one to come next at the end."""
        self._levels = levels

    def take(self, directory: int) -> Listed:
        """What is in a directory. Trouble with it or a file in it is told in what is returned."""
        if directory not in self._ahead:
            self._read(directory)
        listed = self._ahead.pop(directory)
        self._rows_ahead -= len(listed.rows)
        return listed

    def whole(self, directory: int) -> list[Row]:
        """All that is in a directory. Raises Ext3Error where some of it cannot be read."""
        found = self.take(directory)
        if found.problem is not None:
            raise found.problem
        return found.rows

    def rows(self, directory: int, problems: list[Exception]) -> list[Row]:
        """What is in a directory; what cannot be read of it is in ``problems``."""
        found = self.take(directory)
        if found.problem is not None:
            problems.append(found.problem)
        return found.rows

    def _read(self, directory: int) -> None:
        """List this directory and those to come, until there are AT_ONCE names."""
        lot: list[tuple[int, list[Entry], Ext3Error | None]] = []
        count = 0
        levels = 1 if self._seen else self._levels  # one that no name said is a directory leads nowhere else
        while self._pending and (self._pending[-1][0] == directory or self._pending[-1][0] in self._seen):
            ino, left = self._pending.pop()
            levels = left if ino == directory else levels
        others = 0 if self._rows_ahead < MOST_AHEAD else len(self._pending)
        names, wave = AT_ONCE, [(directory, levels)]
        while wave:
            self._seen.update(ino for ino, _ in wave)
            listed = self._resolver.scan_many([ino for ino, _ in wave], names)
            below: list[tuple[int, int]] = []
            for (ino, left), (entries, problem) in zip(wave, listed, strict=False):
                lot.append((ino, entries, problem))
                count += 1 + len(entries)
                if left > 1:
                    below += [(entry.ino, left - 1) for entry in entries if entry.file_type is FileType.DIRECTORY]
            rest = wave[len(listed) :]
            self._seen.difference_update(ino for ino, _ in rest)
            self._pending += reversed(below + rest)
            names = max(AT_ONCE - count, LEAST)
            wave = self._next(min(max(1, names // USUAL_NAMES), WAVE), others) if count < AT_ONCE else []
        self._look(lot)

    def _next(self, most: int, others: int) -> list[tuple[int, int]]:
        """The directories that will be asked for next, as far as names tell, without the last so many ``others``."""
        chosen: dict[int, int] = {}
        pending, seen = self._pending, self._seen
        while len(pending) > others and len(chosen) < most:
            ino, levels = pending.pop()
            if ino not in seen and ino not in chosen:
                chosen[ino] = levels
        return list(chosen.items())

    def _look(self, lot: list[tuple[int, list[Entry], Ext3Error | None]]) -> None:
        """Read the inodes of what is in these directories."""
        facts, attributed = read_facts(self._resolver.filesystem, [entry.ino for _, entries, _ in lot for entry in entries])
        start = 0
        for directory, entries, problem in lot:
            end = start + len(entries)
            columns = zip(*entries, strict=True) if entries else repeat((), 3)
            rows = list(map(_row, zip(*columns, facts[start:end], attributed[start:end], strict=True)))
            self._ahead[directory] = Listed(rows, problem)
            self._rows_ahead += len(rows)
            start = end
