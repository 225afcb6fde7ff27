"""Lookup of a name in a directory, by its index or block by block.

Every block searched for the name is checked as a whole, as before a change of the directory. Source: Linux
``fs/ext4/namei.c`` (ext4_dx_find_entry, __ext4_find_entry).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..constants import FLAGS_UNSIGNED_HASH
from ..device.base import BlockDevice
from ..format.block_map import Extents
from ..format.dirent import DOTS, DirentFields, directory_blocks, read_dirents
from ..format.dirhash import DirHash
from ..format.htree import DxNode, OddIndexError, check_leaf, leaves_of, probe, read_node, read_root_info
from ..format.superblock import Superblock

__all__ = ["find_by_index", "find_by_scan"]


def find_by_index(
    device: BlockDevice, superblock: Superblock, extents: Extents, count: int, name: bytes, *, where: str
) -> int | None:
    """Return the inode of ``name`` in a directory of ``count`` blocks, mapped by ``extents``; None if there is none.

    Raise OddIndexError if the index is unreliable (use ``find_by_scan`` then), CorruptError for a damaged leaf.
    """
    size = superblock.block_size

    def read(logical: int) -> bytes:
        block = extents.find(logical)
        if block is None:
            raise OddIndexError(f"a hole at block {logical}")
        return device.read(block * size, size)

    def node_at(logical: int) -> DxNode:
        return read_node(root if logical == 0 else read(logical), logical, blocks=count)

    def records_of(logical: int, block: bytes) -> list[DirentFields]:
        found: list[DirentFields] = []
        read_dirents(block, logical, found, inodes=superblock.inodes_count, where=where)
        return found

    root = read(0)
    if name in DOTS:
        return _ino_of(name, root, records_of(0, root))
    version, levels = read_root_info(root)
    hashed = DirHash(version, superblock.hash_seed, signed=not superblock.flags & FLAGS_UNSIGNED_HASH)
    number = hashed(name)
    frames = probe(number, levels, node_at)
    for leaf in leaves_of(frames, number, node_at, blocks=count):
        block = read(leaf)
        records = records_of(leaf, block)
        ino = _ino_of(name, block, records)
        if ino is not None:
            return ino
        if leaf == frames[-1].child:
            check_leaf(block, [hashed(record[4]) for record in records], frames)
    return None


def find_by_scan(
    device: BlockDevice,
    superblock: Superblock,
    extents: Extents,
    count: int,
    name: bytes,
    *,
    where: str,
    judged: int = 0,
) -> tuple[int | None, int]:
    """Return the inode of ``name``, as ``find_by_index`` does, and the number of leading blocks that were checked.

    ``judged``: the number checked before. Raise CorruptError for a damaged block before the name.
    """
    for logical, block in directory_blocks(device, extents, count, block_size=superblock.block_size, where=where):
        if logical < judged and name not in block:  # far cheaper than decoding it
            continue
        records: list[DirentFields] = []
        read_dirents(block, logical, records, inodes=superblock.inodes_count, where=where)
        ino = _ino_of(name, block, records)
        if ino is not None:
            return ino, max(judged, logical + 1)
    return None, count


def _ino_of(name: bytes, block: bytes, records: Iterable[DirentFields]) -> int | None:
    """Return the inode of ``name`` in a block with these records, None if there is none."""
    if name in block:
        for _, ino, _, _, other in records:
            if other == name:
                return ino
    return None
