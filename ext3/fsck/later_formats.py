"""Inodes in formats of ext4: mapped by extents, or with their data in the inode. They get a block map, and keep their content.

A valid one is noted when it is met, and made anew when all blocks in use are known. No feature bit is set. Source: Linux
``fs/ext4/inline.c``, ``fs/ext4/extents.c``; e2fsprogs ``lib/ext2fs/inline_data.c``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..constants import GOOD_INODE_SIZE, S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK, SECTOR, FileType, InodeFlag, XattrIndex
from ..errors import CorruptError, DeviceError
from ..format.block_map import map_limit
from ..format.dirent_block import DOT_REC_LEN, is_name, pack_block, record_size
from ..format.dirent_block import Record as Name
from ..format.extent_tree import ExtentTree, read_extent_tree
from ..format.indirect_blocks_columns import IndirectBlocks
from ..format.schema import DIRENT
from ..format.xattr import inode_attributes, pack_inode_area
from .attribute_check import area_fault
from .context import Context
from .inode_forms import symlink_sound
from .problem import Place, Problem
from .problems import inodes as problems
from .record import Record
from .storage import Stage

__all__ = ["LATER", "LaterFormats"]

LATER = int(InodeFlag.EXTENTS | InodeFlag.INLINE_DATA)
INLINE_BYTES = 60
"""Bytes of data in ``i_block``; the rest is the value of an attribute."""
INLINE_NAME = (XattrIndex.SYSTEM, b"data")
SPECIAL = (S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK)
PARENT_BYTES = 4
"""Bytes in front of the entries of a directory in an inode: its parent."""

Numbers = npt.NDArray[np.int64]


class LaterFormats:
    """Inodes met in formats of ext4."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._trees: list[tuple[Record, ExtentTree]] = []
        self._inline: list[tuple[Record, bytes]] = []

    def judge(self, record: Record) -> bool:
        """Judge an inode in use with one of the flags. Return True if it goes on as an inode of ext3.

        Otherwise the inode was deleted, or it is one that ``convert`` returns.
        """
        if self._plain_special(record) or self._target_inside(record):
            if self._fix(problems.LATER_FLAG_SPECIAL, record):
                record.clear_flags(LATER)
            return True
        data = self._inline_data(record) if record.flags & InodeFlag.INLINE_DATA else None
        known = record.is_dir or record.is_file or record.is_symlink
        if data is not None and known:
            if not self._fix(problems.INLINE_FLAG, record):
                return True
            self._inline.append((record, data))
            return False
        if record.flags & InodeFlag.EXTENTS:
            tree = self._tree(record)
            if tree is not None and known:
                if not self._fix(problems.EXTENTS_FLAG, record):
                    return True
                self._trees.append((record, tree))
                return False
            problem = problems.EXTENTS_INVALID
        else:
            problem = problems.INLINE_INVALID
        if not self._fix(problem, record):
            return True
        record.delete(self._context.now)
        record.save(self._context)
        self._context.free_inode(record.ino)
        return False

    def _fix(self, problem: Problem, record: Record) -> bool:
        return self._context.fix(problem, Place(ino=record.ino))

    def _plain_special(self, record: Record) -> bool:
        """Return whether it is a special file on which nothing else is wrong."""
        zeros = ("i_faddr", "i_blocks_high", "i_file_acl_high", "i_size_high")
        return record.form in SPECIAL and not any(map(record.get, zeros))

    def _target_inside(self, record: Record) -> bool:
        """Return whether it is a symbolic link whose target lies in i_block alone."""
        return record.is_symlink and record.size < INLINE_BYTES and symlink_sound(self._context, record)

    def _tree(self, record: Record) -> ExtentTree | None:
        context, superblock = self._context, self._context.superblock
        where = f"inode {record.ino}"
        try:
            tree = read_extent_tree(
                record.inline, context.read, first=superblock.first_data_block, end=superblock.blocks_count, where=where
            )
        except (CorruptError, DeviceError):
            return None
        last = tree.extents[-1] if tree.extents else None
        return None if last and last.logical + last.length > map_limit(context.block_size) else tree

    def _inline_data(self, record: Record) -> bytes | None:
        """Return the data in an inode, None if there is no attribute for it."""
        area = _area(record)
        if not area or area_fault(area) is not None:
            return None
        try:
            attributes = inode_attributes(area)
        except CorruptError:
            return None
        values = [value for index, name, value in attributes if (index, name) == INLINE_NAME]
        if not values:
            return None
        return record.inline + values[0]

    # Made anew

    def convert(self) -> Iterator[Record]:
        """Give each of the inodes a block map, and yield it to be checked."""
        if not self._trees and not self._inline:
            return
        context, used = self._context, self._context.census.used
        # What the trees hold is in use, though not claimed: no new block may lie there.
        held = self._held()
        used[held] = True
        taken: list[int] = []
        for record, tree in self._trees:
            taken += self._map_extents(record, tree)
        for record, data in self._inline:
            taken += self._map_inline(record, data)
        used[held] = False
        used[taken] = False
        nodes = [node for _, tree in self._trees for node in tree.nodes]
        records = [record for record, _ in (*self._trees, *self._inline)]
        self._trees, self._inline = [], []
        yield from sorted(records, key=lambda record: record.ino)
        nodes = [node for node in nodes if not used[node]]
        context.freed.update(nodes)
        context.held[np.array(nodes, np.int64)] = True

    def _held(self) -> Numbers:
        used = self._context.census.used
        pieces = [np.array(tree.nodes, np.int64) for _, tree in self._trees]
        pieces += [np.arange(x.block, x.block + x.length) for _, tree in self._trees for x in tree.extents]
        blocks = np.unique(np.concatenate([np.zeros(0, np.int64), *pieces]))
        free: Numbers = blocks[~used[blocks]]
        return free

    def _allocate(self, count: int, goal: int) -> list[int]:
        runs = self._context.allocate(count, goal) if count else []
        return [block for first, length in runs for block in range(first, first + length)]

    def _map_extents(self, record: Record, tree: ExtentTree) -> list[int]:
        """Write the pointer blocks for extents. Return their numbers."""
        context = self._context
        written = [(x.logical, x.block, x.length) for x in tree.extents if x.written]
        indirect = IndirectBlocks(written, context.block_size // 4)
        numbers = self._allocate(indirect.count, written[0][1] if written else 0)
        record.words = indirect.pack_inode(np.array(numbers, np.int64)).tolist()
        at = 0
        for rows in indirect.pack(np.array(numbers, np.int64)):
            for row in rows:
                context.storage.write_block(numbers[at], row.tobytes(), Stage.NEW)
                at += 1
        record.clear_flags(LATER)
        self._count(record, sum(count for _, _, count in written) + indirect.count)
        record.save(context)
        return numbers

    def _map_inline(self, record: Record, data: bytes) -> list[int]:
        """Write data of an inode to blocks. Return their numbers."""
        context, size = self._context, self._context.block_size
        if record.is_dir:
            blocks = self._directory(record, data)
            length = len(blocks) * size
        else:
            length = min(record.size, len(data))
            blocks = [data[at : min(at + size, length)].ljust(size, b"\0") for at in range(0, length, size)]
        numbers = self._allocate(len(blocks), 0)
        for number, block in zip(numbers, blocks, strict=True):
            context.storage.write_block(number, block, Stage.NEW)
        area = _area(record)
        others = [attribute for attribute in inode_attributes(area) if attribute[:2] != INLINE_NAME]
        packed, _ = pack_inode_area(others, len(area))
        record.raw[len(record.raw) - len(area) :] = packed.ljust(len(area), b"\0")
        record.words = (numbers + [0] * 15)[:15]
        record.size = length
        record.clear_flags(LATER)
        self._count(record, len(blocks))
        record.save(context)
        return numbers

    def _count(self, record: Record, blocks: int) -> None:
        attributed = record.get("i_file_acl") != 0
        record.core["i_blocks"] = (blocks + attributed) * (self._context.block_size // SECTOR)
        record.core["i_blocks_high"] = 0

    def _directory(self, record: Record, data: bytes) -> list[bytes]:
        """Return the blocks of a directory with the entries in its inode."""
        size, filetype = self._context.block_size, self._context.superblock.has_filetype
        parent = int.from_bytes(data[:PARENT_BYTES], "little")
        kind = int(FileType.DIRECTORY) if filetype else 0
        names: list[Name] = [(record.ino, kind, b"."), (parent, kind, b"..")]
        for part in (data[PARENT_BYTES:INLINE_BYTES], data[INLINE_BYTES:]):
            names += ((ino, number if filetype else 0, name) for ino, number, name in _entries(part))
        blocks: list[list[Name]] = [[]]
        left = size
        for name in names:
            need = max(record_size(len(name[2])), DOT_REC_LEN)
            if need > left:
                blocks.append([])
                left = size
            blocks[-1].append(name)
            left -= need
        return [pack_block(some, size)[0] for some in blocks]


def _entries(part: bytes) -> Iterator[Name]:
    """Yield the entries of one part of a directory in an inode, up to a damaged one."""
    at = 0
    while at + DIRENT.size <= len(part):
        ino, rec_len, length, file_type = DIRENT.packer.unpack_from(part, at)
        if rec_len < DIRENT.size + length or rec_len < DOT_REC_LEN or at + rec_len > len(part):
            return
        name = part[at + DIRENT.size :][:length]
        if ino and is_name(name) and name not in (b".", b".."):
            yield ino, file_type, name
        at += rec_len


def _area(record: Record) -> bytes:
    """Return the attribute area of an inode."""
    if record.extra is None:
        return b""
    size = int(record.extra["i_extra_isize"])
    at = GOOD_INODE_SIZE + size
    return bytes(record.raw[at:]) if size >= 4 and size % 4 == 0 and at < len(record.raw) else b""
