"""Pass 3A: directories whose index was dropped, or that hold a name twice, are packed anew; with an option all are.

Of two entries of one name that lead to one inode the second goes, otherwise it is renamed. A directory whose entries fit a
block is packed, another one gets an index. The new blocks are written beside the old ones, then the inode leads to them, so
that the names are on storage at every moment. Source: e2fsprogs ``e2fsck/rehash.c``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from ..constants import FLAGS_UNSIGNED_HASH, N_BLOCKS, NAME_MAX, Compat, FileType, HashVersion, InodeFlag
from ..edit.block_map_edit import FileTooLargeError
from ..errors import CorruptError, NoSpaceError
from ..format.dirent_block import Record, empty_block, pack_block, record_size
from ..format.dirhash import DirHash
from ..format.htree import DOTS_SIZE, plan_index
from ..format.inode import patch_inode
from .context import Context
from .directory_content import DirectoryContent, directory_map, read_directory
from .problem import Place
from .problems import directories as problems
from .storage import Stage

__all__ = ["rebuild_directories"]


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
    except CorruptError:
        return  # Its faults were not to be repaired. Without an index it can be read as far as they allow.
    repeated = len({name for _, _, name in content.records}) < len(content.records)
    if repeated:
        content.records = _separate_names(context, ino, content.records)
    if not context.policy.writes:
        return
    try:
        blocks, indexed = _pack(context, ino, content)
        _replace(context, ino, content, blocks, indexed=indexed)
    except (NoSpaceError, FileTooLargeError) as error:
        if repeated:
            context.fix(problems.REBUILD_FAILED, Place(ino=ino), got=error.message)


# -- names -----------------------------------------------------------------------------------------------------------


def _separate_names(context: Context, ino: int, records: Iterable[Record]) -> list[Record]:
    """Return the records with every name once, as far as the repairs are made."""
    records = list(records)
    names = {name for _, _, name in records}
    kept: list[Record] = []
    seen: dict[bytes, set[int]] = {}
    numbers: dict[bytes, int] = {}
    for child, file_type, name in records:
        kept_name = name
        others = seen.setdefault(name, set())
        place = Place(ino=child, name=name, parent=ino)
        if child in others:
            if context.fix(problems.ENTRY_DUPLICATE, place):
                context.census.names[child] -= 1
                continue
        elif others:
            number, other = _free_name(name, names, numbers.get(name, 0))
            if context.fix(problems.ENTRY_NAME_TWICE, place, want=other.decode("utf-8", "backslashreplace")):
                names.add(other)
                numbers[name] = number + 1
                kept_name = other
        others.add(child)
        kept.append((child, file_type, kept_name))
    return kept


def _free_name(name: bytes, names: set[bytes], number: int) -> tuple[int, bytes]:
    """Return the first name like ``name`` with a number from ``number`` on that is not among ``names``, and its number."""
    while True:
        suffix = b"~%d" % number
        other = name[: NAME_MAX - len(suffix)] + suffix
        if other not in names:
            return number, other
        number += 1


# -- blocks ----------------------------------------------------------------------------------------------------------


def _pack(context: Context, ino: int, content: DirectoryContent) -> tuple[list[bytes], bool]:
    """Return the blocks of a directory with the entries of ``content``, and whether they have an index."""
    superblock, size = context.superblock, context.block_size
    records = content.records
    sizes = np.fromiter((record_size(len(name)) for _, _, name in records), np.int64, len(records))
    kept = ino == context.lost_and_found
    if superblock.compat & Compat.DIR_INDEX and not kept and int(sizes.sum()) + DOTS_SIZE > size:
        version = superblock.hash_version
        if version > HashVersion.TEA:
            version = HashVersion.HALF_MD4
        hashed = DirHash(version, superblock.hash_seed, signed=not superblock.flags & FLAGS_UNSIGNED_HASH)
        plan = plan_index(hashed.many([name for _, _, name in records]), sizes, size)
        if plan is not None:
            head = plan.pack(ino, content.parent, version=version, filetype=superblock.has_filetype)
            blocks = [head[at : at + size] for at in range(0, len(head), size)]
            order = plan.order.tolist()
            bounds = [*plan.leaf_first.tolist(), len(order)]
            for low, high in pairwise(bounds):
                blocks.append(pack_block([records[at] for at in order[low:high]], size)[0])
            return blocks, True
    blocks = _pack_linear(context, ino, content)
    if kept:
        # lost+found keeps its size, so that later repairs find room in it.
        blocks += [empty_block(size)] * (content.blocks - len(blocks))
    return blocks, False


def _pack_linear(context: Context, ino: int, content: DirectoryContent) -> list[bytes]:
    size = context.block_size
    kind = FileType.DIRECTORY if context.superblock.has_filetype else 0
    block: list[Record] = [(ino, kind, b"."), (content.parent, kind, b"..")]
    blocks: list[bytes] = []
    taken = DOTS_SIZE
    for record in sorted(content.records, key=lambda record: record[0]):
        need = record_size(len(record[2]))
        if taken + need > size:
            blocks.append(pack_block(block, size)[0])
            block, taken = [], 0
        block.append(record)
        taken += need
    blocks.append(pack_block(block, size)[0])
    return blocks


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
