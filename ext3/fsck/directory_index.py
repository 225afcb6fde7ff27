"""Indexes of directories, judged against the names in their leaves.

Blocks come in one by one, the root of a directory before its other blocks: nodes are judged at once, leaves leave their
lowest and highest hash. When all are seen, every block has to be referenced once, at the right depth, and its hashes have to
lie in the range that its entry gives. A wrong index is dropped, and the directory rebuilt. Source: e2fsprogs
``e2fsck/pass2.c`` (parse_int_node, clear_htree, and the end of e2fsck_pass2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from ..constants import FLAGS_UNSIGNED_HASH, HashVersion, InodeFlag
from ..format.dirent_block import DOTS_SIZE
from ..format.dirhash import DirHash
from ..format.dirhash_columns import hash_columns
from ..format.htree import BLOCK_MASK, MAX_LEVELS, NODE_HEAD, node_limit
from ..format.inode import patch_inode
from ..format.schema import DIRENT, DX_COUNTLIMIT, DX_ENTRY, DX_ROOT_INFO, INODE_CORE
from .context import Context
from .problem import Place, Problem
from .problems import directories as problems

__all__ = ["IndexChecks", "drop_index", "is_node"]

NO_LOW = 0xFFFFFFFF
"""Lowest hash of a leaf without names."""
HIGHEST = 0xFFFFFFFE
INCOMPATIBLE = 1
"""Flag of a root that only another implementation can read."""

_dx_entries = DX_ENTRY.packer.iter_unpack


@dataclass(slots=True)
class _Block:
    """Block of an indexed directory. ``leaf``: it holds names; ``low``, ``high``: their hashes, or those of a node's entries.

    ``references``: entries that lead to it, the first of them in block ``parent``, for hashes from ``least`` to ``most``;
    ``first``, ``last``: it is that of its node.
    """

    leaf: bool = True
    low: int = NO_LOW
    high: int = 0
    references: int = 0
    parent: int = 0
    least: int = 0
    most: int = 0
    first: bool = False
    last: bool = False


@dataclass(slots=True)
class _Index:
    hashed: DirHash | None = None
    depth: int = 0
    blocks: list[_Block] = field(default_factory=list)


class IndexChecks:
    """Checks of the indexes of all directories. ``lengths``: the blocks of each indexed directory."""

    def __init__(self, context: Context, lengths: dict[int, int]) -> None:
        self._context = context
        self._lengths = lengths
        self.directories: npt.NDArray[np.int64] = np.fromiter(lengths, np.int64, len(lengths))
        """Those directories."""
        self._indexes: dict[int, _Index] = {}
        superblock = context.superblock
        signed = not superblock.flags & FLAGS_UNSIGNED_HASH
        self._hash = cache(lambda version: DirHash(version, superblock.hash_seed, signed=signed))

    def wants(self, ino: int) -> bool:
        """Return whether a directory has an index that was not found wrong yet."""
        return ino in self._lengths

    def hash_of(self, ino: int) -> DirHash | None:
        """Return the hash of a directory whose root was added."""
        index = self._indexes.get(ino)
        return index.hashed if index else None

    def add_root(self, ino: int, data: bytes) -> None:
        """Judge block 0 of a directory."""
        zero, version, info_length, levels, flags = DX_ROOT_INFO.packer.unpack_from(data, DOTS_SIZE)
        wrong = zero or info_length < DX_ROOT_INFO.size or levels > MAX_LEVELS
        wrong = wrong or version > HashVersion.TEA or flags & INCOMPATIBLE
        if wrong and self._drop(problems.INDEX_ROOT, ino, 0):
            return
        index = self._indexes[ino] = _Index(depth=levels + 1)
        index.blocks = [_Block() for _ in range(self._lengths[ino])]
        index.blocks[0].leaf = False
        index.blocks[0].references = 1
        if version <= HashVersion.TEA:
            index.hashed = self._hash(version)
        self._add_entries(ino, index, 0, data, DOTS_SIZE + info_length)

    def add_node(self, ino: int, logical: int, data: bytes) -> None:
        """Judge a block that ``is_node``."""
        index = self._indexes.get(ino)
        if index is not None:
            index.blocks[logical].leaf = False
            self._add_entries(ino, index, logical, data, NODE_HEAD)

    def add_leaf(self, ino: int, logical: int, low: int, high: int) -> None:
        """Note the lowest and highest hash of a leaf with names."""
        index = self._indexes.get(ino)
        if index is not None:
            index.blocks[logical].low, index.blocks[logical].high = low, high

    def add_block(self, ino: int, logical: int, data: bytes, names: Sequence[bytes]) -> None:
        """Judge any block of a directory, with these names."""
        if not self.wants(ino):
            return
        if not logical:
            self.add_root(ino, data)
        elif is_node(data):
            self.add_node(ino, logical, data)
        elif names:
            hashed = self.hash_of(ino)
            if hashed is not None:
                hashes = hash_columns(hashed, names)
                self.add_leaf(ino, logical, int(hashes.min()), int(hashes.max()))

    def finish(self) -> None:
        """Judge the indexes as wholes."""
        for ino, index in sorted(self._indexes.items()):
            if not self.wants(ino):
                continue
            fault = _first_fault(index)
            if fault:
                self._drop(problems.INDEX_WRONG, ino, None, got=fault)

    def _drop(self, problem: Problem, ino: int, logical: int | None, *, got: object = None, want: object = None) -> bool:
        """Report a wrong index and drop it. Return False if that was refused."""
        if not self._context.fix(problem, Place(ino=ino, logical=logical), got=got, want=want):
            return False
        drop_index(self._context, ino)
        del self._lengths[ino]
        self._indexes.pop(ino, None)
        return True

    def _add_entries(self, ino: int, index: _Index, logical: int, data: bytes, start: int) -> None:
        """Judge the entries of a root or node from byte ``start`` on."""
        room = (len(data) - start) // DX_ENTRY.size
        if room < 1:
            self._drop(problems.INDEX_ROOT, ino, logical)
            return
        limit, count = DX_COUNTLIMIT.packer.unpack_from(data, start)
        if limit != room and self._drop(problems.INDEX_LIMIT, ino, logical, got=limit, want=room):
            return
        if count > room:
            if self._drop(problems.INDEX_COUNT, ino, logical, got=count, want=room):
                return
            count = room
        entries = list(_dx_entries(data[start : start + count * DX_ENTRY.size]))
        hashes = [number & ~1 for number, _ in entries]
        hashes[:1] = [0] * min(1, count)
        before, low, high = 0, NO_LOW, 0
        for slot, (number, (_, target)) in enumerate(zip(hashes, entries, strict=True)):
            child = target & BLOCK_MASK
            if child >= len(index.blocks):
                if self._drop(problems.INDEX_BLOCK, ino, logical, got=child):
                    return
                continue
            if number < before and self._drop(problems.INDEX_ORDER, ino, logical):
                return
            before = number
            block = index.blocks[child]
            block.references += 1
            if block.references == 1:
                block.parent = logical
            low, high = min(low, number), max(high, number)
            block.least = number
            block.most = hashes[slot + 1] if slot + 1 < count else HIGHEST
            block.first |= slot == 0
            block.last |= slot + 1 == count
        index.blocks[logical].low, index.blocks[logical].high = low, high


def _first_fault(index: _Index) -> str:
    """Return the first fault of an index whose blocks are all known, "" if there is none."""
    blocks = index.blocks
    for block in blocks[1:]:
        if block.leaf and block.first:
            blocks[block.parent].low = block.low
        if block.leaf and block.last:
            blocks[block.parent].high = block.high
    for logical, block in enumerate(blocks):
        if not logical and block.references > 1:
            return "block 0 is its own leaf or node"
        if block.references > 1:
            return f"{block.references} entries lead to block {logical}"
        if not block.references:
            return f"no entry leads to block {logical}"
        if block.leaf and _depth(blocks, logical) != index.depth:
            return f"block {logical} has depth {_depth(blocks, logical)}, not {index.depth}"
        if not logical:
            continue
        if not block.first and block.low < block.least:
            return f"block {logical} has names of lower hashes than its entry"
        if not block.last and block.high > block.most:
            return f"block {logical} has names of higher hashes than its entry"
    return ""


def _depth(blocks: Sequence[_Block], logical: int) -> int:
    """Return the steps from a block up to the root; more than any index has if there is a loop."""
    depth = 0
    while logical and depth <= MAX_LEVELS + 1:
        logical = blocks[logical].parent
        depth += 1
    return depth


def is_node(data: bytes) -> bool:
    """Return whether a block other than the first is a node of an index; if not it is a leaf."""
    ino, rec_len, name_len, _ = DIRENT.packer.unpack_from(data, 0)
    if ino or rec_len != len(data) or name_len:
        return False
    limit, _ = DX_COUNTLIMIT.packer.unpack_from(data, NODE_HEAD)
    return bool(limit == node_limit(len(data)))


def drop_index(context: Context, ino: int) -> None:
    """Make a directory one without an index, to be rebuilt."""
    raw = context.read_inode(ino)
    flags = int(INODE_CORE.view(raw)[0]["i_flags"])
    context.write_inode(ino, patch_inode(raw, i_flags=flags & ~int(InodeFlag.INDEX)))
    context.indexed.discard(ino)
    context.to_rebuild.add(ino)
