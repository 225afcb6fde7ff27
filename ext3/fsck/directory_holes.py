"""Holes of directories: an empty block is allocated for each; where there are very many, the blocks are moved together.

Source: e2fsprogs ``e2fsck/pass2.c`` (allocate_dir_block), which always allocates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import POINTER_SIZE, ROOT_INO, SECTOR
from ..errors import CorruptError
from ..format.block_map_columns import group_runs
from ..format.dirent_block import empty_block, new_directory_block
from ..format.indirect_blocks_columns import IndirectBlocks
from ..format.inode import patch_inode
from ..format.schema import INODE_CORE
from .block_walk import MapWalk, Pointer
from .context import Context
from .directory_content import directory_map
from .directory_index import drop_index
from .problem import Place
from .problems import directories as problems

__all__ = ["close_many_holes", "fill_hole", "new_block"]

Numbers = npt.NDArray[np.int64]
Rows = tuple[Numbers, Numbers, Numbers]

FEW_HOLES = 64
"""Holes up to which each gets a block."""


def new_block(context: Context, ino: int, logical: int) -> bytes:
    """Return the empty block that takes the place of one that is lost; its ``..`` is the root directory."""
    size = context.block_size
    if logical:
        return empty_block(size)
    return new_directory_block(ino, ROOT_INO, block_size=size, filetype=context.superblock.has_filetype)


def fill_hole(context: Context, ino: int, logical: int) -> int:
    """Report a hole. Return the empty block that is allocated for it, 0 if that was refused."""
    raw = context.read_inode(ino)
    mapping = directory_map(context, ino, raw)
    try:
        there = mapping.block(logical)
    except CorruptError:
        return 0  # Pass 1 reported the pointer, and was not to clear it.
    if there is not None:
        return there
    if not context.fix(problems.BLOCK_HOLE, Place(ino=ino, logical=logical)):
        return 0
    try:
        ((_, block, _),) = mapping.map(logical, 1, 0)
    except CorruptError:  # another pointer on the way was not to be cleared
        context.leave(problems.BLOCK_HOLE, Place(ino=ino, logical=logical))
        return 0
    context.write(block, new_block(context, ino, logical))
    size = max(int(INODE_CORE.view(raw)[0]["i_size"]), (logical + 1) * context.block_size)
    context.write_inode(ino, patch_inode(raw, i_block=mapping.i_block, i_blocks=mapping.sectors, i_size=size))
    return block


def close_many_holes(context: Context, rows: Rows) -> Rows:
    """Move the blocks of directories together that have many holes, and more holes than blocks.

    ``rows``: the columns (inode, logical block, block) of all directories, by ascending inode and logical block. Return them
    as they are then. The first block stays the first one, be it a hole.
    """
    ino, _, block = rows
    owners, counts = np.unique(ino[block == 0], return_counts=True)
    for owner, holes in zip(owners[counts > FEW_HOLES].tolist(), counts[counts > FEW_HOLES].tolist(), strict=True):
        low, high = np.searchsorted(ino, (owner, owner + 1)).tolist()
        if 2 * holes <= high - low:
            continue
        if context.fix(problems.MANY_HOLES, Place(ino=owner), got=holes):
            kept = np.ones(len(ino), np.bool_)
            kept[low:high] = block[low:high] != 0
            kept[low] = True
            count = int(kept[low:high].sum())
            _set_map(context, owner, block[low:high][kept[low:high]])
            logical = rows[1].copy()
            logical[low:high][kept[low:high]] = np.arange(count)
            ino, logical, block = rows = ino[kept], logical[kept], block[kept]
    return rows


def _set_map(context: Context, ino: int, blocks: Numbers) -> None:
    """Make ``blocks`` the map of a directory; the first may be 0, a hole. Raise NoSpaceError with nothing changed."""
    raw = context.read_inode(ino)
    size = context.block_size
    logical = np.flatnonzero(blocks)
    tables = IndirectBlocks(group_runs(logical, blocks[logical]), size // POINTER_SIZE)
    runs = context.allocate(tables.count) if tables.count else []
    numbers = np.array([block for first, count in runs for block in range(first, first + count)], np.int64)
    for number, pointers in zip(numbers.tolist(), (row for part in tables.pack(numbers) for row in part), strict=True):
        context.write(number, pointers.tobytes())
    old = _pointer_blocks(context, raw)
    change = (tables.count - len(old)) * (size // SECTOR)
    sectors = max(0, int(INODE_CORE.view(raw)[0]["i_blocks"]) + change)
    fields = {"i_block": tables.pack_inode(numbers), "i_blocks": sectors, "i_size": len(blocks) * size}
    context.write_inode(ino, patch_inode(raw, **fields))
    context.free([(block, 1) for block in old])
    if ino in context.indexed:
        drop_index(context, ino)


def _pointer_blocks(context: Context, raw: bytes) -> list[int]:
    """Return the pointer blocks of a map."""
    superblock = context.superblock
    found: dict[int, None] = {}

    def enter(pointer: Pointer) -> bool:
        fresh = pointer.block not in found and superblock.first_data_block <= pointer.block < superblock.blocks_count
        if fresh:
            found[pointer.block] = None
        return fresh

    for _ in MapWalk(context, INODE_CORE.view(raw)[0]["i_block"].tolist()).pointers(enter):
        pass
    return list(found)
