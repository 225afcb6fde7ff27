"""Search for marks in an ext3 image that the kernel's overlayfs does not take as they are meant.

Marks of fuse-overlayfs and of plain users' overlays mean nothing to root's overlayfs, so that removed files would be there
again; redirects and metacopies are not followed, so that files would be missing. A walk through all names would take longer
than the rest of the start: here the inode tables and the blocks of directories are searched as bytes, and only what is found
there is decoded. It finds marks in all of the image, not only below upper/.

Sources: Linux ``Documentation/filesystems/ext4``, ``fs/overlayfs/namei.c``; of the marks ``vfs.whiteouts``.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

from ext3 import hostio

from ...vfs.whiteouts import (
    FUSE_OPAQUE_XATTR,
    METACOPY_XATTRS,
    OPAQUE_XATTRS,
    REDIRECT_XATTRS,
    WHITEOUT_PREFIX,
    WHITEOUT_XATTRS,
)
from .ext3_state import EXT_MAGIC, GROUP_DESC, LARGEST_LOG_BLOCK_SIZE, META_BG, SUPERBLOCK, SUPERBLOCK_OFFSET

__all__ = ["FoundMarks", "search_marks"]

SMALLEST_INODE = 128
LARGEST_INODE = 4096
TABLE_BYTES = 4 << 20
"""Bytes of an inode table, and of directories, that are read at once."""
GAP_BYTES = 4 << 10
"""Bytes between two blocks that are read with them."""
XATTR_MAGIC = 0xEA02_0000
XATTR_HEADER_BYTES = 32
PREFIXES = {1: b"user.", 4: b"trusted."}
"""Of names of xattrs, by the number that stands for them on disk."""
MODE_FORMAT, DIRECTORY, REGULAR, CHARACTER_DEVICE = 0o170000, 0o040000, 0o100000, 0o020000
DIRECT_BLOCKS = 12
_directory_mode = re.compile(rb"[\x40-\x4f]")
"""Upper byte of the mode of a directory."""
_mark_names = re.compile(rb"overlay(?:\.(?:opaque|redirect|metacopy|whiteout)|fs\.opaque)")
_entry = struct.Struct("<BBHIII")
_dirent = struct.Struct("<IHBB")
_words = struct.Struct("<15I")


class FoundMarks(NamedTuple):
    """Marks of a layer. ``ignored``: of fuse-overlayfs and of others' overlays, so that overlayfs shows what they remove;
    ``moved``: redirects, metacopies, and whiteouts by xattr."""

    ignored: bool = False
    moved: bool = False

    def __or__(self, other: FoundMarks) -> FoundMarks:
        """Return the marks of both."""
        return FoundMarks(ignored=self.ignored or other.ignored, moved=self.moved or other.moved)


class _Unusual(Exception):
    """Image that is not searched as bytes."""


def search_marks(fd: int, offset: int, size: int, *, names: bool = True) -> FoundMarks | None:
    """Return the marks of the filesystem in ``size`` bytes at ``offset`` of a file, whose journal is empty. Raises OSError.

    ``names``: look at names, too, not only at xattrs. None: it is too unusual to be searched here.
    """
    try:
        return _Search(fd, offset, size).run(names=names)
    except (_Unusual, struct.error):
        return None


class _Search:
    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._offset, self._size = fd, offset, size
        self._super = found = SUPERBLOCK.read(self._read(SUPERBLOCK_OFFSET, SUPERBLOCK.size))
        self._inode_size = found["s_inode_size"] if found["s_rev_level"] else SMALLEST_INODE
        is_usual = (
            found["s_magic"] == EXT_MAGIC
            and found["s_log_block_size"] <= LARGEST_LOG_BLOCK_SIZE
            and not found["s_feature_incompat"] & META_BG
            and SMALLEST_INODE <= self._inode_size <= LARGEST_INODE
            and self._inode_size & (self._inode_size - 1) == 0
            and found["s_blocks_per_group"]
            and found["s_inodes_per_group"]
            and sys.byteorder == "little"
        )
        if not is_usual:
            raise _Unusual
        self._block_size = 1024 << found["s_log_block_size"]
        self._budget = 2 * size // self._block_size + 64
        """Blocks that are read at most: a hostile image may name each many times."""
        self._ignored = False
        self._moved = False

    def run(self, *, names: bool) -> FoundMarks:
        blocks: list[int] = []
        for table in self._tables():
            self._search_inodes(table)
            self._search_xattr_blocks(table)
            if names:
                blocks += self._directory_blocks(table)
        if names and not self._ignored:
            self._search_names(blocks)
        return FoundMarks(ignored=self._ignored, moved=self._moved)

    # Reading

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise _Unusual
        raw = hostio.read_at(self._fd, self._offset + offset, size)
        if len(raw) < size:
            raise _Unusual
        return raw

    def _read_blocks(self, blocks: set[int]) -> Iterator[tuple[int, bytes]]:
        """Iterate over blocks, in order: the number of the first of some that lie together, and the bytes from there on.

        What lies in small gaps between them is read as well: that takes less than another call.
        """
        size = self._block_size
        self._spend(len(blocks))
        gap, most = max(1, GAP_BYTES // size), max(1, TABLE_BYTES // size)
        start = end = 0
        for block in (*sorted(blocks), sys.maxsize):
            if block < end + gap and block < start + most:
                end = block + 1
                continue
            if end:
                yield start, self._read(start * size, (end - start) * size)
            start, end = block, block + 1

    def _spend(self, blocks: int) -> None:
        self._budget -= blocks
        if self._budget < 0:
            raise _Unusual

    def _tables(self) -> Iterator[bytes]:
        """Iterate over the inode tables, without what lies behind the last inode in use, in pieces."""
        found, size = self._super, self._inode_size
        groups = -(-(found["s_blocks_count"] - found["s_first_data_block"]) // found["s_blocks_per_group"])
        descriptors = self._read((found["s_first_data_block"] + 1) * self._block_size, groups * GROUP_DESC.size)
        per_group = found["s_inodes_per_group"]
        if per_group > 8 * self._block_size:
            raise _Unusual
        most = TABLE_BYTES // size
        for fields in GROUP_DESC.packer.iter_unpack(descriptors):
            _, bitmap, table, _, free, *_ = fields
            if free >= per_group:
                continue
            used = int.from_bytes(self._read(bitmap * self._block_size, -(-per_group // 8)), "little")
            count = (used & ((1 << per_group) - 1)).bit_length()
            self._spend(1 + count * size // self._block_size)
            for first in range(0, count, most):
                piece = min(most, count - first)
                yield self._read(table * self._block_size + first * size, piece * size)

    # Extended attributes

    def _search_inodes(self, table: bytes) -> None:
        """Search the xattrs inside inodes. An inode that is not in use is looked at like one that is: that finds too much."""
        size = self._inode_size
        if size == SMALLEST_INODE:
            return
        for extra in set(table[SMALLEST_INODE::size]):
            start = SMALLEST_INODE + extra
            if extra % 4 or start + 8 > size or 0xEA not in table[start + 3 :: size]:
                continue
            for match in _mark_names.finditer(table):
                at = match.start() // size * size
                area = table[at : at + size]
                begin = SMALLEST_INODE + int.from_bytes(area[SMALLEST_INODE : SMALLEST_INODE + 2], "little")
                if int.from_bytes(area[begin : begin + 4], "little") == XATTR_MAGIC:
                    self._judge(_names(area, begin + 4), _mode(area))
            return

    def _search_xattr_blocks(self, table: bytes) -> None:
        """Search the blocks of xattrs of inodes."""
        words = self._inode_size // 4
        named = memoryview(table).cast("I")[26::words].tolist()  # i_file_acl
        size = self._block_size
        blocks = {block for block in set(named) if block > 0 and (block + 1) * size <= self._size}
        marked: dict[int, list[bytes]] = {}
        for first, raw in self._read_blocks(blocks):
            for match in _mark_names.finditer(raw):
                index = match.start() // size
                if first + index in blocks:
                    marked[first + index] = _names(raw[index * size : (index + 1) * size], XATTR_HEADER_BYTES)
        if marked:
            for number, block in enumerate(named):
                if block in marked:
                    self._judge(marked[block], _mode(table[number * self._inode_size :][:SMALLEST_INODE]))

    def _judge(self, names: list[bytes], mode: int) -> None:
        """Note what the xattrs of an inode mean. Those of a deleted one, whose links are gone, mean nothing."""
        if mode & MODE_FORMAT == DIRECTORY:
            self._moved |= any(name in names for name in REDIRECT_XATTRS)
            of_root, of_user = OPAQUE_XATTRS
            self._ignored |= FUSE_OPAQUE_XATTR in names or (of_user in names and of_root not in names)
        elif mode & MODE_FORMAT == REGULAR:
            self._moved |= any(name in names for name in (*METACOPY_XATTRS, *WHITEOUT_XATTRS))

    # Names

    def _directory_blocks(self, table: bytes) -> list[int]:
        """Return the blocks of the directories in a table."""
        size, block_size = self._inode_size, self._block_size
        blocks: list[int] = []
        unpack = _words.unpack_from
        for match in _directory_mode.finditer(table[1::size]):
            at = match.start() * size
            if not table[at + 26] and not table[at + 27]:  # i_links_count
                continue
            words = unpack(table, at + 40)
            count = -(-int.from_bytes(table[at + 4 : at + 8], "little") // block_size)
            blocks += words[: min(count, DIRECT_BLOCKS)]
            if count > DIRECT_BLOCKS:
                for depth, block in enumerate(words[DIRECT_BLOCKS:], 1):
                    blocks += self._pointed_at(block, depth)
        return blocks

    def _pointed_at(self, block: int, depth: int) -> list[int]:
        if not block:
            return []
        self._spend(1)
        found = memoryview(self._read(block * self._block_size, self._block_size)).cast("I").tolist()
        if depth == 1:
            return found
        return [one for pointer in found for one in self._pointed_at(pointer, depth - 1)]

    def _search_names(self, blocks: list[int]) -> None:
        size = self._block_size
        wanted = {block for block in set(blocks) if block > 0 and (block + 1) * size <= self._size}
        for first, raw in self._read_blocks(wanted):
            at = raw.find(WHITEOUT_PREFIX)
            while at >= 0:
                start = at // size * size
                marked = _marked_inodes(raw, start, start + size) if first + start // size in wanted else ()
                if any(self._is_mark(ino) for ino in marked):
                    self._ignored = True
                    return
                at = raw.find(WHITEOUT_PREFIX, start + size)

    def _is_mark(self, ino: int) -> bool:
        """Return whether an inode is a device 0, 0 or an empty file: others with such a name are no marks."""
        per_group = self._super["s_inodes_per_group"]
        if not 0 < ino <= self._super["s_inodes_count"]:
            return False
        group, index = divmod(ino - 1, per_group)
        at = (self._super["s_first_data_block"] + 1) * self._block_size + group * GROUP_DESC.size
        table = GROUP_DESC.read(self._read(at, GROUP_DESC.size))["bg_inode_table"]
        raw = self._read(table * self._block_size + index * self._inode_size, SMALLEST_INODE)
        kind = _mode(raw) & MODE_FORMAT
        if kind == REGULAR:
            return not any(raw[4:8])
        return kind == CHARACTER_DEVICE and not any(raw[40:48])


def _mode(inode: bytes) -> int:
    """Return the mode of an inode, 0 if no name leads to it."""
    return int.from_bytes(inode[:2], "little") if any(inode[26:28]) else 0


def _names(raw: bytes, at: int) -> list[bytes]:
    """Return the names of the xattrs whose entries begin at ``at``."""
    found = []
    while at + _entry.size <= len(raw):
        length, prefix, *_ = _entry.unpack_from(raw, at)
        if not length and not prefix:
            break
        found.append(PREFIXES.get(prefix, b"") + raw[at + _entry.size : at + _entry.size + length])
        at += (_entry.size + length + 3) // 4 * 4
    return found


def _marked_inodes(raw: bytes, at: int, end: int) -> Iterator[int]:
    """Iterate over the inodes of the names in a directory block that begin as marks of fuse-overlayfs do."""
    while at + _dirent.size <= end:
        ino, length, name_length, _ = _dirent.unpack_from(raw, at)
        if length < _dirent.size or length % 4:
            return  # a damaged block
        if ino and raw.startswith(WHITEOUT_PREFIX, at + _dirent.size) and name_length >= len(WHITEOUT_PREFIX):
            yield ino
        at += length
