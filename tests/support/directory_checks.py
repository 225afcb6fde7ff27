"""Directories to be edited, and their structure judged independently of the code that edits them."""

from __future__ import annotations

import struct

from ext3.edit.block_map_edit import BlockMapEditor
from ext3.edit.directory import Directory, DirectoryRules
from ext3.format.dirent_block import new_directory_block
from ext3.format.dirhash import DirHash

from .blocks import MemoryBlocks, count_blocks
from .directory_blocks import parse_block

__all__ = ["check_directory", "make_directory", "reopened"]

SEED = (1, 2, 3, 4)
INODES = 1_000_000


def make_directory(
    block_size: int, *, blocks: MemoryBlocks | None = None, count: int = 2000, dir_index: bool = True, filetype: bool = True
) -> Directory:
    """A new directory, inode 12 in inode 2."""
    blocks = blocks or MemoryBlocks(count, block_size=block_size)
    mapping = BlockMapEditor(blocks, [0] * 15, first=blocks.first, end=blocks.end, where="inode 12", metadata=True)
    mapping.append(0, [new_directory_block(12, 2, block_size=block_size, filetype=filetype)], blocks.first)
    rules = DirectoryRules(SEED, INODES, dir_index=dir_index, filetype=filetype)
    return Directory(blocks, mapping, rules, ino=12, size=block_size, indexed=False)


def parts_of(directory: Directory) -> tuple[MemoryBlocks, DirectoryRules]:
    """What a directory was made with."""
    blocks = directory._blocks
    assert isinstance(blocks, MemoryBlocks)
    return blocks, directory._rules


def reopened(directory: Directory, *, blocks: MemoryBlocks | None = None) -> Directory:
    """The same directory, with nothing remembered; in other ``blocks`` if they are given."""
    own, rules = parts_of(directory)
    blocks = blocks or own
    old = directory.mapping
    mapping = BlockMapEditor(
        blocks, old.i_block, first=blocks.first, end=blocks.end, where="inode 12", sectors=old.sectors, metadata=True
    )
    return Directory(blocks, mapping, rules, ino=12, size=directory.size, indexed=directory.indexed)


def check_directory(directory: Directory, *, hashed: DirHash | None = None) -> int:
    """All blocks tile, the index leads to each leaf once, hashes are in the range of their leaf; its levels of nodes."""
    blocks, rules = parts_of(directory)
    size = blocks.block_size
    count = directory.size // size
    data = []
    for logical in range(count):
        physical = directory.mapping.block(logical)
        assert physical is not None
        data.append(blocks.read(physical))
    names = [[record.name for record in parse_block(block, logical, inodes=INODES)] for logical, block in enumerate(data)]
    everything = [name for part in names for name in part]
    assert len(everything) == len(set(everything))
    assert sum(count_blocks(directory.mapping)) * (size // 512) == directory.mapping.sectors
    if not directory.indexed:
        return 0
    hashed = hashed or DirHash(1, rules.seed, signed=rules.signed)
    assert names[0] == [b".", b".."]
    levels = data[0][30]
    leaves = _entries(data[0], 32, 0)
    nodes = set()
    if levels:
        below = []
        for low, node in leaves:
            nodes.add(node)
            assert data[node][:8] == struct.pack("<IHBB", 0, size, 0, 0)
            below += _entries(data[node], 8, low)
        leaves = below
    assert sorted([0, *nodes, *(leaf for _, leaf in leaves)]) == list(range(count))
    bounds = [low for low, _ in leaves]
    assert bounds == sorted(bounds)
    for (low, leaf), high in zip(leaves, [*bounds[1:], 1 << 33], strict=True):
        for name in names[leaf]:
            number = hashed(name)
            assert low & ~1 <= number
            assert number < high
    return levels


def _entries(block: bytes, start: int, low: int) -> list[tuple[int, int]]:
    limit, count = struct.unpack_from("<HH", block, start)
    assert limit == (len(block) - start) // 8
    assert 0 < count <= limit
    found = [struct.unpack_from("<II", block, start + 8 * number) for number in range(count)]
    return [(low, found[0][1]), *found[1:]]
