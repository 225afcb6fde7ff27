"""Screen of inodes: which of many are plainly sound, by columns.

Nearly all inodes are, and a check need not look at them one by one. The screen is stricter than the format: an inode that it
does not pass may be sound, and code that looks at single inodes decides. Source of the rules: e2fsprogs ``e2fsck/pass1.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..constants import (
    FAST_SYMLINK_MAX,
    GOOD_INODE_SIZE,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    SECTOR,
    XATTR_MAGIC,
    InodeFlag,
)
from ..format.dirent import BYTES_LIMIT
from ..format.indirect_blocks import file_limit
from ..format.inode_fields_columns import bad_extra_sizes
from ..format.inode_table_columns import Records, core_rows, extra_rows
from ..format.schema import INODE_EXTRA
from .block_maps import ManyMaps, map_many

__all__ = ["Screen", "screen_inodes"]

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

MAX_SECTORS = 1 << 18
"""i_blocks of the largest file that is looked at together with others: maps of larger ones would take much memory."""
PLAIN_FLAGS = (
    InodeFlag.SECRM | InodeFlag.UNRM | InodeFlag.SYNC | InodeFlag.IMMUTABLE | InodeFlag.APPEND | InodeFlag.NODUMP
    | InodeFlag.NOATIME | InodeFlag.JOURNAL_DATA | InodeFlag.NOTAIL | InodeFlag.DIRSYNC | InodeFlag.TOPDIR
)  # fmt: skip
"""Flags that any file or directory may have."""


class Screen(NamedTuple):
    """Result for the rows of a table part.

    ``free``: sound free inodes. ``sound``: sound inodes in use. ``doubtful``: the rest, to be looked at one by one. ``maps``:
    the maps of the rows ``mapped``, which are sound files and directories; ``attribute_blocks``: (row, block) of sound rows.
    """

    free: Flags
    sound: Flags
    doubtful: Flags
    mapped: Numbers
    maps: ManyMaps
    attribute_rows: Numbers
    attribute_blocks: Numbers


def screen_inodes(
    records: Records,
    first: int,
    *,
    first_ino: int,
    inodes_count: int,
    low_dtime: bool,
    block_size: int,
    first_data_block: int,
    system: Flags,
    read: Callable[[int, int], bytes],
    area_sound: Callable[[bytes], bool],
    attribute_block_sound: Callable[[int], bool],
    dir_index: bool = True,
) -> Screen:
    """Screen the records of inodes from number ``first`` on.

    ``first_ino``: first inode that is not reserved; reserved ones are always doubtful. ``low_dtime``: deletion times below
    ``inodes_count`` are leftovers of an orphan list. ``area_sound`` judges the attribute area of an inode,
    ``attribute_block_sound`` an attribute block; both are asked once for equal ones. ``dir_index``: directories may have
    an index.
    """
    rows = core_rows(records)
    count = len(rows)
    numbers = first + np.arange(count)
    mode, links, dtime = rows["i_mode"], rows["i_links_count"], rows["i_dtime"]
    low = (dtime != 0) & (dtime < inodes_count) if low_dtime else np.zeros(count, np.bool_)
    reserved = numbers < first_ino
    free = (links == 0) & ((mode == 0) | (dtime != 0)) & ~low & ~reserved
    good = ~free & ~reserved & (links > 0) & (dtime == 0)
    good &= (rows["i_faddr"] == 0) & (rows["i_blocks_high"] == 0) & (rows["i_file_acl_high"] == 0)
    form = mode & S_IFMT
    is_dir, is_file, is_link = form == S_IFDIR, form == S_IFREG, form == S_IFLNK
    special = (form == S_IFCHR) | (form == S_IFBLK) | (form == S_IFIFO) | (form == S_IFSOCK)
    flags = rows["i_flags"]
    index = int(InodeFlag.INDEX) if dir_index else 0
    allowed = np.where(is_dir, int(PLAIN_FLAGS) | index, int(PLAIN_FLAGS)).astype(np.uint32)
    allowed[special | is_link] &= np.uint32(0xFFFFFFFF ^ int(InodeFlag.IMMUTABLE | InodeFlag.APPEND))
    good &= (flags & ~allowed) == 0
    good &= is_file | (rows["i_size_high"] == 0)
    good &= _extra_sound(records, rows)
    good &= _areas_sound(records, good, area_sound)

    acl = rows["i_file_acl"].astype(np.int64)
    acl_rows = np.flatnonzero(good & (acl != 0))
    if len(acl_rows):
        distinct, which = np.unique(acl[acl_rows], return_inverse=True)
        inside = (distinct >= first_data_block) & (distinct < len(system))
        inside[inside] = ~system[distinct[inside]]
        judged = np.array([ok and attribute_block_sound(block) for ok, block in zip(inside, distinct.tolist(), strict=True)])
        good[acl_rows[~judged[which]]] = False

    sectors = block_size // SECTOR
    acl_sectors = np.where(acl != 0, sectors, 0)
    size = rows["i_size"].astype(np.int64) | np.where(is_file, rows["i_size_high"], 0).astype(np.int64) << 32
    blocks = rows["i_blocks"].astype(np.int64)
    words = rows["i_block"]
    device = (form == S_IFCHR) | (form == S_IFBLK)
    plain = special & (size == 0) & (blocks == acl_sectors) & (words[:, 2:] == 0).all(axis=1)
    plain &= (words[:, 0] == 0) | (device & (links == 1))  # others may be directories with a damaged mode
    plain |= is_link & (blocks == acl_sectors) & _fast_targets_sound(words, size)
    mappable = good & (is_file | is_dir) & (size >= 0) & (blocks <= MAX_SECTORS)
    mapped = np.flatnonzero(mappable)
    maps = map_many(
        read,
        words[mapped],
        block_size=block_size,
        first=first_data_block,
        system=system,
        most=blocks[mapped] // sectors,
    )
    length = maps.last + 1
    fits = maps.blocks * sectors + acl_sectors[mapped] == blocks[mapped]
    fits &= np.where(
        is_dir[mapped],
        (size[mapped] == length * block_size) & (length > 0) & (size[mapped] <= BYTES_LIMIT) & (_data_counts(maps) == length),
        (size[mapped] >= maps.last * block_size) & (size[mapped] <= file_limit(block_size)),
    )
    fits &= maps.sound
    good &= plain
    good[mapped[fits]] = True
    maps = _only(maps, fits)
    kept = np.flatnonzero(good & (acl != 0))
    return Screen(free, good, ~free & ~good, mapped, maps, kept, acl[kept])


def _data_counts(maps: ManyMaps) -> Numbers:
    return np.bincount(maps.row, minlength=len(maps.sound)).astype(np.int64)


def _only(maps: ManyMaps, fits: Flags) -> ManyMaps:
    """Return the maps with only the rows ``fits`` sound."""
    if fits.all():
        return maps
    data, pointers = fits[maps.row], fits[maps.pointer_row]
    return maps._replace(
        sound=fits,
        row=maps.row[data],
        logical=maps.logical[data],
        block=maps.block[data],
        pointer_row=maps.pointer_row[pointers],
        pointer_block=maps.pointer_block[pointers],
    )


def _extra_sound(records: Records, rows: npt.NDArray[np.void]) -> Flags:
    """Return which inodes have a valid i_extra_isize and no time with the epoch bits of an old wrong encoding."""
    extra = extra_rows(records)
    if extra is None:
        return np.ones(len(rows), np.bool_)
    length = extra["i_extra_isize"].astype(np.int64)
    good = ~bad_extra_sizes(length, records.shape[1] - GOOD_INODE_SIZE)
    for name in ("i_atime", "i_ctime", "i_mtime", "i_crtime"):
        times = extra if name == "i_crtime" else rows
        good &= (length < INODE_EXTRA.end_of(name + "_extra")) | ((extra[name + "_extra"] & 3) != 3) | (times[name] >> 31 == 0)
    good &= (length != 0) | (extra["i_checksum_hi"] != XATTR_MAGIC >> 16)  # attributes at byte 128
    return good


def _areas_sound(records: Records, good: Flags, area_sound: Callable[[bytes], bool]) -> Flags:
    """Return which of the ``good`` inodes have no attributes in the inode, or valid ones."""
    extra = extra_rows(records)
    found: Flags = good.copy()
    if extra is None:
        return found
    at = GOOD_INODE_SIZE + extra["i_extra_isize"].astype(np.int64)
    inside = good & (extra["i_extra_isize"] > 0) & (at + 4 <= records.shape[1])
    candidates = np.flatnonzero(inside)
    if not len(candidates):
        return found
    magic = records.view("<u4")[candidates, at[candidates] // 4]
    verdicts: dict[bytes, bool] = {}
    for row in candidates[magic == XATTR_MAGIC].tolist():
        area = records[row, at[row] :].tobytes()
        verdict = verdicts.get(area)
        if verdict is None:
            verdict = verdicts[area] = area_sound(area)
        found[row] = verdict
    return found


def _fast_targets_sound(words: npt.NDArray[np.uint32], size: Numbers) -> Flags:
    """Return which of the symlinks have a target in the inode that ends where ``size`` says."""
    text = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
    first_nul = np.where((text == 0).any(axis=1), (text == 0).argmax(axis=1), text.shape[1])
    found: Flags = (size > 0) & (size <= FAST_SYMLINK_MAX) & (first_nul == size)
    return found
