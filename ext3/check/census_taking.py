"""Census of a whole filesystem at once, and what in the filesystem disagrees with it.

For code that moves or frees blocks by the tables: a wrong bitmap or a shared block would cost a file. Nothing is repaired here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..constants import BAD_INO, DIND_SLOT, JOURNAL_INO, RESIZE_INO, ROOT_INO, S_IFDIR, S_IFMT, SECTOR
from ..errors import CorruptError
from ..format.block_map import map_limit, read_inode_map
from ..format.inode import Inode, has_block_map, parse_inode
from ..format.inode_table_columns import core_rows
from ..format.schema import XATTR_HEADER
from ..format.violation import Violation
from ..format.xattr import block_attributes, inode_attributes
from ..read.volume import Volume
from .bitmap_rows import bitmap_kinds, compare_bitmaps, range_text
from .census import Census
from .inode_rules import screen_inodes
from .inode_tables import TablePart, read_tables
from .name_counts import count_names

__all__ = ["Inventory", "take_census"]

Numbers = npt.NDArray[np.int64]

SHOWN = 20
"""Most violations of one kind that are named."""


class Inventory(NamedTuple):
    """Census, and what disagrees with it: inodes, shared blocks, names, link counts, bitmaps, counts of groups."""

    census: Census
    violations: list[Violation]


def take_census(volume: Volume, *, owners: bool = False) -> Inventory:
    """Count all inodes, blocks and names. ``owners``: note the inode of each block. Raises DeviceError, CorruptError."""
    return _Taking(volume, owners).run()


class _Taking:
    def __init__(self, volume: Volume, owners: bool) -> None:
        self.volume = volume
        self.superblock = volume.superblock
        self.census = Census(volume.superblock, owners=owners)
        self.found: list[Violation] = []
        self._size = volume.superblock.block_size
        none = np.zeros(0, np.int64)
        self._directory_blocks: list[tuple[Numbers, Numbers, Numbers]] = [(none, none, none)]
        self._attribute_blocks: list[tuple[Numbers, Numbers]] = [(none, none)]

    def run(self) -> Inventory:
        volume, superblock, census = self.volume, self.superblock, self.census
        census.mark_system(superblock, volume.groups)
        for part in read_tables(volume.device, superblock, volume.groups):
            if part.error is not None:
                raise part.error
            self._take_part(part)
        self._take_attribute_blocks()
        if census.any_shared:
            for block in np.flatnonzero(census.shared)[:SHOWN].tolist():
                self.found.append(Violation(f"block {block}", "owners", "several", "one"))
        directory, logical, block = (np.concatenate(column) for column in zip(*self._directory_blocks, strict=True))
        self.found += count_names(
            census,
            directory,
            logical,
            block,
            read=volume.device.read,
            block_size=self._size,
            first_ino=superblock.first_ino,
        )
        self._compare_links()
        self._compare_groups()
        return Inventory(census, self.found)

    # Inodes

    def _take_part(self, part: TablePart) -> None:
        superblock, census = self.superblock, self.census
        screen = screen_inodes(
            part.records,
            part.first,
            first_ino=superblock.first_ino,
            inodes_count=superblock.inodes_count,
            low_dtime=False,
            block_size=self._size,
            first_data_block=superblock.first_data_block,
            system=census.system,
            read=self.volume.device.read,
            area_sound=_area_sound,
            attribute_block_sound=self._attribute_block_sound,
        )
        rows = core_rows(part.records)
        sound = np.flatnonzero(screen.sound)
        census.mode[part.first + sound] = rows["i_mode"][sound]
        census.links[part.first + sound] = rows["i_links_count"][sound]
        maps = screen.maps
        owner = part.first + screen.mapped
        self._claim(owner[maps.row], maps.block)
        self._claim(owner[maps.pointer_row], maps.pointer_block)
        of_directories = (rows["i_mode"][screen.mapped[maps.row]] & S_IFMT) == S_IFDIR
        row = maps.row[of_directories]
        self._directory_blocks.append((owner[row], maps.logical[of_directories], maps.block[of_directories]))
        self._attribute_blocks.append((part.first + screen.attribute_rows, screen.attribute_blocks))
        for number in np.flatnonzero(screen.doubtful).tolist():
            ino = part.first + number
            try:
                self._take_one(ino, part.records[number].tobytes())
            except CorruptError as error:
                self.found.append(Violation(error.where, error.field, error.got, error.want))

    def _attribute_block_sound(self, block: int) -> bool:
        try:
            block_attributes(self.volume.device.read(block * self._size, self._size))
        except CorruptError:
            return False
        return True

    def _claim(self, owner: Numbers, blocks: Numbers) -> None:
        self.census.claim(blocks)
        if self.census.owner is not None:
            self.census.owner[blocks] = owner

    def _take_one(self, ino: int, raw: bytes) -> None:
        """Count an inode that the screen does not pass. Raises CorruptError."""
        inode = parse_inode(raw, ino)
        stat, census, where = inode.stat, self.census, f"inode {ino}"
        if ino in (BAD_INO, RESIZE_INO) or (ino < self.superblock.first_ino and ino not in (ROOT_INO, JOURNAL_INO)):
            self._take_reserved(ino, inode)
            return
        if not stat.links and ino == JOURNAL_INO:
            return
        if not stat.links or inode.dtime:
            raise CorruptError(where, "i_links_count", stat.links, "0 with i_dtime, or 1 or more without")
        census.mode[ino] = stat.mode
        census.links[ino] = stat.links
        inode_attributes(inode.area, where=where)
        sectors = self._size // SECTOR
        blocks = 0
        if stat.file_acl:
            if not self._attribute_block_sound(self._inside(where, "i_file_acl", stat.file_acl)):
                raise CorruptError(where, "i_file_acl", stat.file_acl, "a sound attribute block")
            self._attribute_blocks.append((np.array([ino]), np.array([stat.file_acl])))
            blocks += 1
        if has_block_map(inode, self._size):
            blocks += self._take_map(ino, inode)
        if blocks * sectors != stat.blocks:
            raise CorruptError(where, "i_blocks", stat.blocks, blocks * sectors)

    def _take_reserved(self, ino: int, inode: Inode) -> None:
        """Count a reserved inode: the list of bad blocks, the resize inode, or one that is not in use."""
        words, where = inode.i_block, f"inode {ino}"
        if ino == BAD_INO:
            self._take_map(ino, inode)
        elif ino == RESIZE_INO:
            if words[DIND_SLOT]:
                self._claim(np.array([ino]), np.array([self._inside(where, "i_block", words[DIND_SLOT])]))
        elif inode.stat.mode or inode.stat.links:
            raise CorruptError(where, "i_mode", inode.stat.mode, 0)

    def _inside(self, where: str, field: str, block: int) -> int:
        if not self.superblock.first_data_block <= block < self.superblock.blocks_count or self.census.system[block]:
            raise CorruptError(where, field, block, "a block of data")
        return block

    def _take_map(self, ino: int, inode: Inode) -> int:
        """Count the blocks of one map; return their number."""
        where = f"inode {ino}"
        found = read_inode_map(self.volume.device, self.superblock, inode, map_limit(self._size), where=where)
        ranges = [(start, count) for _, start, count in found.extents]
        ranges += [(block, 1) for block in found.indirect]
        for start, count in ranges:
            if self.census.system[start : start + count].any():
                raise CorruptError(where, "block map", f"system blocks from {start} on", "blocks of data")
        end = found.extents.end
        size, block_size = inode.stat.size, self._size
        if ino != BAD_INO:
            low = end * block_size if inode.stat.is_dir else (end - 1) * block_size
            if size < low or (inode.stat.is_dir and (size != end * block_size or found.mapped != end)):
                raise CorruptError(where, "i_size", size, f"that of {end} blocks")
        logical = [np.arange(at, at + count) for at, _, count in found.extents]
        blocks = [np.arange(start, start + count) for start, count in ranges]
        if blocks:
            every = np.concatenate(blocks).astype(np.int64)
            self._claim(np.full(len(every), ino), every)
            if inode.stat.is_dir:
                data = found.mapped
                self._directory_blocks.append((np.full(data, ino), np.concatenate(logical), every[:data]))
        return found.mapped + len(found.indirect)

    def _take_attribute_blocks(self) -> None:
        """Claim each attribute block once, and compare its reference count."""
        inos, blocks = (np.concatenate(column) for column in zip(*self._attribute_blocks, strict=True))
        distinct, first, counts = np.unique(blocks, return_index=True, return_counts=True)
        self._claim(inos[first], distinct)
        for block, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            header = XATTR_HEADER.record(self.volume.device.read(block * self._size, self._size))
            if header["h_refcount"] != count:
                self.found.append(Violation(f"attribute block {block}", "h_refcount", header["h_refcount"], count))

    # What disagrees

    def _compare_links(self) -> None:
        census = self.census
        odd = census.wrong_links(self.superblock.first_ino)
        for ino in odd[census.names[odd] != census.links[odd]][:SHOWN].tolist():
            self.found.append(Violation(f"inode {ino}", "i_links_count", int(census.links[ino]), int(census.names[ino])))

    def _compare_groups(self) -> None:
        superblock, groups = self.superblock, self.volume.groups
        kinds = blocks, inodes = bitmap_kinds(superblock, self.census)
        for _ in compare_bitmaps(self.volume.device.read, superblock, groups, kinds):
            pass
        for kind in kinds:
            for group, stored in kind.differing[:SHOWN]:
                used, marked = kind.differences(group, stored)
                odd = np.flatnonzero(used != marked)
                text = range_text(odd + kind.first + group * kind.per_group, marked[odd]) if len(odd) else "padding not set"
                self.found.append(Violation(f"group {group}", kind.column, text, "what is in use"))
        of_directories = (self.census.directories - 1) // inodes.per_group
        wanted = (
            ("bg_free_blocks_count", superblock.geometry.columns.group_blocks - blocks.used),
            ("bg_free_inodes_count", inodes.per_group - inodes.used),
            ("bg_used_dirs_count", np.bincount(of_directories, minlength=superblock.groups_count)),
        )
        for column, want in wanted:
            self.found += _different_counts(column, groups[column].astype(np.int64), want)


def _different_counts(column: str, stored: Numbers, want: Sequence[int] | Numbers) -> Iterator[Violation]:
    for group in np.flatnonzero(stored != want)[:SHOWN].tolist():
        yield Violation(f"group {group}", column, int(stored[group]), int(want[group]))


def _area_sound(area: bytes) -> bool:
    try:
        inode_attributes(area)
    except CorruptError:
        return False
    return True
