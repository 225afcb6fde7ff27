"""Content of one directory as it is with all repairs: its map, its entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..constants import ROOT_INO
from ..edit.block_map_edit import BlockMapEditor
from ..errors import CorruptError
from ..format.dirent import MIN_REC_LEN, directory_block_count
from ..format.dirent_columns import read_dirent_columns
from ..format.schema import DIRENT, INODE_CORE
from .context import Context

__all__ = ["DirectoryContent", "directory_map", "has_name_twice", "read_directory"]

READ_BYTES = 4 << 20
"""Bytes of a directory in memory at once."""


@dataclass(slots=True)
class DirectoryContent:
    """Entries of a directory in disk order without ``.`` and ``..``: columns of inode and file type, and names.

    ``raw``: the inode's record. ``blocks``: its number of blocks. ``parent``: the inode in ``..``.
    """

    raw: bytes
    blocks: int
    inodes: npt.NDArray[np.uint32]
    file_types: npt.NDArray[np.uint8]
    names: list[bytes] = field(default_factory=list)
    parent: int = ROOT_INO

    @property
    def flags(self) -> int:
        return int(INODE_CORE.view(self.raw)[0]["i_flags"])

    def changed(self, changes: Mapping[int, bytes | None]) -> DirectoryContent:
        """Return it with other names for some entries, by their place in the columns, or without them (None)."""
        names: list[bytes | None] = list(self.names)
        for at, name in changes.items():
            names[at] = name
        stays = np.array([name is not None for name in names], np.bool_)
        kept = [name for name in names if name is not None]
        return DirectoryContent(self.raw, self.blocks, self.inodes[stays], self.file_types[stays], kept, self.parent)

    @property
    def repeats_names(self) -> bool:
        """Return whether two entries have one name."""
        return len(set(self.names)) < len(self.names)


def directory_map(context: Context, ino: int, raw: bytes) -> BlockMapEditor:
    """Return the map of a directory whose inode record is ``raw``."""
    row = INODE_CORE.view(raw)[0]
    superblock = context.superblock
    return BlockMapEditor(
        context,
        row["i_block"].tolist(),
        first=superblock.first_data_block,
        end=superblock.blocks_count,
        where=f"directory inode {ino}",
        sectors=int(row["i_blocks"]),
        metadata=True,
    )


def read_directory(context: Context, ino: int) -> DirectoryContent:
    """Return the entries of a directory. Raise CorruptError if faults were left in it, DeviceError."""
    raw = context.read_inode(ino)
    where = f"directory inode {ino}"
    size, inodes = context.block_size, context.superblock.inodes_count
    count = directory_block_count(int(INODE_CORE.view(raw)[0]["i_size"]), size, where)
    content = DirectoryContent(raw, count, np.zeros(0, np.uint32), np.zeros(0, np.uint8))
    numbers, file_types = [content.inodes], [content.file_types]
    expected = 0
    for logical, block, length in directory_map(context, ino, raw).runs(0, count):
        if logical != expected:
            break
        expected += length
        step = READ_BYTES // size
        for start in range(0, length, step):
            some = min(step, length - start)
            data = context.storage.read((block + start) * size, some * size) + bytes(MIN_REC_LEN)
            columns = read_dirent_columns(data, np.arange(some) + logical + start == 0, block_size=size, inodes=inodes)
            if len(columns.damaged):
                raise CorruptError(
                    where, "directory", f"damage in block {logical + start + int(columns.damaged.min())}", "none"
                )
            if logical + start == 0:
                _, dot_length, _, _ = DIRENT.packer.unpack_from(data, 0)
                content.parent = int(DIRENT.packer.unpack_from(data, dot_length)[0])
            numbers.append(columns.inodes)
            file_types.append(columns.file_types)
            content.names += columns.names
    if expected != count:
        raise CorruptError(where, "directory", f"a hole at block {expected}", "a block")
    content.inodes, content.file_types = np.concatenate(numbers), np.concatenate(file_types)
    return content


def has_name_twice(context: Context, ino: int) -> bool:
    """Return whether a directory has two entries of one name. False if faults were left in it."""
    try:
        return read_directory(context, ino).repeats_names
    except CorruptError:
        return False
