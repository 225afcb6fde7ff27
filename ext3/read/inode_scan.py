"""Many inodes at once, as columns: for listings and extraction, where one object after the other would be slow.

Nothing here judges an inode but for what would make its columns wrong; ``bad`` marks those that ``Filesystem.inode`` would
refuse. Source: as ``ext3.format.inode``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ..constants import GOOD_INODE_SIZE, S_IFBLK, S_IFCHR, S_IFMT, S_IFREG, XATTR_MAGIC
from ..errors import Ext3Error, PathNotFoundError
from ..format.group_desc import metadata_block
from ..format.inode import table_view
from ..format.layout import Table
from ..format.schema import INODE_EXTRA
from .filesystem import Filesystem, Stat

__all__ = ["Columns", "column_parts", "nanoseconds", "read_columns", "read_facts", "read_stats"]

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

GAP_BYTES = 16 << 10
"""Rows of the inode table that nobody asked for are read, too, where they are fewer than this between two that are."""
RUN_BYTES = 4 << 20
AT_ONCE = 32_768
"""Inodes that are decoded in one go; bounds the memory of a long list."""
SECOND = 1_000_000_000
SAFE_SECONDS = (1 << 63) // SECOND - 2
"""Times nearer to 1970 than this fit 64 bits as nanoseconds."""

assert INODE_EXTRA.dtype.fields is not None
_CRTIME_END = int(INODE_EXTRA.dtype.fields["i_crtime_extra"][1])


@dataclass(frozen=True, slots=True)
class Columns:
    """What inodes hold, one row for each number that was asked for, in that order.

    ``rows`` are INODE_CORE rows. A ``size`` that no file can have may be negative. Times are columns of seconds since 1970 and
    of nanoseconds: together they may not fit 64 bits. ``attributed``: the inode may have extended attributes. ``bad``: its
    extra area leaves it.
    """

    ino: Numbers
    rows: Table
    mode: Numbers
    uid: Numbers
    gid: Numbers
    size: Numbers
    atime: tuple[Numbers, Numbers]
    mtime: tuple[Numbers, Numbers]
    ctime: tuple[Numbers, Numbers]
    crtime: tuple[Numbers, Numbers]
    has_crtime: Flags
    attributed: Flags
    bad: Flags


def read_columns(filesystem: Filesystem, inos: Sequence[int] | Numbers) -> Columns:
    """The columns of ``inos``, which may come in any order and more than once.

    Raises PathNotFoundError for a number that is no inode, CorruptError and DeviceError from reading the tables.
    """
    numbers = np.asarray(inos, np.int64)
    raw = _records(filesystem, numbers)
    count, size = raw.shape
    rows = table_view(memoryview(raw).cast("B"), count, size) if count else table_view(bytes(size), 0, size)  # type: ignore[arg-type]
    mode = rows["i_mode"].astype(np.int64)
    length = rows["i_size"].astype(np.int64)
    high = np.where((mode & S_IFMT) == S_IFREG, rows["i_size_high"], 0).astype(np.int64)
    nothing = np.zeros(count, np.int64)
    reach, attributed, bad = nothing, rows["i_file_acl"] != 0, np.zeros(count, np.bool_)
    extra: Table | None = None
    if size > GOOD_INODE_SIZE and count:
        room = size - GOOD_INODE_SIZE
        extra = np.ndarray((count,), INODE_EXTRA.dtype, memoryview(raw).cast("B"), GOOD_INODE_SIZE, (size,))  # type: ignore[arg-type]
        reach = extra["i_extra_isize"].astype(np.int64)
        bad = (reach % 4 != 0) | (reach > room)
        reach = np.where(bad, 0, reach)
        words = raw.view("<u4")
        at = np.minimum((GOOD_INODE_SIZE + reach) // 4, size // 4 - 1)
        magic = words[np.arange(count), at] == XATTR_MAGIC
        attributed = attributed | (magic & (reach > 0) & (reach + 4 <= room))

    def word(name: str, end: int) -> Numbers:
        return nothing if extra is None else np.where(reach >= end, extra[name], 0).astype(np.int64)

    def moment(low: Numbers, more: Numbers) -> tuple[Numbers, Numbers]:
        return low - (low >> 31 << 32) + ((more & 3) << 32), more >> 2

    return Columns(
        ino=numbers,
        rows=rows,
        mode=mode,
        uid=rows["i_uid"].astype(np.int64) | rows["i_uid_high"].astype(np.int64) << 16,
        gid=rows["i_gid"].astype(np.int64) | rows["i_gid_high"].astype(np.int64) << 16,
        size=length | high << 32,
        atime=moment(rows["i_atime"].astype(np.int64), word("i_atime_extra", _end("i_atime_extra"))),
        mtime=moment(rows["i_mtime"].astype(np.int64), word("i_mtime_extra", _end("i_mtime_extra"))),
        ctime=moment(rows["i_ctime"].astype(np.int64), word("i_ctime_extra", _end("i_ctime_extra"))),
        crtime=moment(word("i_crtime", _CRTIME_END), word("i_crtime_extra", _end("i_crtime_extra"))),
        has_crtime=reach >= _CRTIME_END,
        attributed=attributed,
        bad=bad,
    )


def column_parts(
    filesystem: Filesystem, inos: Sequence[int] | Numbers, start: int = 0
) -> Iterator[tuple[int, int, Columns | Ext3Error]]:
    """The columns of ``inos`` in parts: (first index, behind the last, columns). Where a table cannot be read, each inode it
    concerns is a part of its own, with the error in place of columns."""
    try:
        yield start, start + len(inos), read_columns(filesystem, inos)
        return
    except Ext3Error as error:
        if len(inos) <= 1:
            yield start, start + len(inos), error
            return
    middle = len(inos) // 2
    yield from column_parts(filesystem, inos[:middle], start)
    yield from column_parts(filesystem, inos[middle:], start + middle)


def read_stats(filesystem: Filesystem, inos: Sequence[int]) -> list[Stat]:
    """``filesystem.stat`` of each of ``inos``. Raises what ``read_columns`` does, and CorruptError for a damaged inode."""
    found: list[Stat] = []
    for start in range(0, len(inos), AT_ONCE):
        columns = read_columns(filesystem, inos[start : start + AT_ONCE])
        if columns.bad.any():
            filesystem.inode(int(columns.ino[columns.bad.argmax()]))  # raises, and says what is wrong
        found += _stats(columns)
    return found


def read_facts(filesystem: Filesystem, inos: Sequence[int]) -> tuple[list[Stat | Ext3Error], list[bool]]:
    """For each of ``inos`` its facts, or why they cannot be known; and whether it may have extended attributes."""
    found: list[Stat | Ext3Error] = []
    attributed: list[bool] = []
    for first in range(0, len(inos), AT_ONCE):
        for start, end, columns in column_parts(filesystem, inos[first : first + AT_ONCE]):
            if isinstance(columns, Ext3Error):
                found += [columns] * (end - start)
                attributed += [False] * (end - start)
                continue
            begin = len(found)
            found += _stats(columns)
            attributed += columns.attributed.tolist()
            for row in np.flatnonzero(columns.bad).tolist():
                try:
                    filesystem.inode(int(columns.ino[row]))
                except Ext3Error as error:
                    found[begin + row] = error
    return found, attributed


_stat = partial(tuple.__new__, Stat)
"""Without the check of the number of fields, which takes as long as all else."""


def _stats(columns: Columns) -> list[Stat]:
    """Columns as one object for each inode; of bad ones times may be missing."""
    rows = columns.rows
    form = columns.mode & S_IFMT
    device = (form == S_IFCHR) | (form == S_IFBLK)
    old, new = rows["i_block"][:, 0].astype(np.int64), rows["i_block"][:, 1].astype(np.int64)
    major = np.where(device, np.where(old != 0, old >> 8 & 0xFF, new >> 8 & 0xFFF), 0)
    minor = np.where(device, np.where(old != 0, old & 0xFF, new & 0xFF | new >> 12 & 0xFFF00), 0)
    born = [
        time if there else None for time, there in zip(nanoseconds(columns.crtime), columns.has_crtime.tolist(), strict=True)
    ]
    facts = zip(
        columns.ino.tolist(),
        columns.mode.tolist(),
        columns.uid.tolist(),
        columns.gid.tolist(),
        columns.size.view(np.uint64).tolist(),  # a hostile one may not fit the signed column
        rows["i_links_count"].tolist(),
        rows["i_blocks"].tolist(),
        nanoseconds(columns.atime),
        nanoseconds(columns.mtime),
        nanoseconds(columns.ctime),
        born,
        major.tolist(),
        minor.tolist(),
        rows["i_flags"].tolist(),
        rows["i_generation"].tolist(),
        rows["i_file_acl"].tolist(),
        strict=True,
    )
    return list(map(_stat, facts))


def nanoseconds(moment: tuple[Numbers, Numbers]) -> list[int]:
    """A pair of columns as nanoseconds since 1970."""
    if not len(moment[0]) or (int(moment[0].min()) > -SAFE_SECONDS and int(moment[0].max()) < SAFE_SECONDS):
        return (moment[0] * SECOND + moment[1]).tolist()  # type: ignore[no-any-return]
    return [seconds * SECOND + rest for seconds, rest in zip(moment[0].tolist(), moment[1].tolist(), strict=True)]


def _end(name: str) -> int:
    """The i_extra_isize from which an inode has this field."""
    assert INODE_EXTRA.dtype.fields is not None
    return int(INODE_EXTRA.dtype.fields[name][1]) + 4


def _records(filesystem: Filesystem, inos: Numbers) -> npt.NDArray[np.uint8]:
    """The records as they lie in the tables; shape (count, inode size)."""
    superblock = filesystem.superblock
    size = superblock.inode_size
    if len(inos) and not 1 <= int(inos.min()) <= int(inos.max()) <= superblock.inodes_count:
        wrong = int(inos[(inos < 1) | (inos > superblock.inodes_count)][0])
        raise PathNotFoundError(f"inode {wrong}", f"inodes are from 1 to {superblock.inodes_count}")
    groups, index = np.divmod(inos - 1, superblock.inodes_per_group)
    used, which = np.unique(groups, return_inverse=True)
    blocks = superblock.geometry.inode_table_blocks
    starts = [
        metadata_block(superblock, filesystem.groups, group, "bg_inode_table", blocks) * superblock.block_size
        for group in used.tolist()
    ]
    offsets = np.array(starts, np.int64)[which] + index * size
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
            table = np.frombuffer(filesystem.device.read(start, span), np.uint8).reshape(-1, size)
            found[order[first:end]] = table[(offsets[first:end] - start) // size]
            first = end
    return found
