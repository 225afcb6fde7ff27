"""Demand: the blocks and inodes a tree needs with one block size, whatever the size of the filesystem.

Inode numbers, directory blocks, attribute blocks and the block count of every file depend on the block size but not on
the geometry. They are computed once; the automatic size and the plan both start from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..constants import (
    FAST_SYMLINK_MAX,
    LOST_FOUND_INO,
    POINTER_SIZE,
    ROOT_INO,
    S_IFDIR,
    S_IFLNK,
    S_IFREG,
    XATTR_REFCOUNT_MAX,
)
from ..errors import TooLargeError, XattrError
from ..format import xattr
from ..format.indirect_blocks import file_limit, indirect_count, segment_extents
from ..format.indirect_blocks_columns import dense_counts
from ..format.inode_fields import area_size
from .directories import DirectoryPlan, lay_out_directories
from .tree import Tree

__all__ = ["Demand", "LARGE_FILE_BYTES", "measure"]

Array64 = npt.NDArray[np.int64]

LARGE_FILE_BYTES = 1 << 20
"""Files of this size and more are copied one by one, in the kernel if possible; smaller ones go through one buffer."""


@dataclass(slots=True)
class Attributes:
    """Extended attributes in on-disk form: ``areas`` in the inode (bytes behind the extra fields), shared ``blocks``, and
    ``block_of``, a node's row in ``blocks``."""

    areas: dict[int, bytes] = field(default_factory=dict)
    block_of: dict[int, int] = field(default_factory=dict)
    blocks: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Demand:
    """Blocks and inodes of a tree. Per node, shape (nodes,): ``inos``, ``data_blocks`` (without holes), ``indirect_blocks``.

    ``small``: nodes of files read whole; ``large``: files copied one by one; ``slow_symlinks``: nodes whose target takes a
    block; ``maps``: block maps of sparse files, positions relative to their first data block.
    """

    tree: Tree
    block_size: int
    inode_size: int
    inos: npt.NDArray[np.uint32]
    directories: DirectoryPlan
    attributes: Attributes
    slow_symlinks: Array64
    small: Array64
    large: Array64
    maps: dict[int, list[tuple[int, int, int]]]
    data_blocks: Array64
    indirect_blocks: Array64

    @property
    def pointers(self) -> int:
        """Pointers per indirect block."""
        return self.block_size // POINTER_SIZE

    @property
    def blocks(self) -> int:
        """Blocks of the content, root directory and lost+found included."""
        return int(self.data_blocks.sum() + self.indirect_blocks.sum()) + len(self.attributes.blocks)

    @property
    def inodes(self) -> int:
        """Inodes in use: the ten reserved ones, lost+found and the content."""
        return LOST_FOUND_INO - 1 + len(self.tree) - 1


def measure(tree: Tree, block_size: int, inode_size: int, hash_seed: tuple[int, ...]) -> Demand:
    """Measure ``tree`` for this block and inode size (bytes) and directory hash seed (four numbers).

    Raises SourceError and XattrError for files and attributes that ext3 cannot hold in blocks of this size.
    """
    mode = tree.nodes["mode"]
    size = tree.nodes["size"]
    inos = _number_inodes(tree)
    data_blocks = np.zeros(len(tree), np.int64)
    regular = tree.is_kind(S_IFREG)
    data_blocks[regular] = -(-size[regular] // block_size)
    _check_file_sizes(tree, np.flatnonzero(regular), block_size)
    slow = _slow_symlinks(tree, block_size)
    data_blocks[slow] = 1
    directories = lay_out_directories(tree, inos, block_size, hash_seed)
    data_blocks[directories.nodes] = directories.blocks
    pointers = block_size // POINTER_SIZE
    indirect = dense_counts(data_blocks, pointers)
    maps = {}
    for node, segments in tree.segments.items():
        maps[node] = segment_extents(((offset, offset + length) for offset, length, _ in segments), block_size)
        data_blocks[node] = sum(count for _, _, count in maps[node])
        indirect[node] = indirect_count(maps[node], pointers)
    filled = regular & (data_blocks > 0)
    single = size >= LARGE_FILE_BYTES
    single[list(maps)] = True
    assert not (mode[directories.nodes] & 0o170000 != S_IFDIR).any()
    return Demand(
        tree=tree,
        block_size=block_size,
        inode_size=inode_size,
        inos=inos,
        directories=directories,
        attributes=_place_attributes(tree, block_size, inode_size),
        slow_symlinks=slow,
        small=np.flatnonzero(filled & ~single),
        large=np.flatnonzero(regular & single),  # fully sparse files too: the copy checks that they still are
        maps=maps,
        data_blocks=data_blocks,
        indirect_blocks=indirect,
    )


def _number_inodes(tree: Tree) -> npt.NDArray[np.uint32]:
    inos = np.arange(LOST_FOUND_INO, LOST_FOUND_INO + len(tree), dtype=np.uint32)
    # Node 1 gets 12, and so on: node 0 is the root, and numbers behind lost+found, which has its own, move up by one.
    inos[tree.lost_found + 1 :] -= 1
    inos[0] = ROOT_INO
    inos[tree.lost_found] = LOST_FOUND_INO
    return inos


def _check_file_sizes(tree: Tree, regular: Array64, block_size: int) -> None:
    if not len(regular):
        return
    largest = file_limit(block_size)
    sizes = tree.nodes["size"][regular]
    if int(sizes.max()) > largest:
        node = int(regular[int(sizes.argmax())])
        raise TooLargeError(
            tree.path(node),
            f"{int(sizes.max())} bytes; ext3 holds {largest} in blocks of {block_size}",
            size_bytes=int(sizes.max()),
            limit_bytes=largest,
            block_size=block_size,
        )


def _slow_symlinks(tree: Tree, block_size: int) -> Array64:
    lengths = tree.nodes["size"]
    slow = np.flatnonzero(tree.is_kind(S_IFLNK) & (lengths > FAST_SYMLINK_MAX))
    if len(slow) and int(lengths[slow].max()) >= block_size:
        node = int(slow[int(lengths[slow].argmax())])
        raise TooLargeError(
            tree.path(node),
            f"the symlink's target has {int(lengths[node])} bytes; ext3 holds {block_size - 1} in blocks of {block_size}",
            size_bytes=int(lengths[node]),
            limit_bytes=block_size - 1,
            block_size=block_size,
        )
    return slow


def _place_attributes(tree: Tree, block_size: int, inode_size: int) -> Attributes:
    placed = Attributes()
    room = area_size(inode_size)
    shared: dict[tuple[xattr.Attribute, ...], tuple[int, int]] = {}
    contents: list[list[xattr.Attribute]] = []
    counts: list[int] = []
    for node, attributes in sorted(tree.xattrs.items()):
        try:
            rest = xattr.to_disk(attributes)
        except ValueError as error:
            raise XattrError(tree.path(node), str(error)) from error
        if room:
            area, rest = xattr.pack_inode_area(rest, room)
            if area:
                placed.areas[node] = area
        if not rest:
            continue
        if not xattr.block_fits(rest, block_size):
            total = sum(len(attribute.value) for attribute in rest)
            too_large = XattrError(tree.path(node), f"extended attributes of {total} bytes do not fit a block of {block_size}")
            too_large.block_size = block_size
            raise too_large
        key = tuple(rest)
        row, count = shared.get(key, (-1, XATTR_REFCOUNT_MAX))
        if count == XATTR_REFCOUNT_MAX:
            row, count = len(contents), 0
            contents.append(rest)
            counts.append(0)
        shared[key] = (row, count + 1)
        counts[row] = count + 1
        placed.block_of[node] = row
    placed.blocks = [xattr.pack_block(content, block_size, count) for content, count in zip(contents, counts, strict=True)]
    return placed
