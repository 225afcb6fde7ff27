"""Inode scan: many inodes read at once, as columns, for listings and extraction. One after the other is slow.

Inodes are judged only as far as their columns depend on it: ``Columns.bad`` marks those that are damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import CorruptError
from ..format.inode import Stat, parse_inode
from ..format.inode_fields_columns import Numbers
from ..format.inode_table_columns import Columns, Records, decode_columns, inode_offsets, stats_of
from .volume import Volume

__all__ = ["bad_inode_error", "column_parts", "read_columns", "read_facts", "read_stats"]

GAP_BYTES = 16 << 10
"""Gaps between wanted rows of an inode table are read too, up to this size."""
RUN_BYTES = 4 << 20
BATCH_INODES = 32_768
"""Inodes decoded together; bounds the memory of a long list."""


def read_columns(volume: Volume, inos: Sequence[int] | Numbers) -> Columns:
    """Return the columns of ``inos``, in any order and with repeats.

    Raise PathNotFoundError for an invalid number, CorruptError and DeviceError from reading the tables.
    """
    numbers = np.asarray(inos, np.int64)
    return decode_columns(_read_records(volume, numbers), numbers)


def column_parts(volume: Volume, inos: Sequence[int] | Numbers, start: int = 0) -> Iterator[tuple[int, int, Columns | OSError]]:
    """Yield the columns of ``inos`` in parts: (first index, end, columns). If a table cannot be read, each of its inodes is a
    part of its own, with the error in place of columns."""
    try:
        yield start, start + len(inos), read_columns(volume, inos)
        return
    except OSError as error:
        if len(inos) <= 1:
            yield start, start + len(inos), error
            return
    middle = len(inos) // 2
    yield from column_parts(volume, inos[:middle], start)
    yield from column_parts(volume, inos[middle:], start + middle)


def read_stats(volume: Volume, inos: Sequence[int]) -> list[Stat]:
    """Return the Stat of each of ``inos``. Raises as ``read_columns``, and CorruptError for a damaged inode."""
    found: list[Stat] = []
    for start in range(0, len(inos), BATCH_INODES):
        columns = read_columns(volume, inos[start : start + BATCH_INODES])
        for row in np.flatnonzero(columns.bad).tolist():
            raise bad_inode_error(columns, row)
        found += stats_of(columns)
    return found


def read_facts(volume: Volume, inos: Sequence[int]) -> tuple[list[Stat | OSError], list[bool]]:
    """Return for each of ``inos`` its Stat, or the error; and whether it may have extended attributes."""
    found: list[Stat | OSError] = []
    attributed: list[bool] = []
    for first in range(0, len(inos), BATCH_INODES):
        for start, end, columns in column_parts(volume, inos[first : first + BATCH_INODES]):
            if isinstance(columns, OSError):
                found += [columns] * (end - start)
                attributed += [False] * (end - start)
                continue
            begin = len(found)
            found += stats_of(columns)
            attributed += columns.attributed.tolist()
            for row in np.flatnonzero(columns.bad).tolist():
                found[begin + row] = bad_inode_error(columns, row)
    return found, attributed


def bad_inode_error(columns: Columns, row: int) -> CorruptError:
    """Return the error of a bad inode."""
    try:
        parse_inode(columns.records[row].tobytes(), int(columns.ino[row]))
    except CorruptError as error:
        return error
    raise AssertionError("columns call an inode bad that can be parsed")


def _read_records(volume: Volume, inos: Numbers) -> Records:
    """Read the records from the tables."""
    superblock = volume.superblock
    size = superblock.inode_size
    offsets = inode_offsets(superblock, volume.groups, inos)
    order = np.argsort(offsets, kind="stable")
    offsets = offsets[order]
    found = np.empty((len(inos), size), np.uint8)
    breaks = np.flatnonzero(np.diff(offsets) > GAP_BYTES) + 1
    for begin, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(inos)], strict=True):
        first = begin
        while first < last:
            start = int(offsets[first])
            end = min(last, int(np.searchsorted(offsets, start + RUN_BYTES, "left")))
            span = int(offsets[end - 1]) + size - start
            table = np.frombuffer(volume.device.read(start, span), np.uint8).reshape(-1, size)
            found[order[first:end]] = table[(offsets[first:end] - start) // size]
            first = end
    return found
