"""Inode table columns: many inodes decoded as numpy columns, and packed from columns. One inode: see ``inode``.

Source: see ``inode`` and ``inode_fields``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ..constants import GOOD_INODE_SIZE, XATTR_MAGIC
from .group_desc import Groups
from .inode import Stat
from .inode_fields import CRTIME_END, MASK32, SECOND, TIMES_END, decode_owner, encode_owner, new_extra_size
from .inode_fields_columns import (
    Flags,
    Numbers,
    Times,
    bad_extra_sizes,
    decode_devices,
    decode_sizes,
    decode_times,
    encode_times,
)
from .inode_table import check_number, table_offset
from .layout_columns import Table
from .schema import INODE_CORE, INODE_EXTRA

if TYPE_CHECKING:
    from .superblock import Superblock

__all__ = [
    "Columns",
    "Records",
    "core_rows",
    "decode_columns",
    "extra_rows",
    "inode_offsets",
    "nanoseconds",
    "pack_table",
    "stats_of",
    "table_rows",
]

Records = npt.NDArray[np.uint8]
"""Raw inode records, shape (count, inode size)."""

SAFE_SECONDS = (1 << 63) // SECOND - 2
"""Distance from 1970, in seconds, below which times in nanoseconds fit 64 bits."""


# -- located ---------------------------------------------------------------------------------------------------------


def inode_offsets(superblock: Superblock, groups: Groups | Table, inos: Numbers) -> Numbers:
    """Return ``inode_offset`` of each inode."""
    geometry = superblock.geometry
    if len(inos) and not 1 <= int(inos.min()) <= int(inos.max()) <= geometry.inodes:
        check_number(superblock, int(inos[(inos < 1) | (inos > geometry.inodes)][0]))
    group, index = np.divmod(inos - 1, geometry.inodes_per_group)
    used, which = np.unique(group, return_inverse=True)
    starts = np.array([table_offset(superblock, groups, number) for number in used.tolist()], np.int64)
    offsets: Numbers = starts[which] + index * geometry.inode_size
    return offsets


# -- decoded ---------------------------------------------------------------------------------------------------------


class Columns(NamedTuple):
    """Columns of inodes: one row for each number asked for, in that order.

    ``records`` are their bytes, ``rows`` INODE_CORE rows of them. An impossible ``size`` may be negative.
    ``attributed``: the inode may have extended attributes. ``bad``: its extra area exceeds it, and ``parse_inode`` raises.
    """

    ino: Numbers
    records: Records
    rows: Table
    mode: Numbers
    uid: Numbers
    gid: Numbers
    size: Numbers
    atime: Times
    mtime: Times
    ctime: Times
    crtime: Times
    has_crtime: Flags
    attributed: Flags
    bad: Flags


def core_rows(records: Records) -> Table:
    """Return the INODE_CORE of each record, without a copy; shape (count,)."""
    rows: Table = records[:, :GOOD_INODE_SIZE].view(INODE_CORE.dtype)[:, 0]
    return rows


def table_rows(raw: bytes, inode_size: int) -> Table:
    """Return the INODE_CORE of each record in ``raw``, records end to end; shape (count,)."""
    return core_rows(np.frombuffer(raw, np.uint8).reshape(-1, inode_size))


def extra_rows(records: Records) -> Table | None:
    """Return the INODE_EXTRA of each record, without a copy; shape (count,). None if inodes have no room for it."""
    if records.shape[1] == GOOD_INODE_SIZE:
        return None
    rows: Table = records[:, GOOD_INODE_SIZE : GOOD_INODE_SIZE + INODE_EXTRA.size].view(INODE_EXTRA.dtype)[:, 0]
    return rows


def decode_columns(records: Records, inos: Numbers) -> Columns:
    """Decode the records of ``inos``."""
    count, inode_size = records.shape
    rows, extra = core_rows(records), extra_rows(records)
    nothing = np.zeros(count, np.int64)
    reach, attributed, bad = nothing, rows["i_file_acl"] != 0, np.zeros(count, np.bool_)
    if extra is not None:
        room = inode_size - GOOD_INODE_SIZE
        reach = extra["i_extra_isize"].astype(np.int64)
        bad = bad_extra_sizes(reach, room)
        reach = np.where(bad, 0, reach)
        at = np.minimum((GOOD_INODE_SIZE + reach) // 4, inode_size // 4 - 1)
        magic = records.view("<u4")[np.arange(count), at] == XATTR_MAGIC
        attributed = attributed | (magic & (reach > 0) & (reach + 4 <= room))

    def core(name: str) -> Numbers:
        return rows[name].astype(np.int64)

    def more(name: str) -> Numbers:
        return nothing if extra is None else np.where(reach >= INODE_EXTRA.end_of(name), extra[name], 0).astype(np.int64)

    mode = core("i_mode")
    return Columns(
        ino=inos,
        records=records,
        rows=rows,
        mode=mode,
        uid=decode_owner(core("i_uid"), core("i_uid_high")),
        gid=decode_owner(core("i_gid"), core("i_gid_high")),
        size=decode_sizes(mode, core("i_size"), core("i_size_high")),
        atime=decode_times(core("i_atime"), more("i_atime_extra")),
        mtime=decode_times(core("i_mtime"), more("i_mtime_extra")),
        ctime=decode_times(core("i_ctime"), more("i_ctime_extra")),
        crtime=decode_times(more("i_crtime"), more("i_crtime_extra")),
        has_crtime=reach >= CRTIME_END,
        attributed=attributed,
        bad=bad,
    )


_stat = partial(tuple.__new__, Stat)
"""Create a Stat without the check of the number of fields, which takes half of the time."""


def stats_of(columns: Columns) -> list[Stat]:
    """Return one Stat for each inode; of bad ones times may be missing."""
    rows = columns.rows
    words = rows["i_block"][:, :2].astype(np.int64)
    major, minor = decode_devices(columns.mode, words[:, 0], words[:, 1])
    crtimes = [
        time if there else None for time, there in zip(nanoseconds(columns.crtime), columns.has_crtime.tolist(), strict=True)
    ]
    fields = zip(
        columns.ino.tolist(),
        columns.mode.tolist(),
        columns.uid.tolist(),
        columns.gid.tolist(),
        columns.size.view(np.uint64).tolist(),  # an impossible size may be negative in the signed column
        rows["i_links_count"].tolist(),
        rows["i_blocks"].tolist(),
        nanoseconds(columns.atime),
        nanoseconds(columns.mtime),
        nanoseconds(columns.ctime),
        crtimes,
        major.tolist(),
        minor.tolist(),
        rows["i_flags"].tolist(),
        rows["i_generation"].tolist(),
        rows["i_file_acl"].tolist(),
        strict=True,
    )
    return list(map(_stat, fields))


def nanoseconds(times: Times) -> list[int]:
    """Return a pair of columns as nanoseconds since 1970."""
    seconds, nano = times
    if not len(seconds) or (int(seconds.min()) > -SAFE_SECONDS and int(seconds.max()) < SAFE_SECONDS):
        together: list[int] = (seconds * SECOND + nano).tolist()
        return together
    return [second * SECOND + rest for second, rest in zip(seconds.tolist(), nano.tolist(), strict=True)]


# -- packed ----------------------------------------------------------------------------------------------------------


def pack_table(
    inode_size: int,
    *,
    mode: Numbers,
    uid: Numbers,
    gid: Numbers,
    size: Numbers,
    links: Numbers,
    sectors: Numbers,
    flags: Numbers,
    file_acl: Numbers,
    atime: Times,
    mtime: Times,
    ctime: Times,
    crtime: Times,
    i_block: npt.NDArray[np.uint32],
    areas: Mapping[int, bytes],
) -> Records:
    """Pack new inodes: columns of the same length, ``i_block`` of shape (count, 15); ``areas``: attribute areas by row.

    Times are rounded to the nearest that can be stored, all other values must fit.
    """
    count, extra_size = len(mode), new_extra_size(inode_size)
    records = np.zeros((count, inode_size), np.uint8)
    core, extra = core_rows(records), extra_rows(records)
    core["i_mode"] = mode
    core["i_uid"], core["i_uid_high"] = encode_owner(uid)
    core["i_gid"], core["i_gid_high"] = encode_owner(gid)
    core["i_size"] = size & MASK32
    core["i_size_high"] = size >> 32
    core["i_links_count"] = links
    core["i_blocks"] = sectors
    core["i_flags"] = flags
    core["i_file_acl"] = file_acl
    core["i_block"] = i_block
    wide = extra_size >= TIMES_END
    times = [("i_atime", atime), ("i_ctime", ctime), ("i_mtime", mtime)]
    encoded = {name: encode_times(pair, wide=wide) for name, pair in times}
    for name, (low, _) in encoded.items():
        core[name] = low
    if extra is not None:
        end = GOOD_INODE_SIZE + extra_size
        extra["i_extra_isize"] = extra_size
        for name, (_, more) in encoded.items():
            extra[name + "_extra"] = more
        extra["i_crtime"], extra["i_crtime_extra"] = encode_times(crtime, wide=wide)
        for row, area in areas.items():
            records[row, end : end + len(area)] = np.frombuffer(area, np.uint8)
    return records
