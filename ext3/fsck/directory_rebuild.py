"""Pass 3A: directories whose index was dropped, or that hold a name twice, are packed anew; with an option all are.

A directory whose entries fit a block is packed, another one gets an index. The new blocks are written beside the old ones,
then the inode leads to them, so that the names are on storage at every moment. Source: e2fsprogs ``e2fsck/rehash.c``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..constants import FLAGS_UNSIGNED_HASH, N_BLOCKS, Compat, FileType, HashVersion, InodeFlag
from ..edit.block_map_edit import FileTooLargeError
from ..errors import CorruptError, NoSpaceError
from ..format.dirent_block import DOT_REC_LEN, DOTS_SIZE, empty_block
from ..format.dirent_block_columns import fill_blocks, pack_records, place_records, record_sizes
from ..format.dirhash import DirHash
from ..format.dirhash_columns import hash_columns
from ..format.htree_columns import IndexPlan, plan_index
from ..format.inode import patch_inode
from ..format.schema import INODE_CORE
from .block_walk import MapWalk
from .context import Context
from .directory_content import DirectoryContent, directory_map, read_directory
from .repeated_names import change_names, separate_names
from .storage import Stage

__all__ = ["rebuild_directories"]

Numbers = npt.NDArray[np.int64]


def rebuild_directories(context: Context) -> None:
    """Rebuild the directories that need it. All directories, if asked for and if the repairs are written."""
    everything = context.options.rebuild_directories and context.policy.writes
    wanted = context.census.directories.tolist() if everything else sorted(context.to_rebuild)
    for ino in wanted:
        if not context.census.is_dir(ino):
            continue
        if ino in context.to_rebuild or ino != context.lost_and_found:
            _rebuild(context, ino)
        if everything:
            context.flush_if_large()


def _rebuild(context: Context, ino: int) -> None:
    try:
        content = read_directory(context, ino)
        if context.report.left:
            _check_map(context, ino, content)
    except CorruptError:
        return  # Its faults were not to be repaired. Without an index it can be read as far as they allow.
    changes = separate_names(context, ino, content) if content.repeats_names else {}
    if not context.policy.writes:
        return
    packed, indexed = _pack(context, ino, content, changes)
    if content.flags & InodeFlag.INDEX and indexed and len(packed) >= content.blocks and not changes:
        return
    try:
        _replace(context, ino, content, packed, indexed=indexed)
    except (NoSpaceError, FileTooLargeError):
        # Without an index a directory is slow, but sound.
        change_names(context, ino, content, changes)


def _check_map(context: Context, ino: int, content: DirectoryContent) -> None:
    """Raise CorruptError if a pointer was left that leads out of the filesystem, or blocks beyond the size."""
    superblock = context.superblock
    walk = MapWalk(context, INODE_CORE.view(content.raw)[0]["i_block"].tolist())
    for count, pointer in enumerate(walk.pointers()):
        if not superblock.first_data_block <= pointer.block < superblock.blocks_count or pointer.logical >= content.blocks:
            raise CorruptError(f"directory inode {ino}", pointer.name, pointer.block, "a block of the directory")
        if count > 2 * content.blocks + N_BLOCKS:
            raise CorruptError(f"directory inode {ino}", "block map", "more pointers than blocks", "one for each")


# -- blocks ----------------------------------------------------------------------------------------------------------


def _pack(
    context: Context, ino: int, content: DirectoryContent, changes: Mapping[int, bytes | None]
) -> tuple[list[bytes], bool]:
    """Return the blocks of a directory with the entries of ``content`` after the changes, and whether they have an index."""
    if changes:
        content = content.changed(changes)
    superblock, size = context.superblock, context.block_size
    sizes = record_sizes(np.fromiter(map(len, content.names), np.int64, len(content.names)))
    kept = ino == context.lost_and_found
    plan = None
    if superblock.compat & Compat.DIR_INDEX and not kept and int(sizes.sum()) + DOTS_SIZE > size:
        version = superblock.hash_version
        if version > HashVersion.TEA:
            version = HashVersion.HALF_MD4
        hashed = DirHash(version, superblock.hash_seed, signed=not superblock.flags & FLAGS_UNSIGNED_HASH)
        plan = plan_index(hash_columns(hashed, content.names), sizes, size)
        if plan is not None:
            head = plan.pack(ino, content.parent, version=version, filetype=superblock.has_filetype)
            data = head + _pack_leaves(content, plan, sizes, size)
    if plan is None:
        data = _pack_linear(context, ino, content, sizes)
        if kept:
            # lost+found keeps its size, so that later repairs find room in it.
            data += empty_block(size) * (content.blocks - len(data) // size)
    return [data[at : at + size] for at in range(0, len(data), size)], plan is not None


def _pack_leaves(content: DirectoryContent, plan: IndexPlan, sizes: Numbers, block_size: int) -> bytes:
    at, rec_lens = place_records(sizes[plan.order], plan.leaf_first, block_size, reserve=0)
    data = np.zeros(plan.leaves * block_size, np.uint8)
    _pack_entries(data, content, plan.order, at, rec_lens)
    return data.tobytes()


def _pack_linear(context: Context, ino: int, content: DirectoryContent, sizes: Numbers) -> bytes:
    """Return the blocks of a directory without an index, its entries by inode."""
    size = context.block_size
    order = np.argsort(content.inodes, kind="stable").astype(np.int64)
    firsts = fill_blocks(sizes[order], size)
    data = np.zeros(len(firsts) * size, np.uint8)
    alone = not len(order)
    pack_records(
        data,
        at=np.array([0, DOT_REC_LEN], np.int64),
        inodes=np.array([ino, content.parent], np.uint32),
        rec_lens=np.array([DOT_REC_LEN, size - DOT_REC_LEN if alone else DOT_REC_LEN], np.int64),
        file_types=FileType.DIRECTORY if context.superblock.has_filetype else 0,
        names=[b".", b".."],
    )
    if not alone:
        at, rec_lens = place_records(sizes[order], firsts, size, reserve=DOTS_SIZE)
        _pack_entries(data, content, order, at, rec_lens)
    return data.tobytes()


def _pack_entries(
    data: npt.NDArray[np.uint8], content: DirectoryContent, order: Numbers, at: Numbers, rec_lens: Numbers
) -> None:
    """Write the entries ``order`` at these bytes."""
    names = content.names
    pack_records(
        data,
        at=at,
        inodes=content.inodes[order],
        rec_lens=rec_lens,
        file_types=content.file_types[order],
        names=[names[number] for number in order.tolist()],
    )


# -- storage ---------------------------------------------------------------------------------------------------------


def _replace(context: Context, ino: int, content: DirectoryContent, blocks: list[bytes], *, indexed: bool) -> None:
    """Make ``blocks`` the content of a directory. Raise NoSpaceError with nothing changed."""
    raw = content.raw
    old = directory_map(context, ino, raw)
    flags = content.flags & ~int(InodeFlag.INDEX) | (int(InodeFlag.INDEX) if indexed else 0)
    places = [block + at for _, block, count in old.runs(0, content.blocks) for at in range(count)]
    if flags == content.flags and len(places) == len(blocks) and [*map(context.read, places)] == blocks:
        return
    if len(places) == len(blocks) == 1:
        context.write(places[0], blocks[0])
        context.write_inode(ino, patch_inode(raw, i_flags=flags))
        return
    new = directory_map(context, ino, patch_inode(raw, i_block=[0] * N_BLOCKS, i_blocks=0))
    try:
        new.append(0, blocks, places[0])
    except NoSpaceError:
        if len(blocks) > 1:
            raise
        # The first block comes to hold all names before the inode lets the others go.
        context.storage.write_block(places[0], blocks[0], Stage.NEW)
        old.truncate(1)
        new = old
        sectors = old.sectors
    else:
        old.truncate(0)
        sectors = old.sectors + new.sectors
    size = len(blocks) * context.block_size
    fields = {"i_block": new.i_block, "i_blocks": sectors, "i_size": size, "i_flags": flags}
    context.write_inode(ino, patch_inode(raw, **fields))
