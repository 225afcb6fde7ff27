"""The books of a whole image, judged independently of what keeps them: every block and inode is counted once."""

from __future__ import annotations

from collections import Counter

import numpy as np

import ext3
from ext3.constants import ROOT_INO
from ext3.format.block_map import MapReader, PointerBounds, map_limit
from ext3.format.inode import Inode, fast_symlink

from .blocks import MemoryBlocks

__all__ = ["check_counts"]


class _Reader(MemoryBlocks):
    """Blocks of an image, to look at."""

    def __init__(self, fs: ext3.Filesystem) -> None:
        superblock = fs.superblock
        super().__init__(superblock.blocks_count - 1, block_size=superblock.block_size, first=superblock.first_data_block)
        self.end = superblock.blocks_count
        self.fs = fs

    def read(self, block: int) -> bytes:
        return self.fs.device.read(block * self.block_size, self.block_size)


def check_counts(fs: ext3.Filesystem) -> None:
    """i_blocks, link counts, users of attribute blocks, bitmaps and free counts agree with what the root leads to."""
    superblock = fs.superblock
    reader = _Reader(fs)
    names: dict[int, int] = {ROOT_INO: 1}
    for _, entry in fs.walk("/"):
        names[entry.ino] = names.get(entry.ino, 0) + 1
    blocks: set[int] = set()
    sharing: Counter[int] = Counter()
    for ino, count in names.items():
        inode = fs.inode(ino)
        if not inode.stat.is_dir:
            assert inode.stat.links == count, ino
        taken = _blocks_of(reader, inode)
        assert len(taken) * (superblock.block_size // 512) == inode.stat.blocks, ino
        own = [block for block in taken if block != inode.stat.file_acl]
        sharing[inode.stat.file_acl] += 1
        assert not blocks.intersection(own)
        blocks.update(taken)
    del sharing[0]
    for block, count in sharing.items():
        assert int.from_bytes(reader.read(block)[4:8], "little") == count, f"h_refcount of block {block}"
    used_inodes = set()
    for group in range(superblock.groups_count):
        bits = fs.inode_bitmap(group)[: superblock.inodes_per_group]
        assert int((~bits).sum()) == int(fs.groups["bg_free_inodes_count"][group])
        used_inodes.update((np.flatnonzero(bits) + 1 + group * superblock.inodes_per_group).tolist())
        first = superblock.first_data_block + group * superblock.blocks_per_group
        count = min(superblock.blocks_per_group, superblock.blocks_count - first)
        used = fs.block_bitmap(group)[:count]
        assert int((~used).sum()) == int(fs.groups["bg_free_blocks_count"][group])
        for block in blocks:
            assert not first <= block < first + count or used[block - first]
    assert {ino for ino in used_inodes if ino >= superblock.first_ino} == set(names) - {ROOT_INO}
    assert superblock.free_blocks == int(fs.groups["bg_free_blocks_count"].sum())
    assert superblock.free_inodes == int(fs.groups["bg_free_inodes_count"].sum())
    assert not superblock.last_orphan


def _blocks_of(reader: _Reader, inode: Inode) -> list[int]:
    taken = [inode.stat.file_acl] if inode.stat.file_acl else []
    target = inode.stat.is_symlink and fast_symlink(inode, reader.block_size) is not None
    if target or not (inode.stat.is_dir or inode.stat.is_file or inode.stat.is_symlink):
        return taken
    bounds = PointerBounds(reader.first, reader.end, "check")
    tables = MapReader(reader.read, reader.block_size // 4, bounds)
    for leaf in tables.leaves(inode.i_block, 0, map_limit(reader.block_size)):
        taken += [pointer for pointer in leaf.pointers if pointer]
    return [*taken, *tables.loaded]
