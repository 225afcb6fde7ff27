"""A hand-made ext2 of one group, small enough to say every byte: for tests of the reader without any tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ext3.constants import FileType
from ext3.device.base import MemoryDevice
from ext3.format.schema import DIRENT, GROUP_DESC, INODE_CORE, SUPERBLOCK
from ext3.read.filesystem import Filesystem

BLOCK = 1024
BLOCKS = 256
INODES = 64
TABLE = 5
FIRST_FREE = TABLE + INODES * 256 // BLOCK

Entries = Sequence[tuple[bytes, int, int]]


def dirents(entries: Entries, size: int = BLOCK) -> bytes:
    """A directory block of (name, inode, file type); the last record takes what is left."""
    block = bytearray()
    for position, (name, ino, file_type) in enumerate(entries):
        length = 8 + -(-len(name) // 4) * 4
        if position == len(entries) - 1:
            length = size - len(block)
        block += (DIRENT.packer.pack(ino, length, len(name), file_type) + name).ljust(length, b"\0")
    return bytes(block.ljust(size, b"\0"))


class TinyImage:
    """The image under ``data``; blocks are handed out one after the other."""

    def __init__(self) -> None:
        self.data = bytearray(BLOCK * BLOCKS)
        self.next_block = FIRST_FREE
        self.superblock(
            s_inodes_count=INODES,
            s_blocks_count=BLOCKS,
            s_first_data_block=1,
            s_blocks_per_group=8192,
            s_inodes_per_group=INODES,
            s_magic=0xEF53,
            s_state=1,
            s_rev_level=1,
            s_first_ino=11,
            s_inode_size=256,
            s_feature_incompat=2,
        )
        group = GROUP_DESC.view(self.data, 1, 2 * BLOCK)
        group["bg_block_bitmap"], group["bg_inode_bitmap"], group["bg_inode_table"] = 3, 4, TABLE
        self.root: list[tuple[bytes, int, int]] = []
        self.directory(2, self.root)

    def superblock(self, **fields: Any) -> None:
        row = SUPERBLOCK.view(self.data, 1, 1024)
        for name, value in fields.items():
            row[name] = value

    def inode(self, ino: int, mode: int, blocks: Sequence[int] = (), **fields: Any) -> Any:
        """Set an inode; its row, to change more."""
        row = INODE_CORE.view(self.data, 1, TABLE * BLOCK + (ino - 1) * 256)
        row["i_mode"], row["i_links_count"] = mode, 1
        row["i_block"][0, : len(blocks)] = blocks
        for name, value in fields.items():
            row[name] = value
        return row

    def block(self, content: bytes) -> int:
        """The number of a new block with this content."""
        number = self.next_block
        self.next_block += 1
        self.data[number * BLOCK : number * BLOCK + len(content)] = content
        return number

    def pointers(self, *numbers: int) -> int:
        return self.block(np.array(numbers, "<u4").tobytes())

    def directory(self, ino: int, entries: Entries, parent: int = 2) -> int:
        content = dirents([(b".", ino, FileType.DIRECTORY), (b"..", parent, FileType.DIRECTORY), *entries])
        number = self.block(content)
        self.inode(ino, 0o40755, [number], i_size=BLOCK, i_blocks=2)
        return number

    def file(self, ino: int, content: bytes) -> None:
        numbers = [self.block(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)]
        self.inode(ino, 0o100644, numbers, i_size=len(content), i_blocks=2 * len(numbers))

    def symlink(self, ino: int, target: bytes) -> None:
        if len(target) < 60:
            self.inode(ino, 0o120777, np.frombuffer(target.ljust(60, b"\0"), "<u4").tolist(), i_size=len(target))
        else:
            self.inode(ino, 0o120777, [self.block(target)], i_size=len(target), i_blocks=2)

    def entry(self, name: bytes, ino: int, file_type: int) -> None:
        """A name in the root directory."""
        self.root.append((name, ino, file_type))
        content = dirents([(b".", 2, FileType.DIRECTORY), (b"..", 2, FileType.DIRECTORY), *self.root])
        self.data[FIRST_FREE * BLOCK : (FIRST_FREE + 1) * BLOCK] = content

    def open(self) -> Filesystem:
        return Filesystem(MemoryDevice(self.data))


Change = Callable[[TinyImage], None]
