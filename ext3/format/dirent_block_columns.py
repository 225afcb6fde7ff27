"""Directory block columns: many records placed in blocks and packed together, for new filesystems. See ``dirent_block``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .dirent_block import DOTS_SIZE
from .schema import DIRENT

__all__ = ["fill_blocks", "pack_records", "place_records", "record_sizes"]

Array64 = npt.NDArray[np.int64]

HEAD = DIRENT.size
NAMES_AT_ONCE = 8192
"""Names packed together, so that their columns stay in the processor's cache."""


def record_sizes(lengths: Array64) -> Array64:
    """Return the ``record_size`` of many names."""
    return (lengths + HEAD + 3) & ~3


def fill_blocks(sizes: Array64, block_size: int) -> Array64:
    """Return the first record of each block if ``.`` and ``..`` and records of these sizes fill blocks in order."""
    ends = np.cumsum(sizes)
    firsts, begin, first = [0], -DOTS_SIZE, 0
    while True:
        first = int(np.searchsorted(ends, begin + block_size, side="right"))
        if first >= len(sizes):
            return np.array(firsts, np.int64)
        firsts.append(first)
        begin = int(ends[first - 1])


def place_records(sizes: Array64, firsts: Array64, block_size: int, *, reserve: int) -> tuple[Array64, Array64]:
    """Return (byte, rec_len) of records of these sizes in blocks end to end; block k begins with record ``firsts[k]``.

    The last record of each block reaches to its end. ``reserve``: bytes kept free in front of the first block's records.
    """
    counts = np.diff(np.append(firsts, len(sizes)))
    block = np.repeat(np.arange(len(firsts)), counts)
    before = np.cumsum(sizes) - sizes
    offset = before - before[firsts][block]
    offset[block == 0] += reserve
    rec_len = sizes.copy()
    last = np.append(firsts[1:], len(sizes)) - 1
    rec_len[last] = block_size - offset[last]
    return block * block_size + offset, rec_len


def pack_records(
    data: npt.NDArray[np.uint8],
    *,
    at: Array64,
    inodes: npt.NDArray[np.integer],
    rec_lens: Array64,
    file_types: npt.NDArray[np.integer] | int,
    names: Sequence[bytes],
) -> None:
    """Write many records into ``data`` (uint8, blocks end to end) at these bytes, multiples of 4."""
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    heads = DIRENT.zeros(len(names))
    heads["inode"], heads["rec_len"], heads["name_len"], heads["file_type"] = inodes, rec_lens, lengths, file_types
    words, halves = data.view("<u4"), heads.view("<u4").reshape(-1, HEAD // 4)
    for number in range(HEAD // 4):
        words[(at >> 2) + number] = halves[:, number]
    for low in range(0, len(names), NAMES_AT_ONCE):
        some = slice(low, low + NAMES_AT_ONCE)
        text = np.frombuffer(b"".join(names[some]), np.uint8)
        target = at[some] + HEAD - (np.cumsum(lengths[some]) - lengths[some])
        data[np.repeat(target, lengths[some]) + np.arange(len(text))] = text
