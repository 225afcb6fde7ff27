"""Content of one directory as it is with all repairs: its map, its entries."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..constants import ROOT_INO
from ..edit.block_map_edit import BlockMapEditor
from ..errors import CorruptError
from ..format.dirent import DOTS, DirentFields, directory_block_count, read_dirents
from ..format.dirent_block import Record
from ..format.schema import INODE_CORE
from .context import Context

__all__ = ["DirectoryContent", "directory_map", "has_name_twice", "read_directory"]


@dataclass(slots=True)
class DirectoryContent:
    """Entries of a directory of ``blocks`` blocks in disk order, without ``.`` and ``..``; ``parent``: what ``..`` leads to."""

    raw: bytes
    blocks: int
    parent: int = ROOT_INO
    records: list[Record] = field(default_factory=list)

    @property
    def flags(self) -> int:
        return int(INODE_CORE.view(self.raw)[0]["i_flags"])


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
    content = DirectoryContent(raw, count)
    expected = 0
    for logical, block, length in directory_map(context, ino, raw).runs(0, count):
        if logical != expected:
            break
        data = context.storage.read(block * size, length * size)
        for number in range(length):
            found: list[DirentFields] = []
            read_dirents(data[number * size : (number + 1) * size], logical + number, found, inodes=inodes, where=where)
            if logical + number == 0:
                content.parent = found[1][1]
                del found[: len(DOTS)]
            content.records += [(child, file_type, name) for _, child, _, file_type, name in found]
        expected += length
    if expected != count:
        raise CorruptError(where, "directory", f"a hole at block {expected}", "a block")
    return content


def has_name_twice(context: Context, ino: int) -> bool:
    """Return whether a directory has two entries of one name. False if faults were left in it."""
    try:
        records = read_directory(context, ino).records
    except CorruptError:
        return False
    return len({name for _, _, name in records}) < len(records)
