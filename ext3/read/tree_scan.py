"""Tree scan: listings of many directories with Stats, and many files with attributes and content, for walks and copies.

Errors of single directories and files are values. Directories are read in batches, their inodes and blocks together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..format.dirent import Entry
from ..format.inode import Stat
from ..format.inode_table_columns import Columns, stats_of
from .directory_scan import read_directories, read_mapped_directory
from .inode_scan import bad_inode_error, column_parts, read_facts
from .listing import BlockOwners, Listing, Loaded, Row
from .readahead import ReadAhead, contiguous_files

if TYPE_CHECKING:
    from .filesystem import Filesystem

__all__ = ["load_many", "scan_many"]

BATCH_NAMES = 16384
"""Names whose inodes are read together; smaller batches cost more per name."""
BATCH_DIRECTORIES = 512
BATCH_FILES = 4096


_row, _loaded = partial(tuple.__new__, Row), partial(tuple.__new__, Loaded)
"""Row and Loaded from an iterable, without checking its length: these run once per file."""


class _Found(NamedTuple):
    """Directory as read: its entries in byte order, the error that cut them short, and the number of its blocks."""

    ino: int
    entries: list[Entry]
    problem: OSError | None
    blocks: int


def scan_many(filesystem: Filesystem, inos: Sequence[int], owners: BlockOwners | None, *, stats: bool) -> Iterator[Listing]:
    """Yield the listing of each directory, in this order. ``owners``: of directory blocks, None while they may change."""
    at = 0
    while at < len(inos):
        batch = _read_batch(filesystem, inos[at : at + BATCH_DIRECTORIES], owners)
        at += len(batch)
        yield from _listings(filesystem, batch, stats=stats)


def _read_batch(filesystem: Filesystem, inos: Sequence[int], owners: BlockOwners | None) -> list[_Found]:
    """Read the first of these directories: at least one, and no more once there are BATCH_NAMES names."""
    batch: list[_Found] = []
    names = BATCH_NAMES
    for ino, found in zip(inos, read_directories(filesystem, inos, names), strict=False):
        entries: list[Entry] = []
        problem = None
        count = 0
        try:
            if found is not None:
                if owners is not None:
                    owners.claim(ino, found.blocks)
                count = len(found.blocks)
                entries = found.entries
            else:
                count = _read_one(filesystem, ino, owners, entries)
        except OSError as error:
            problem = error
        entries.sort()
        batch.append(_Found(ino, entries, problem, count))
        names -= len(entries)
        if names <= 0:
            break
    return batch


def _read_one(filesystem: Filesystem, ino: int, owners: BlockOwners | None, entries: list[Entry]) -> int:
    """Append the entries of a directory that can be read; return the number of its blocks. Raise what is wrong with it."""
    found = filesystem.scandir(ino)
    runs = filesystem.data_extents(ino)
    if owners is not None:
        owners.claim(ino, [*chain.from_iterable(range(start, start + count) for _, start, count in runs)])
    listing = read_mapped_directory(filesystem, filesystem.inode(ino).stat.size, runs)
    entries.extend(found if listing is None else listing.entries)
    return sum(count for _, _, count in runs)


def _listings(filesystem: Filesystem, batch: list[_Found], *, stats: bool) -> Iterator[Listing]:
    block_size = filesystem.superblock.block_size
    facts: list[Stat | OSError] = []
    attributed: list[bool] = []
    if stats:
        facts, attributed = read_facts(filesystem, [entry.ino for found in batch for entry in found.entries])
    start = 0
    for ino, entries, problem, blocks in batch:
        end = start + len(entries)
        columns = zip(*entries, strict=True) if entries else repeat((), 3)
        if stats:
            rows = list(map(_row, zip(*columns, facts[start:end], attributed[start:end], strict=True)))
        else:
            rows = list(map(_row, zip(*columns, repeat(None), repeat(True))))
        yield Listing(ino, rows, problem, blocks * block_size)
        start = end


def load_many(filesystem: Filesystem, inos: Sequence[int], *, keep_order: bool, limit: int) -> Iterator[Loaded]:
    """Yield each of ``inos`` with its Stat, xattrs, and the content of a contiguous file of at most ``limit`` bytes.

    In this order, or without ``keep_order`` in the order of their data.
    """
    for first in range(0, len(inos), BATCH_FILES):
        batch = inos[first : first + BATCH_FILES]
        for start, end, columns in column_parts(filesystem, batch):
            if isinstance(columns, OSError):
                for position in range(start, end):
                    yield Loaded(first + position, batch[position], columns, {}, None)
            else:
                yield from _load(filesystem, first + start, columns, keep_order=keep_order, limit=limit)


def _load(filesystem: Filesystem, first: int, columns: Columns, *, keep_order: bool, limit: int) -> Iterator[Loaded]:
    contiguous, blocks = contiguous_files(filesystem, columns)
    at_hand = (contiguous & (columns.size <= limit)).tolist()
    order = range(len(at_hand)) if keep_order else np.argsort(blocks, kind="stable").tolist()
    sizes, inos = columns.size.tolist(), columns.ino.tolist()
    ahead = ReadAhead(filesystem, blocks.tolist(), sizes, [row for row in order if at_hand[row]])
    attributed, bad = columns.attributed.tolist(), columns.bad.tolist()
    stats = stats_of(columns)
    for row in order:
        if bad[row]:
            yield Loaded(first + row, inos[row], bad_inode_error(columns, row), {}, None)
            continue
        xattrs: Mapping[bytes, bytes] | OSError = {}
        if attributed[row]:
            try:
                xattrs = filesystem.xattrs(inos[row])
            except OSError as error:
                xattrs = error
        content: memoryview | OSError | None = None
        if at_hand[row]:
            try:
                content = ahead.take(row, sizes[row])
            except OSError as error:
                content = error
        yield _loaded((first + row, inos[row], stats[row], xattrs, content))
