"""Names of one directory under repair: found, removed and added one at a time.

Blocks with damaged records, whose repair was refused, are searched up to the damage and never filled. A name that is added
drops the index of the directory, which pass 3A makes again: a leaf split in place would have its names at no place if the
repairs were cut off in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..constants import FileType, InodeFlag
from ..edit.block_map_edit import BlockMapEditor
from ..errors import CorruptError
from ..format.dirent import BYTES_LIMIT, length_fault
from ..format.dirent_block import delete_record, insert_record, pack_block, set_inode
from ..format.inode import file_type_of, patch_inode
from ..format.schema import DIRENT, INODE_CORE
from .context import Context

__all__ = ["DirectoryNames", "Found", "change_inode"]

HEAD = DIRENT.size
RUN_BLOCKS = 256
"""Most blocks in one read."""
_unpack = DIRENT.packer.unpack_from


class Found(NamedTuple):
    """Record of a name: its block of the filesystem, its byte there and that of the record before it (-1: none)."""

    block: int
    offset: int
    before: int
    ino: int
    name: bytes


def change_inode(context: Context, ino: int, **fields: object) -> None:
    """Change fields of INODE_CORE in the record of an inode."""
    context.write_inode(ino, patch_inode(context.read_inode(ino), **fields))


class DirectoryNames:
    """Names of the directory ``ino``. Raises CorruptError, on the way too, where its map is damaged."""

    def __init__(self, context: Context, ino: int) -> None:
        self.ino = ino
        self._context = context
        self._where = f"directory inode {ino}"
        row = INODE_CORE.view(context.read_inode(ino))[0]
        size = context.block_size
        self._count = min(int(row["i_size"]), BYTES_LIMIT) // size
        self._flags = int(row["i_flags"])
        self._editor = BlockMapEditor(
            context,
            row["i_block"].tolist(),
            first=context.superblock.first_data_block,
            end=context.superblock.blocks_count,
            where=self._where,
            sectors=int(row["i_blocks"]),
            metadata=True,
        )
        self._runs = [(block, count) for _, block, count in self._editor.runs(0, self._count)]
        self._first = self._editor.block(0)
        self._blocks: list[int] = [block + at for block, count in self._runs for at in range(count)]
        self._at = 0
        """Index of the block that the next name is tried in."""
        self._gap = -1
        """Byte of that block from which on there may be room; -1: the block was not looked at."""

    # Search

    def find(self, name: bytes) -> Found | None:
        """Return the first record with a name."""
        for block, data in self._contents():
            if name in data:
                for found in _records(block, data):
                    if found.name == name:
                        return found
        return None

    def find_inode(self, ino: int) -> Found | None:
        """Return the first record, but for ``.`` and ``..``, that leads to an inode."""
        raw = ino.to_bytes(4, "little")
        for block, data in self._contents():
            if raw in data:
                for found in _records(block, data):
                    if found.ino == ino and found.name not in (b".", b".."):
                        return found
        return None

    def names(self) -> Iterator[bytes]:
        """Yield all names."""
        for block, data in self._contents():
            for found in _records(block, data):
                yield found.name

    def _contents(self) -> Iterator[tuple[int, bytes]]:
        context, size = self._context, self._context.block_size
        for first, count in self._runs:
            for start in range(0, count, RUN_BLOCKS):
                some = min(RUN_BLOCKS, count - start)
                data = context.storage.read((first + start) * size, some * size)
                for at in range(some):
                    yield first + start + at, data[at * size : (at + 1) * size]

    # Change

    def remove(self, found: Found) -> None:
        """Remove a name. Other records that were found in its block are stale then."""
        data = self._context.read(found.block)
        self._context.write(found.block, delete_record(data, found.offset, found.before))
        self._at, self._gap = 0, -1

    def set_parent(self, ino: int) -> bool:
        """Set ``..``. Return False if the directory does not begin with it."""
        if self._first is None:
            return False
        data = self._context.read(self._first)
        for found in _records(self._first, data):
            if found.name == b"..":
                kind = FileType.DIRECTORY if self._context.superblock.has_filetype else 0
                self._context.write(self._first, set_inode(data, found.offset, ino, kind))
                return True
        return False

    def add(self, name: bytes, ino: int) -> bool:
        """Add a name, which must be new. Return False if there is no room; then ``add_block`` has some."""
        kind = self._file_type(ino)
        while self._at < len(self._blocks):
            block = self._blocks[self._at]
            data = self._context.read(block)
            if self._gap < 0:
                self._gap = _fill_from(data, first=block == self._first)
            changed = insert_record(data, self._gap, name, ino, kind)
            if changed is not None:
                self._context.write(block, changed[0])
                self._gap = changed[1]
                self._drop_index()
                return True
            self._at, self._gap = self._at + 1, -1
        return False

    def add_block(self, name: bytes, ino: int) -> None:
        """Add a block with a name. Raises NoSpaceError with nothing changed."""
        size = self._context.block_size
        if (self._count + 1) * size > BYTES_LIMIT:
            raise CorruptError(self._where, "i_size", self._count * size, f"< {BYTES_LIMIT}")
        content, gap = pack_block([(ino, self._file_type(ino), name)], size)
        runs = self._editor.append(self._count, [content], 0)
        self._count += 1
        self._runs += [(block, count) for _, block, count in runs]
        self._at, self._gap = len(self._blocks), gap
        self._blocks.append(runs[0][1])
        change_inode(
            self._context,
            self.ino,
            i_size=self._count * size,
            i_blocks=self._editor.sectors,
            i_block=np.array(self._editor.i_block, "<u4"),
        )
        self._drop_index()

    def _file_type(self, ino: int) -> int:
        if not self._context.superblock.has_filetype:
            return 0
        return int(file_type_of(int(self._context.census.mode[ino])))

    def _drop_index(self) -> None:
        if self._flags & InodeFlag.INDEX:
            self._flags &= ~int(InodeFlag.INDEX)
            change_inode(self._context, self.ino, i_flags=self._flags)
            self._context.indexed.discard(self.ino)
            self._context.to_rebuild.add(self.ino)


def _records(block: int, data: bytes) -> Iterator[Found]:
    """Yield the used records of a block, up to the first that is damaged."""
    offset, before = 0, -1
    while offset < len(data) and not length_fault(data, offset):
        ino, rec_len, name_len, _ = _unpack(data, offset)
        if ino:
            yield Found(block, offset, before, ino, data[offset + HEAD : offset + HEAD + name_len])
        before = offset
        offset += rec_len


def _fill_from(data: bytes, *, first: bool) -> int:
    """Return the byte from which on records may be added; the block's size if its records do not tile it.

    ``first``: it is block 0, where ``..`` has to stay behind ``.``.
    """
    offset = second = 0
    while offset < len(data):
        if length_fault(data, offset):
            return len(data)
        second = second or offset
        offset += _unpack(data, offset)[1]
    return second if first else 0
