"""Directory entry columns: the records of many directory blocks as numpy columns. One block, and the judge: see ``dirent``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .dirent import DOT_REC_LEN_MAX, DOTS, MIN_REC_LEN, DirentFields, walk_records
from .schema import DIRENT

__all__ = ["DirentColumns", "read_dirent_columns"]

Numbers = npt.NDArray[np.int64]

FEW = 16
"""Number of record chains up to which a loop is faster than columns."""

HEAD = DIRENT.size
_REC_LEN, _NAME_LEN, _FILE_TYPE = map(DIRENT.offset_of, ("rec_len", "name_len", "file_type"))


class DirentColumns(NamedTuple):
    """Used records of many blocks without ``.`` and ``..``, in disk order: of each the byte ``at``, and its fields."""

    at: Numbers
    inodes: npt.NDArray[np.uint32]
    file_types: npt.NDArray[np.uint8]
    names: list[bytes]
    damaged: Numbers
    """Blocks that ``read_dirents`` rejects, possibly repeated; some of their records may be included."""


def read_dirent_columns(raw: bytes, first: npt.NDArray[np.bool_], *, block_size: int, inodes: int) -> DirentColumns:
    """Return the records of ``len(first)`` directory blocks end to end in ``raw``, with 12 bytes or more behind them.

    ``first``: which of them are block 0 of a directory. ``inodes``: the filesystem's count.
    """
    data = np.frombuffer(raw, np.uint8)
    at, damaged = _chains(raw, data, first, block_size, inodes)
    begin = at + HEAD
    lengths = data[at + _NAME_LEN]
    stray = (data[begin] == ord(".")) & ((lengths == 1) | ((lengths == 2) & (data[begin + 1] == ord("."))))
    end = begin + lengths
    names = [raw[low:high] for low, high in zip(begin.tolist(), end.tolist(), strict=True)]
    whole = b"".join(names)
    if b"/" in whole or b"\0" in whole:
        stray |= np.array([b"/" in name or b"\0" in name for name in names], bool)
    return DirentColumns(
        at=at,
        inodes=data.view("<u4")[at >> 2],
        file_types=data[at + _FILE_TYPE],
        names=names,
        damaged=np.concatenate([damaged, at[stray] // block_size]),
    )


def _chains(
    raw: bytes, data: npt.NDArray[np.uint8], first: npt.NDArray[np.bool_], size: int, inodes: int
) -> tuple[Numbers, Numbers]:
    """Return the offsets of the used records behind ``.`` and ``..``, ascending, and the blocks damaged outside of names."""
    words, halves = data.view("<u4"), data.view("<u2")
    at = np.arange(len(first), dtype=np.int64) * size
    end = at + size
    bad = _pass_dots(data, at, np.flatnonzero(first), size, inodes)
    found, damaged = [], [np.flatnonzero(bad)]
    on = ~bad & (at < end)
    at, end = at[on], end[on]
    while len(at) > FEW:
        ino, length = words[at >> 2], halves[(at + _REC_LEN) >> 1].astype(np.int64)
        name = data[at + _NAME_LEN].astype(np.int64)
        used = ino != 0
        bad = (length < MIN_REC_LEN) | (length & 3 != 0) | (at + length > end) | (name + HEAD > length)
        bad |= used & ((name == 0) | (ino > inodes))
        found.append(at[used & ~bad])
        damaged.append(at[bad] // size)
        at = at + length
        on = ~bad & (at < end)
        at, end = at[on], end[on]
    records: list[DirentFields] = []
    for start, stop in zip(at.tolist(), end.tolist(), strict=True):
        if walk_records(raw, start, stop, 0, records, inodes):
            damaged.append(np.array([start // size]))
    found.append(np.fromiter((record[0] for record in records), np.int64, len(records)))
    return np.sort(np.concatenate(found)), np.concatenate(damaged)


def _pass_dots(data: npt.NDArray[np.uint8], at: Numbers, rows: Numbers, size: int, inodes: int) -> npt.NDArray[np.bool_]:
    """Move ``at`` of these rows behind ``.`` and ``..``. Return a mask of the rows that do not begin with them."""
    words, halves = data.view("<u4"), data.view("<u2")
    bad = np.zeros(len(at), bool)
    for name in DOTS:
        here = at[rows]
        ino, length = words[here >> 2], halves[(here + _REC_LEN) >> 1].astype(np.int64)
        wrong = (length < MIN_REC_LEN) | (length & 3 != 0) | (here % size + length > size)
        wrong |= (ino == 0) | (ino > inodes)
        wrong |= data[here + _NAME_LEN] != len(name)
        for place, byte in enumerate(name + b"\0"):
            wrong |= data[here + HEAD + place] != byte
        if name == b".":
            wrong |= length > DOT_REC_LEN_MAX
        bad[rows[wrong]] = True
        rows = rows[~wrong]
        at[rows] += length[~wrong]
    return bad
