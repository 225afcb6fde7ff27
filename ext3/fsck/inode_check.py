"""Check of one inode with all rules: its fields, its attributes, its block map, and what it claims.

What can be judged only when the inode's name is known (mode, device, symbolic link, fields that must be zero) is left in
``context.bad_inodes``. Source of the rules: e2fsprogs ``e2fsck/pass1.c``.
"""

from __future__ import annotations

import numpy as np

from ..check.census import MODELESS
from ..constants import (
    EXTRA_ISIZE,
    GOOD_INODE_SIZE,
    RESIZE_INO,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFSOCK,
    SECTOR,
    XATTR_MAGIC,
    Compat,
    InodeFlag,
)
from ..errors import DeviceError
from ..format.block_map import map_limit
from ..format.inode_fields import extra_size_violations
from ..format.schema import DIRENT, INODE_EXTRA
from .attribute_check import AttributeBlocks, area_fault
from .context import Context
from .inode_forms import has_map, symlink_sound
from .later_formats import LATER, LaterFormats
from .map_check import MapCheck, PointerTables
from .problem import Place, Problem
from .problems import inodes as problems
from .record import Record

__all__ = ["InodeCheck"]

OS_HURD = 1
IMMUTABLE = int(InodeFlag.IMMUTABLE | InodeFlag.APPEND)
ENCRYPT, CASEFOLD = 0x800, 0x40000000
LARGE = 1 << 31
"""Size from which a regular file needs the feature large_file."""
EPOCH = 3
EPOCH_END = 2 << 32
"""Time, in seconds, from which epoch bits of 3 are what they seem."""
MIN_EXTRA = 4
SOME_HOLES, HOLES_PER_BLOCK = 1024, 2
"""Holes of a directory that are filled: some, and some more for each of its blocks."""


class InodeCheck:
    """Checks inodes one by one, in ascending order. ``tables`` and ``blocks`` are shared by all inodes of a pass."""

    def __init__(self, context: Context, blocks: AttributeBlocks, tables: PointerTables) -> None:
        self._context = context
        self._superblock = context.superblock
        self._attributes = blocks
        self._tables = tables
        self._later = LaterFormats(context)
        self._hurd = context.superblock.creator_os == OS_HURD
        self._verdicts: dict[bytes, bool] = {}
        self._inodes_count = context.superblock.inodes_count

    def check(self, record: Record, *, low_dtime: bool) -> None:
        """Check an inode that is not reserved."""
        self.check_dtime(record, low_dtime=low_dtime)
        if not record.links:
            if not record.get("i_dtime") and record.mode and self._fix(problems.ZERO_DTIME, record):
                record.core["i_dtime"] = self._context.now
            record.save(self._context)
            return
        self.check_used(record)

    def check_dtime(self, record: Record, *, low_dtime: bool) -> None:
        """Check for the rest of an orphan list."""
        dtime = record.get("i_dtime")
        if low_dtime and 0 < dtime < self._inodes_count and self._fix(problems.LOW_DTIME, record, got=dtime):
            record.core["i_dtime"] = 0 if record.links else self._context.now

    def check_used(self, record: Record) -> None:
        """Check an inode with links, and claim what it owns."""
        context = self._context
        if record.get("i_dtime") and self._fix(problems.SET_DTIME, record):
            record.core["i_dtime"] = 0
        if record.flags & LATER and not self._later.judge(record):
            return
        self._check_zero_fields(record)
        self.check_flags(record)
        self._check_extra(record)
        if self._looks_like_directory(record) and self._fix(problems.REALLY_DIRECTORY, record, got=f"{record.mode:o}"):
            record.core["i_mode"] = record.mode & 0o7777 | S_IFDIR
        self._check_form(record)
        self.check_blocks(record)
        record.save(context)

    def finish(self) -> None:
        """Convert the inodes in formats of ext4, when all blocks in use are known, and check what they have become."""
        for record in self._later.convert():
            self.check_used(record)

    def _fix(self, problem: Problem, record: Record, *, got: object = None, want: object = None) -> bool:
        return self._context.fix(problem, Place(ino=record.ino), got=got, want=want)

    # Fields

    def _check_zero_fields(self, record: Record) -> None:
        bad = record.get("i_faddr") != 0 or (record.is_dir and record.get("i_size_high") != 0)
        if self._hurd:
            # Fragments are two bytes, where others have the high bits of i_blocks.
            bad |= record.get("i_blocks_high") != 0
        else:
            bad |= record.get("i_blocks_high") != 0 or record.get("i_file_acl_high") != 0
        if bad:
            self._context.bad_inodes.add(record.ino)

    def check_flags(self, record: Record) -> None:
        """Check for flags of features that the filesystem does not have."""
        flags, compat = record.flags, self._superblock.compat
        if flags & InodeFlag.IMAGIC and not compat & Compat.IMAGIC_INODES and self._fix(problems.IMAGIC_FLAG, record):
            record.clear_flags(InodeFlag.IMAGIC)
        if flags & ENCRYPT and self._fix(problems.ENCRYPT_FLAG, record):
            record.clear_flags(ENCRYPT)
        if flags & CASEFOLD and self._fix(problems.CASEFOLD_FLAG, record):
            record.clear_flags(CASEFOLD)

    def _check_extra(self, record: Record) -> None:
        """Check i_extra_isize, the attributes in the inode, and the epoch bits of its times."""
        if record.extra is None:
            return
        room = len(record.raw) - GOOD_INODE_SIZE
        size = int(record.extra["i_extra_isize"])
        if any(extra_size_violations(size, room, record.ino)):
            want = min(EXTRA_ISIZE, room) if not MIN_EXTRA <= size <= room else size + 3 & ~3
            if not self._fix(problems.EXTRA_ISIZE, record, got=size, want=want):
                return
            record.extra["i_extra_isize"] = size = want
        if size >= room - 4:
            return
        at = GOOD_INODE_SIZE + size
        if int.from_bytes(record.raw[at : at + 4], "little") == XATTR_MAGIC:
            self._check_area(record, at)
        late = [
            name
            for name in ("i_atime", "i_ctime", "i_mtime", "i_crtime")
            if size >= INODE_EXTRA.end_of(name + "_extra")
            and int(record.extra[name + "_extra"]) & EPOCH == EPOCH
            and int((record.extra if name == "i_crtime" else record.core)[name]) >> 31
        ]
        if late and self._context.now < EPOCH_END and self._fix(problems.TIME_EPOCH, record):
            for name in late:
                record.extra[name + "_extra"] &= 0xFFFFFFFF ^ EPOCH

    def area_sound(self, area: bytes) -> bool:
        """Return whether the attribute area of an inode is sound; equal ones are judged once."""
        verdict = self._verdicts.get(area)
        if verdict is None:
            verdict = self._verdicts[area] = area_fault(area) is None
        return verdict

    def _check_area(self, record: Record, at: int) -> None:
        fault = area_fault(bytes(record.raw[at:]))
        if fault is not None and self._fix(fault.problem, record, got=fault.got):
            record.raw[at : at + 4] = bytes(4)

    # What it is

    def _looks_like_directory(self, record: Record) -> bool:
        """Return whether an inode that is no directory, file or symbolic link has a block that begins with ``.`` and ``..``."""
        context, words = self._context, record.words
        if record.is_dir or record.is_file or record.is_symlink or not words[0]:
            return False
        first, end = self._superblock.first_data_block, self._superblock.blocks_count
        used = [word for word in words if word]
        if any(not first <= word < end or context.census.used[word] for word in used):
            return False
        if record.form in (S_IFCHR, S_IFBLK) and record.links == 1 and not any(words[4:]):
            return False
        try:
            block = context.read(words[0])
        except DeviceError:
            return False
        inode, length, name_length, _ = DIRENT.packer.unpack_from(block)
        name_at = DIRENT.size
        if inode != record.ino or block[name_at : name_at + name_length] != b"." or length % 4:
            return False
        if not 12 <= length < len(block) - 12:
            return False
        _, second, name_length, _ = DIRENT.packer.unpack_from(block, length)
        name_at += length
        return block[name_at : name_at + name_length] == b".." and second >= 12 and second % 4 == 0

    def _check_form(self, record: Record) -> None:
        """Check what depends on the kind of file."""
        if record.is_dir or record.is_file:
            return
        if record.is_symlink:
            if symlink_sound(self._context, record):
                self._check_immutable(record)
            else:
                self._context.bad_inodes.add(record.ino)
            return
        special = record.form in (S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK)
        # A device with leftovers in the rest of i_block is accepted, but not with flags that no device can get.
        odd = record.flags & IMMUTABLE and any(record.words[4:])
        if not special or record.flags & InodeFlag.INDEX or odd:
            self._context.bad_inodes.add(record.ino)
        if not special or odd:
            return
        self._check_immutable(record)
        if record.size and self._fix(problems.SPECIAL_SIZE, record, got=record.size):
            record.size = 0

    def _check_immutable(self, record: Record) -> None:
        if record.flags & IMMUTABLE and self._fix(problems.IMMUTABLE_SPECIAL, record):
            record.clear_flags(IMMUTABLE)

    # Blocks

    def check_blocks(self, record: Record) -> None:
        """Check the attribute block and the block map of an inode in use, and claim their blocks."""
        context, ino = self._context, record.ino
        attributed = self._attributes.check(record)
        words = record.words
        check = MapCheck(context, self._tables, ino, words, is_dir=record.is_dir, is_file=record.is_file)
        if has_map(context, record):
            check.run()
            if record.is_dir and not check.clear:
                check = self._without_holes(record, check)
            if check.clear:
                self._clear(record)
                return
            if words != record.words:
                record.words = words
            context.corrected.update(check.corrected)
        self._check_index_flag(record)
        blocks = check.blocks + attributed
        if not blocks and record.is_dir and self._fix(problems.EMPTY_DIRECTORY, record):
            self._clear(record)
            return
        self._check_size(record, check)
        want = blocks * (context.block_size // SECTOR)
        got = record.get("i_blocks")
        if not self._hurd and want != got and self._fix(problems.BAD_BLOCKS_COUNT, record, got=got, want=want):
            record.core["i_blocks"] = want
        context.census.claim(check.claims())
        if attributed:
            self._attributes.count(np.array([record.get("i_file_acl")], np.int64))
        self._mark(record, check)

    def _without_holes(self, record: Record, check: MapCheck) -> MapCheck:
        """Return the check of a directory's map that ends where there are too many holes to fill."""
        holes = check.directory_holes
        allowed = min(self._tables.holes, SOME_HOLES + HOLES_PER_BLOCK * check.blocks)
        if holes > allowed and self._fix(problems.TOO_MANY_HOLES, record, got=holes):
            end = check.end_before_holes(allowed)
            words, corrected = check.words, check.corrected
            check = MapCheck(
                self._context, self._tables, record.ino, words, is_dir=True, is_file=False, end=end, corrected=corrected
            )
            check.run()
            holes = check.directory_holes
        self._tables.holes -= min(holes, self._tables.holes)
        return check

    def _check_index_flag(self, record: Record) -> None:
        if not record.flags & InodeFlag.INDEX:
            return
        if not record.is_dir:
            if self._fix(problems.INDEX_NOT_DIRECTORY, record):
                record.clear_flags(InodeFlag.INDEX)
                if record.is_symlink:  # not judged as one while it had this flag
                    self._check_immutable(record)
        elif not self._superblock.compat & Compat.DIR_INDEX and self._fix(problems.INDEX_NO_FEATURE, record):
            record.clear_flags(InodeFlag.INDEX)

    def _check_size(self, record: Record, check: MapCheck) -> None:
        size, block_size = record.size, self._context.block_size
        length = check.last + 1
        if record.is_dir:
            missing = length - (size // block_size & 0xFFFFFFFF)
            spare = self._context.field("s_prealloc_dir_blocks")
            bad = size % block_size != 0 or missing < 0 or missing > spare
        else:
            bad = size < check.last * block_size or size > map_limit(block_size) * block_size
        want = length * block_size
        if bad and not record.is_symlink and self._fix(problems.BAD_SIZE, record, got=size, want=want):
            record.size = want
        if record.is_file and record.size >= LARGE:
            self._context.large_file = True

    def _mark(self, record: Record, check: MapCheck) -> None:
        """Note an inode in use for later passes."""
        context, ino = self._context, record.ino
        context.census.mode[ino] = record.mode or MODELESS
        context.census.links[ino] = record.links
        counted = (record.is_dir or record.is_file) and ino != RESIZE_INO
        if counted and check.fragmented and check.blocks < self._superblock.blocks_per_group:
            context.report.fragmented += 1
        if record.is_dir:
            logical, block = check.directory_rows()
            context.directory_blocks.add(np.full(len(logical), ino), logical, block)
            if record.flags & InodeFlag.INDEX:
                context.indexed.add(ino)

    def _clear(self, record: Record) -> None:
        """Make a deleted inode of it."""
        record.delete(self._context.now)
        record.save(self._context)
        self._context.free_inode(record.ino)
