"""Pass 1: inodes and their blocks.

It marks in the census which inodes and blocks are in use, and which blocks have several owners; it notes the blocks of
directories, those with an index, and the inodes that are judged when their name is known. Plainly sound inodes are taken in
columns; each of the others is checked by itself. Source: e2fsprogs ``e2fsck/pass1.c``.
"""

from __future__ import annotations

import numpy as np

from ..check.inode_rules import Screen, screen_inodes
from ..check.inode_tables import TablePart, read_tables
from ..constants import BAD_INO, S_IFDIR, S_IFMT, S_IFREG, Compat, InodeFlag
from ..errors import CorruptError, DeviceError
from ..format.inode_table_columns import core_rows
from .attribute_check import AttributeBlocks
from .context import Context
from .inode_check import LARGE, OS_HURD, InodeCheck
from .map_check import PointerTables
from .metadata_relocation import MetadataPlaces
from .problem import Place
from .problems import inodes as problems
from .record import Record
from .special_inodes import check_reserved

__all__ = ["InodePass", "check_inodes", "write_corrected"]


def check_inodes(context: Context) -> None:
    """Check all inodes. Raises Restart after metadata of a group got a new place."""
    InodePass(context).run()


class InodePass:
    """One run of pass 1. ``screen``: take sound inodes in columns."""

    def __init__(self, context: Context, *, screen: bool = True) -> None:
        self._context = context
        self._screen = screen and context.superblock.creator_os != OS_HURD
        self._low_dtime = _checks_low_dtime(context)

    def run(self) -> None:
        context = self._context
        superblock = context.superblock
        context.report.fragmented = 0
        self._places = MetadataPlaces(context)
        self._places.check()
        self._attributes = AttributeBlocks(context)
        self._checks = InodeCheck(context, self._attributes, PointerTables(context))
        self._check_bad_blocks()
        groups = superblock.groups_count
        for part in read_tables(context.storage, superblock, context.groups):
            if context.progress is not None:
                context.progress(1, (part.first - 1) // superblock.inodes_per_group, groups)
            self._check_part(self._readable(part))
        self._attributes.finish()
        self._checks.finish()
        write_corrected(context)
        self._places.apply()

    def _check_bad_blocks(self) -> None:
        """Check the list of bad blocks, which is first of all: what files have in common with it is the files' fault."""
        context = self._context
        try:
            record = Record(BAD_INO, context.read_inode(BAD_INO))
        except (CorruptError, DeviceError):
            return
        check_reserved(context, self._checks, self._places, record, low_dtime=self._low_dtime)

    def _check_part(self, part: TablePart) -> None:
        doubtful = np.arange(len(part.records))
        if self._screen:
            try:
                screen = self._screened(part)
            except DeviceError:
                pass  # a pointer block cannot be read: the inode that has it is found one by one
            else:
                self._take(part, screen)
                doubtful = np.flatnonzero(screen.doubtful)
        first_ino = self._context.superblock.first_ino
        for row in doubtful.tolist():
            record = Record(part.first + row, part.records[row].tobytes())
            if record.ino == BAD_INO:
                continue
            if record.ino < first_ino:
                check_reserved(self._context, self._checks, self._places, record, low_dtime=self._low_dtime)
            else:
                self._checks.check(record, low_dtime=self._low_dtime)

    def _screened(self, part: TablePart) -> Screen:
        context, superblock = self._context, self._context.superblock
        return screen_inodes(
            part.records,
            part.first,
            first_ino=superblock.first_ino,
            inodes_count=superblock.inodes_count,
            low_dtime=self._low_dtime,
            block_size=superblock.block_size,
            first_data_block=superblock.first_data_block,
            system=context.census.system,
            dir_index=bool(superblock.compat & Compat.DIR_INDEX),
            read=context.storage.read,
            area_sound=self._checks.area_sound,
            attribute_block_sound=self._attributes.sound,
        )

    def _take(self, part: TablePart, screen: Screen) -> None:
        """Note what the screen found sound."""
        context, census = self._context, self._context.census
        rows = core_rows(part.records)
        numbers = part.first + np.flatnonzero(screen.sound)
        mode = rows["i_mode"]
        census.mode[numbers] = mode[screen.sound]
        census.links[numbers] = rows["i_links_count"][screen.sound]
        maps = screen.maps
        census.claim(maps.block)
        census.claim(maps.pointer_block)
        self._attributes.count(screen.attribute_blocks)
        is_file = (mode[screen.sound] & S_IFMT) == S_IFREG
        large = (rows["i_size"][screen.sound] >= LARGE) | (rows["i_size_high"][screen.sound] != 0)
        context.large_file |= bool((is_file & large).any())
        is_dir = (mode[screen.mapped] & S_IFMT) == S_IFDIR
        of_directory = is_dir[maps.row]
        ino = part.first + screen.mapped[maps.row[of_directory]]
        context.directory_blocks.add(ino, maps.logical[of_directory], maps.block[of_directory])
        indexed = screen.sound & ((rows["i_flags"] & int(InodeFlag.INDEX)) != 0)
        context.indexed.update((part.first + np.flatnonzero(indexed)).tolist())
        context.report.fragmented += _fragmented(screen, context.superblock.blocks_per_group)

    def _readable(self, part: TablePart) -> TablePart:
        """Return a part of a table with zeros where it cannot be read."""
        if part.error is None:
            return part
        context, block_size = self._context, self._context.block_size
        size = part.records.size
        flat = part.records.reshape(-1)
        at = part.offset
        while at < part.offset + size:
            block, start = divmod(at, block_size)
            count = min(block_size - start, part.offset + size - at)
            try:
                raw = context.read(block)
            except DeviceError as error:
                group = (part.first - 1) // context.superblock.inodes_per_group
                if context.fix(problems.TABLE_UNREADABLE, Place(group=group, block=block), got=error.message):
                    context.storage.write_block(block, bytes(block_size))
            else:
                flat[at - part.offset :][:count] = np.frombuffer(raw, np.uint8, count, start)
            at += count
        return part


def _checks_low_dtime(context: Context) -> bool:
    """Return whether a deletion time below the number of inodes can only be the next of an orphan list."""
    inodes = context.superblock.inodes_count
    times = [context.field(name) for name in ("s_wtime", "s_mtime", "s_mkfs_time")]
    return not any(0 < time < inodes for time in times)


def _fragmented(screen: Screen, limit: int) -> int:
    """Count the files whose blocks do not follow each other; those of ``limit`` blocks or more cannot."""
    maps, count = screen.maps, len(screen.mapped)
    low = np.full(count, np.iinfo(np.int64).max)
    high = np.zeros(count, np.int64)
    for row, block in ((maps.row, maps.block), (maps.pointer_row, maps.pointer_block)):
        np.minimum.at(low, row, block)
        np.maximum.at(high, row, block)
    return int((maps.sound & (maps.blocks > 0) & (maps.blocks < limit) & (high - low + 1 != maps.blocks)).sum())


def write_corrected(context: Context) -> None:
    """Write corrected pointer and attribute blocks, but not those that something else uses too."""
    for block in [block for block in context.corrected if not context.census.shared[block]]:
        context.write(block, context.corrected.pop(block))
