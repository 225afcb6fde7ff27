"""Blocks in memory, for editors of maps, directories and attributes: what an edit must not do with them is noticed.

That is to free a block twice, to write one that is not taken, to read outside the filesystem.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ext3.constants import SECTOR, FileType, InodeFlag
from ext3.edit.block_map_edit import BlockMapEditor
from ext3.edit.blocks import Run
from ext3.edit.directory import Directory, DirectoryRules
from ext3.edit.xattr_edit import AttributeEditor, AttributeSharing
from ext3.errors import NoSpaceError
from ext3.format import xattr
from ext3.format.block_map import MapReader
from ext3.format.schema import GROUP_DESC, INODE_CORE, INODE_EXTRA, SUPERBLOCK

__all__ = ["ImageBlocks", "MemoryBlocks", "count_blocks", "read_attributes"]


class MemoryBlocks:
    """A filesystem of blocks and nothing else. ``used`` are the blocks taken, ``gone`` those given back, with how."""

    def __init__(self, count: int, *, block_size: int = 1024, first: int = 1) -> None:
        self._block_size = block_size
        self.first = first
        self.end = first + count
        self.content: dict[int, bytes] = {}
        self.used: set[int] = set()
        self.gone: list[tuple[int, bool]] = []
        self.longest = count
        self.cursor = first

    def copy(self) -> MemoryBlocks:
        """Blocks with the same content, of which the same are taken."""
        other = MemoryBlocks(self.end - self.first, block_size=self._block_size, first=self.first)
        other.content, other.used, other.cursor = dict(self.content), set(self.used), self.cursor
        return other

    @property
    def block_size(self) -> int:
        return self._block_size

    def read(self, block: int) -> bytes:
        assert self.first <= block < self.end
        return self.content.get(block) or bytes(self._block_size)

    def write(self, block: int, data: bytes) -> None:
        assert isinstance(data, bytes)
        assert len(data) == self._block_size
        assert block in self.used, f"write to block {block}, which is free"
        self.content[block] = data

    def allocate(self, count: int, goal: int) -> list[Run]:
        assert count > 0
        if count > self.end - self.first - len(self.used):
            raise NoSpaceError("full", needed_bytes=count * self._block_size, available_bytes=0)
        runs: list[Run] = []
        block = goal if self.first <= goal < self.end else self.cursor
        left = count
        while left:
            if block >= self.end:
                block = self.first
            start = block
            while block < self.end and left and block not in self.used and block - start < self.longest:
                self.used.add(block)
                block += 1
                left -= 1
            if block > start:
                runs.append((start, block - start))
                if self.longest < count:
                    block += 1
            else:
                block += 1
        self.cursor = block
        return runs

    def free(self, runs: Iterable[Run], *, metadata: bool) -> None:
        for first, count in runs:
            for block in range(first, first + count):
                self.used.remove(block)
                self.gone.append((block, metadata))


class ImageBlocks(MemoryBlocks):
    """Blocks of a whole ext3 image in which structures are edited, with no journal and no order of writes.

    ``save`` makes the bitmaps and counts agree with the blocks taken, and writes the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = bytearray(path.read_bytes())
        self.super = SUPERBLOCK.view(self.data, offset=1024)[0]
        first = int(self.super["s_first_data_block"])
        block_size = 1024 << int(self.super["s_log_block_size"])
        super().__init__(int(self.super["s_blocks_count"]) - first, block_size=block_size, first=first)
        self.per_group = int(self.super["s_blocks_per_group"])
        count = -(-(self.end - first) // self.per_group)
        self.groups = GROUP_DESC.view(self.data, count, (first + 1) * block_size)
        for group, bitmap in enumerate(self.groups["bg_block_bitmap"]):
            bits = np.unpackbits(np.frombuffer(self.read(int(bitmap)), np.uint8), bitorder="little")[: self.per_group]
            start = first + group * self.per_group
            self.used.update((start + np.flatnonzero(bits[: self.end - start])).tolist())
        self.sharing = AttributeSharing()

    def read(self, block: int) -> bytes:
        assert self.first <= block < self.end
        return bytes(self.data[block * self._block_size : (block + 1) * self._block_size])

    def write(self, block: int, data: bytes) -> None:
        assert len(data) == self._block_size
        assert block in self.used, f"write to block {block}, which is free"
        self.data[block * self._block_size : (block + 1) * self._block_size] = data

    def inode(self, ino: int) -> np.void:
        """The inode's fields, to be changed in place."""
        row: np.void = INODE_CORE.view(self.data, 1, self._inode_at(ino))[0]
        return row

    def _inode_at(self, ino: int) -> int:
        group, slot = divmod(ino - 1, int(self.super["s_inodes_per_group"]))
        return int(self.groups["bg_inode_table"][group]) * self._block_size + slot * int(self.super["s_inode_size"])

    def rules(self) -> DirectoryRules:
        seed = tuple(int(word) for word in self.super["s_hash_seed"])
        return DirectoryRules(
            (seed[0], seed[1], seed[2], seed[3]),
            int(self.super["s_inodes_count"]),
            int(self.super["s_def_hash_version"]),
            signed=not self.super["s_flags"] & 2,
            dir_index=bool(self.super["s_feature_compat"] & 0x20),
        )

    def mapping(self, ino: int, *, metadata: bool = False) -> BlockMapEditor:
        row = self.inode(ino)
        words = [int(word) for word in row["i_block"]]
        sectors = int(row["i_blocks"])
        return BlockMapEditor(
            self, words, first=self.first, end=self.end, where=f"inode {ino}", sectors=sectors, metadata=metadata
        )

    def keep_mapping(self, ino: int, mapping: BlockMapEditor) -> None:
        row = self.inode(ino)
        row["i_block"] = mapping.i_block
        row["i_blocks"] = mapping.sectors

    def directory(self, ino: int) -> Directory:
        row = self.inode(ino)
        mapping = self.mapping(ino, metadata=True)
        indexed = bool(row["i_flags"] & InodeFlag.INDEX)
        return Directory(self, mapping, self.rules(), ino=ino, size=int(row["i_size"]), indexed=indexed)

    def keep_directory(self, ino: int, directory: Directory) -> None:
        self.keep_mapping(ino, directory.mapping)
        row = self.inode(ino)
        row["i_size"] = directory.size
        flags = int(row["i_flags"]) & ~int(InodeFlag.INDEX)
        row["i_flags"] = flags | (InodeFlag.INDEX if directory.indexed else 0)

    def link(self, directory: Directory, name: bytes, ino: int) -> None:
        directory.insert(name, ino, FileType.REGULAR)
        self.inode(ino)["i_links_count"] += 1

    def unlink(self, directory: Directory, name: bytes) -> None:
        self.inode(directory.remove(name).ino)["i_links_count"] -= 1

    def attributes(self, ino: int) -> AttributeEditor:
        low, high = self._area(ino)
        return AttributeEditor(
            self,
            bytes(self.data[low:high]),
            int(self.inode(ino)["i_file_acl"]),
            first=self.first,
            end=self.end,
            where=f"inode {ino}",
            sharing=self.sharing,
        )

    def keep_attributes(self, ino: int, editor: AttributeEditor) -> None:
        low, high = self._area(ino)
        self.data[low:high] = editor.area
        row = self.inode(ino)
        change = bool(editor.file_acl) - bool(row["i_file_acl"])
        row["i_file_acl"] = editor.file_acl
        row["i_blocks"] = int(row["i_blocks"]) + change * (self._block_size // SECTOR)

    def _area(self, ino: int) -> tuple[int, int]:
        at, size = self._inode_at(ino), int(self.super["s_inode_size"])
        if size == INODE_CORE.size:
            return at + size, at + size
        extra = int(INODE_EXTRA.view(self.data, 1, at + INODE_CORE.size)[0]["i_extra_isize"])
        return at + INODE_CORE.size + extra, at + size

    def save(self) -> None:
        """Bitmaps and counts as the blocks taken say, then the file."""
        taken = np.zeros(self.end, np.uint8)
        taken[list(self.used)] = 1
        for group, row in enumerate(self.groups):
            start = self.first + group * self.per_group
            used = taken[start : start + self.per_group]
            bits = np.ones(self._block_size * 8, np.uint8)
            bits[: len(used)] = used
            at = int(row["bg_block_bitmap"]) * self._block_size
            self.data[at : at + self._block_size] = np.packbits(bits, bitorder="little").tobytes()
            row["bg_free_blocks_count"] = int((used == 0).sum())
        self.super["s_free_blocks_count"] = int((taken[self.first :] == 0).sum())
        self.path.write_bytes(self.data)


def count_blocks(mapping: BlockMapEditor) -> tuple[int, int]:
    """Data blocks and pointer blocks of a map, as they are read; Ext3Error if it contradicts the format."""
    reader = MapReader(mapping._blocks.read, mapping._blocks.block_size // 4, mapping._bounds)
    limit = mapping.limit
    leaves = reader.leaves(mapping.i_block, 0, limit)
    data = sum(count for leaf in leaves for _, _, count in leaf.runs(reader.bounds, 0, limit))
    return data, len(reader.loaded)


def read_attributes(editor: AttributeEditor) -> dict[bytes, bytes]:
    """The attributes of an inode that is edited, as they are read."""
    outside = xattr.parse_block(editor._blocks.read(editor.file_acl)) if editor.file_acl else {}
    return {**outside, **xattr.parse_inode_area(editor.area)}
