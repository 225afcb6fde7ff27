"""The orphan list: inodes that a crash would leave without a name, or longer than they say.

The superblock's s_last_orphan is its head, i_dtime of each inode leads to the next, 0 ends it. One without links is
deleted at the next recovery, one with links is cut to its size. Source: Linux ``fs/ext4/orphan.c``
(ext4_orphan_add, ext4_orphan_del, ext4_orphan_cleanup), ``fs/ext4/indirect.c`` (ext4_ind_truncate).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from ..constants import DIRECT_BLOCKS, IND_SLOT, N_BLOCKS, SECTOR, XATTR_MAGIC
from ..device.base import BlockDevice
from ..errors import CorruptError, JournalFullError
from ..format.block_map import BlockMap, map_limit, read_block_map
from ..format.inode import Inode, check_map_flags, has_block_map, parse_inode, patch_inode
from ..format.inode_fields import MASK32
from ..format.schema import XATTR_HEADER
from ..format.superblock import Superblock

__all__ = [
    "OrphanHost",
    "OrphanLinks",
    "add_orphan",
    "cut_in_steps",
    "cut_inode",
    "delete_inode",
    "orphan_chain",
    "process_orphans",
    "release_attributes",
    "remove_orphan",
]

Run = tuple[int, int]


class OrphanHost(Protocol):
    """What is needed of a filesystem that is being edited."""

    last_orphan: int

    @property
    def superblock(self) -> Superblock: ...
    @property
    def device(self) -> BlockDevice:
        """The blocks as they are now."""
        ...

    @property
    def seconds(self) -> int: ...
    def read(self, block: int) -> bytes: ...
    def write(self, block: int, data: bytes) -> None: ...
    def free(self, runs: list[Run], *, metadata: bool) -> None: ...
    def read_inode(self, ino: int) -> bytes: ...
    def write_inode(self, ino: int, raw: bytes | bytearray) -> None: ...
    def free_inode(self, ino: int, *, is_dir: bool) -> None: ...
    def inode_in_use(self, ino: int) -> bool: ...
    def sync(self) -> None: ...
    def operation(self) -> AbstractContextManager[None]: ...


def orphan_chain(host: OrphanHost) -> Iterator[int]:
    """The inodes of the list from its head. CorruptError for one that is none, or that is met twice."""
    seen: set[int] = set()
    ino, where, field = host.last_orphan, "superblock", "s_last_orphan"
    superblock = host.superblock
    while ino:
        if not superblock.first_ino <= ino <= superblock.inodes_count:
            raise CorruptError(where, field, ino, f"an inode from {superblock.first_ino} to {superblock.inodes_count}")
        if ino in seen:
            raise CorruptError(where, field, ino, "an inode that is not in the orphan list already")
        seen.add(ino)
        yield ino
        where, field = f"orphan inode {ino}", "i_dtime"
        ino = parse_inode(host.read_inode(ino), ino).dtime


class OrphanLinks:
    """The list as it is now: which inode comes before which. Who keeps it need not walk the list for every change."""

    def __init__(self, host: OrphanHost) -> None:
        """Walk the list. CorruptError as from ``orphan_chain``."""
        self._before: dict[int, int] = {}
        previous = 0
        for ino in orphan_chain(host):
            self._before[ino] = previous
            previous = ino

    def __contains__(self, ino: int) -> bool:
        return ino in self._before

    def put_first(self, ino: int, following: int) -> None:
        self._before[ino] = 0
        if following:
            self._before[following] = ino

    def take_out(self, ino: int, following: int) -> int:
        """The inode that came before, 0 for the first."""
        previous = self._before.pop(ino)
        if following:
            self._before[following] = previous
        return previous


def add_orphan(host: OrphanHost, ino: int, links: OrphanLinks | None = None) -> tuple[int, ...]:
    """Put an inode at the head of the list (nothing happens if the list holds it already); the inodes that changed.

    ``links``: the list as it is now, which is kept up to date; None: the list is walked. Void where this raises.
    """
    links = OrphanLinks(host) if links is None else links
    if ino in links:
        return ()
    links.put_first(ino, host.last_orphan)
    _set_next(host, ino, host.last_orphan)
    host.last_orphan = ino
    return (ino,)


def remove_orphan(host: OrphanHost, ino: int, links: OrphanLinks | None = None) -> tuple[int, ...]:
    """Take an inode out of the list; its i_dtime is 0 afterwards. The inodes that changed. CorruptError if it is not there."""
    links = OrphanLinks(host) if links is None else links
    if ino not in links:
        raise CorruptError(f"inode {ino}", "orphan list", "without it", "an entry")
    following = parse_inode(host.read_inode(ino), ino).dtime
    previous = links.take_out(ino, following)
    _set_next(host, ino, 0)
    if not previous:
        host.last_orphan = following
        return (ino,)
    _set_next(host, previous, following)
    return ino, previous


def _set_next(host: OrphanHost, ino: int, following: int) -> None:
    host.write_inode(ino, patch_inode(host.read_inode(ino), i_dtime=following))


def process_orphans(host: OrphanHost) -> tuple[int, int]:
    """Delete or cut every inode of the list, each as one operation: (deleted, cut). CorruptError where the list is damaged."""
    deleted = cut = 0
    for ino in list(orphan_chain(host)):
        inode = parse_inode(host.read_inode(ino), ino)
        if not host.inode_in_use(ino):
            raise CorruptError(f"orphan inode {ino}", "inode bitmap", "free", "in use")
        try:
            _finish(host, ino, inode)
        except JournalFullError:
            size = host.superblock.block_size
            cut_in_steps(host, ino, -(-inode.stat.size // size) if inode.stat.links else 0)
            _finish(host, ino, inode)
        if inode.stat.links:
            cut += 1
        else:
            deleted += 1
    return deleted, cut


def _finish(host: OrphanHost, ino: int, inode: Inode) -> None:
    with host.operation():
        remove_orphan(host, ino)
        if inode.stat.links:
            cut_inode(host, ino)
        else:
            delete_inode(host, ino)


def cut_in_steps(host: OrphanHost, ino: int, keep: int) -> None:
    """Free what an inode has behind its first ``keep`` blocks, in as many operations as the journal needs.

    The inode must be in the orphan list, and no operation may be running: after each step the rest is the list's work.
    JournalFullError if not even one block fits.
    """
    end = _map_end(host, parse_inode(host.read_inode(ino), ino))
    while end > keep:
        target = keep
        while True:
            try:
                with host.operation():
                    cut_inode(host, ino, keep=target)
                break
            except JournalFullError:
                if target + 1 >= end:
                    raise
                host.sync()
                target = (target + end) // 2
        end = target


def delete_inode(host: OrphanHost, ino: int) -> None:
    """Free an inode with everything it has: blocks, attribute block, its number. Its i_dtime becomes the present time."""
    inode = parse_inode(host.read_inode(ino), ino)
    if _has_map(host, inode):
        _free_all(host, inode)
    if inode.stat.file_acl:
        release_attributes(host, inode.stat.file_acl, ino)
    gone = dict.fromkeys(("i_links_count", "i_size", "i_size_high", "i_blocks", "i_file_acl", "i_block"), 0)
    dtime = min(max(1, host.seconds), MASK32)
    host.write_inode(ino, patch_inode(host.read_inode(ino), **gone, i_dtime=dtime))
    host.free_inode(ino, is_dir=inode.stat.is_dir)


def cut_inode(host: OrphanHost, ino: int, *, keep: int | None = None) -> None:
    """Free what a file has behind its size, pointer blocks that become empty too, and zero the rest of its last block.

    With ``keep``: what is behind that many blocks, of a directory or a target too; its last block stays as it is.
    """
    inode = parse_inode(host.read_inode(ino), ino)
    if (inode.stat.is_dir and keep is None) or not _has_map(host, inode):
        return
    size = host.superblock.block_size
    zero_rest = keep is None and inode.stat.size % size != 0
    keep = min(-(-inode.stat.size // size) if keep is None else keep, map_limit(size))
    cut = _Cut(host, ino)
    i_block = list(inode.i_block)
    for slot in range(min(keep, DIRECT_BLOCKS), DIRECT_BLOCKS):
        if i_block[slot]:
            cut.data.append(i_block[slot])
            i_block[slot] = 0
    start = DIRECT_BLOCKS
    for slot in range(IND_SLOT, N_BLOCKS):
        level = slot - IND_SLOT + 1
        if i_block[slot] and not cut.pointers(i_block[slot], level, keep - start):
            i_block[slot] = 0
        start += (size // 4) ** level
    host.free(_as_runs(cut.data), metadata=not inode.stat.is_file)
    host.free(_as_runs(cut.tables), metadata=True)
    blocks = max(0, inode.stat.blocks - (len(cut.data) + len(cut.tables)) * (size // SECTOR))
    host.write_inode(ino, patch_inode(host.read_inode(ino), i_block=i_block, i_blocks=blocks))
    if zero_rest:
        kept = read_block_map(
            host.device, i_block, block_size=size, first=host.superblock.first_data_block,
            end=host.superblock.blocks_count, wanted=keep, where=f"inode {ino}",
        ).extents  # fmt: skip
        if len(kept) and int(kept[-1, 0] + kept[-1, 2]) == keep:
            block = int(kept[-1, 1] + kept[-1, 2]) - 1
            data = host.device.read(block * size, size)
            # Through the journal: in place it would be lost if the cut never happens.
            host.write(block, data[: inode.stat.size % size].ljust(size, b"\0"))


class _Cut:
    """The blocks a file loses."""

    def __init__(self, host: OrphanHost, ino: int) -> None:
        self.host = host
        self.where = f"inode {ino}"
        self.data: list[int] = []
        self.tables: list[int] = []
        self.seen: set[int] = set()

    def pointers(self, block: int, level: int, keep: int) -> bool:
        """Cut what the pointer block maps to its first ``keep`` blocks of data; whether the block itself stays."""
        superblock = self.host.superblock
        if not superblock.first_data_block <= block < superblock.blocks_count or block in self.seen:
            raise CorruptError(self.where, "pointer block", block, "a block of the filesystem that is used once")
        self.seen.add(block)
        before = np.frombuffer(self.host.read(block), "<u4")
        after = before.copy()
        span = len(before) ** (level - 1)
        for index in np.flatnonzero(before).tolist():
            inside = keep - index * span
            if inside >= span:
                continue
            if level == 1:
                self.data.append(int(before[index]))
                after[index] = 0
                if len(self.data) > superblock.blocks_count:
                    raise CorruptError(self.where, "block map", "more blocks than there are", f"<= {superblock.blocks_count}")
            elif not self.pointers(int(before[index]), level - 1, inside):
                after[index] = 0
        if not after.any():
            self.tables.append(block)
            return False
        if (after != before).any():
            self.host.write(block, after.tobytes())
        return True


def _as_runs(blocks: list[int]) -> list[Run]:
    runs: list[Run] = []
    for block in sorted(blocks):
        if runs and runs[-1][0] + runs[-1][1] == block:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return runs


def _has_map(host: OrphanHost, inode: Inode) -> bool:
    check_map_flags(inode.stat.flags, f"inode {inode.stat.ino}")
    return has_block_map(inode, host.superblock.block_size)


def _map_end(host: OrphanHost, inode: Inode) -> int:
    """The block behind the last one an inode has."""
    extents = _whole_map(host, inode).extents
    return int(extents[-1, 0] + extents[-1, 2]) if len(extents) else 0


def _whole_map(host: OrphanHost, inode: Inode) -> BlockMap:
    superblock = host.superblock
    return read_block_map(
        host.device,
        inode.i_block,
        block_size=superblock.block_size,
        first=superblock.first_data_block,
        end=superblock.blocks_count,
        wanted=map_limit(superblock.block_size),
        where=f"inode {inode.stat.ino}",
    )


def _free_all(host: OrphanHost, inode: Inode) -> None:
    found = _whole_map(host, inode)
    data = [(row[1], row[2]) for row in found.extents.tolist()]
    # A directory's blocks, and a target's, may lie in the log.
    host.free(data, metadata=not inode.stat.is_file)
    host.free(_as_runs(found.indirect), metadata=True)


def release_attributes(host: OrphanHost, block: int, ino: int) -> None:
    """Give up one inode's share of an attribute block; the last one frees it. CorruptError if it is none."""
    superblock = host.superblock
    if not superblock.first_data_block <= block < superblock.blocks_count:
        want = f"a block from {superblock.first_data_block} to {superblock.blocks_count - 1}"
        raise CorruptError(f"inode {ino}", "i_file_acl", block, want)
    data = bytearray(host.read(block))
    header = XATTR_HEADER.view(data)
    if header["h_magic"][0] != XATTR_MAGIC:
        raise CorruptError(f"inode {ino}", "i_file_acl", block, "an attribute block")
    shares = int(header["h_refcount"][0])
    if shares <= 1:
        host.free([(block, 1)], metadata=True)
        return
    header["h_refcount"] = shares - 1
    host.write(block, bytes(data))
