"""Journal (JBD): its superblock, its blocks, and the changes a replay of its log makes.

A log holds transactions one after the other: descriptor blocks, which name filesystem blocks and are followed by
their new content; revoke blocks, which name blocks whose older content in the log is void; and a commit block. A
transaction without its commit block is ignored. Source: Linux ``fs/jbd2/recovery.c`` (the three passes),
``fs/jbd2/journal.c`` (the checks of the superblock), ``include/linux/jbd2.h``.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ..constants import JBD_MAGIC, S_IFMT, S_IFREG
from ..device.base import BlockDevice
from ..errors import CorruptError, UnsupportedError
from ..format.block_map import Extents, map_limit, read_inode_map
from ..format.group_desc import Groups
from ..format.inode import Inode, parse_inode
from ..format.inode_table import inode_offset
from ..format.jbd_schema import JOURNAL_HEADER, JOURNAL_REVOKE, JOURNAL_SUPERBLOCK, JOURNAL_TAG
from ..format.superblock import Superblock
from ..format.violation import Violation

if TYPE_CHECKING:
    from ..format.layout_columns import Table

__all__ = [
    "Journal",
    "Replay",
    "check_journal_features",
    "journal_extents",
    "journal_violations",
    "parse_journal",
    "read_journal",
    "scan_log",
    "sequence_after",
]

DESCRIPTOR, COMMIT, SUPERBLOCK_V1, SUPERBLOCK_V2, REVOKE = 1, 2, 3, 4, 5
TAG_ESCAPE, TAG_SAME_UUID, TAG_LAST = 1, 2, 8
UUID_SIZE = 16
FEATURE_REVOKE = 1
_INCOMPAT_NAMES = {
    2: "journal_64bit",
    4: "journal_async_commit",
    8: "journal_checksum_v2",
    16: "journal_checksum_v3",
    32: "journal_fast_commit",
}
_WRAP = 1 << 32


def sequence_after(sequence: int, steps: int = 1) -> int:
    """Return the sequence number ``steps`` later: 32 bits, wrapping to 0."""
    return (sequence + steps) % _WRAP


class Journal(NamedTuple):
    """Internal journal. ``extents``: (journal block, filesystem block, count), without holes.

    Journal block 0 holds the superblock ``raw`` (1024 bytes); blocks ``first`` to maxlen - 1 are the log. ``start`` is the
    block where the log begins (0: empty) with transaction ``sequence``. ``version`` is 1 or 2.
    """

    block_size: int
    extents: Extents
    first: int
    start: int
    sequence: int
    errno: int
    version: int
    raw: bytes

    @property
    def maxlen(self) -> int:
        return self.extents.blocks

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Runs (first block, count) of the filesystem's blocks that it has, ascending."""
        return sorted((block, count) for _, block, count in self.extents)

    def offset(self, position: int) -> int:
        """Return the byte offset in the image of journal block ``position``. Raises IndexError behind the last."""
        block = self.extents.find(position)
        if block is None:
            raise IndexError(f"journal block {position}")
        return block * self.block_size

    def wrapped(self, position: int) -> int:
        """Return where a position of the log is: behind its end the log goes on at ``first``."""
        return self.first + (position - self.first) % (self.maxlen - self.first)

    def log_runs(self, position: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield the runs (first block, count) of filesystem blocks in which ``count`` blocks of the log lie, in their order.

        ``position``: the journal block of the first. The runs have gaps between them where indirect blocks are.
        """
        behind = max(position + count - self.maxlen, 0)
        for low, high in ((position, position + count - behind), (self.first, self.first + behind)):
            for _, block, length in self.extents.cut(low, high):
                yield block, length


class Replay:
    """Changes a log makes: ``blocks`` maps a filesystem block to the journal block that holds its new content.

    ``escaped`` are the blocks whose content begins with the journal's magic, stored as zeros. The next transaction written
    gets number ``next_sequence``. ``outside``: blocks outside of the filesystem, whose content was left out.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.blocks: dict[int, int] = {}
        self.escaped: set[int] = set()
        self.transactions = 0
        self.next_sequence = 0
        self.outside: list[int] = []

    def load(self, device: BlockDevice, block: int) -> bytes:
        """Return the new content of ``block``, one of ``blocks``."""
        size = self.journal.block_size
        data = device.read(self.journal.offset(self.blocks[block]), size)
        return JBD_MAGIC.to_bytes(4, "big") + data[4:] if block in self.escaped else data


def read_journal(device: BlockDevice, superblock: Superblock, groups: Groups | Table) -> Journal:
    """Read the journal of a filesystem that has one.

    Raises UnsupportedError for a journal on another device or with features that ext3 does not have, CorruptError if
    its inode or superblock is damaged.
    """
    ino = superblock.journal_ino
    if not ino:
        raise UnsupportedError(["external_journal"], hint="the journal is on another device")
    if ino > superblock.inodes_count:
        raise CorruptError("superblock", "s_journal_inum", ino, f"<= {superblock.inodes_count}")
    inode = parse_inode(device.read(inode_offset(superblock, groups, ino), superblock.inode_size), ino)
    extents = journal_extents(device, superblock, inode)
    raw = device.read(extents[0][1] * superblock.block_size, JOURNAL_SUPERBLOCK.size)
    for violation in journal_violations(raw, superblock.block_size, extents.blocks):
        if violation.field in _LENGTHS:
            check_journal_features(raw)  # another format may have other lengths
        raise violation.error
    check_journal_features(raw)
    return parse_journal(raw, extents)


def parse_journal(raw: bytes, extents: Extents) -> Journal:
    """Return the journal whose superblock is ``raw``, one without violations, in the file of these blocks."""
    fields = JOURNAL_SUPERBLOCK.record(raw)
    return Journal(
        block_size=fields["s_blocksize"],
        extents=Extents(extents.cut(0, fields["s_maxlen"])),
        first=fields["s_first"],
        start=fields["s_start"],
        sequence=fields["s_sequence"],
        errno=fields["s_errno"],
        version=1 if fields["h_blocktype"] == SUPERBLOCK_V1 else 2,
        raw=raw,
    )


_LENGTHS = ("s_maxlen", "s_first", "s_start")


def journal_violations(raw: bytes, block_size: int, blocks: int) -> Iterator[Violation]:
    """Yield the violations of a journal superblock, in a journal file of so many blocks. Ends at one that voids the rest."""
    fields = JOURNAL_SUPERBLOCK.record(raw)

    def wrong(field: str, want: object, got: object = None) -> Violation:
        return Violation("journal superblock", field, fields[field] if got is None else got, want)

    if fields["h_magic"] != JBD_MAGIC:
        yield wrong("h_magic", f"{JBD_MAGIC:#x}", f"{fields['h_magic']:#x}")
        return
    if fields["h_blocktype"] not in (SUPERBLOCK_V1, SUPERBLOCK_V2):
        yield wrong("h_blocktype", "3 or 4")
        return
    if fields["s_blocksize"] != block_size:
        yield wrong("s_blocksize", block_size)
    maxlen, first, start = fields["s_maxlen"], fields["s_first"], fields["s_start"]
    if not 3 <= maxlen <= blocks:
        yield wrong("s_maxlen", f"from 3 to {blocks}, the blocks of its inode")
    if not 1 <= first <= maxlen - 2:
        yield wrong("s_first", f"from 1 to {maxlen - 2}")
    if start and not first <= start < maxlen:
        yield wrong("s_start", f"0, or from {first} to {maxlen - 1}")


def check_journal_features(raw: bytes) -> None:
    """Raise UnsupportedError for features in a journal superblock that ext3 does not have."""
    fields = JOURNAL_SUPERBLOCK.record(raw)
    if fields["h_blocktype"] != SUPERBLOCK_V2:
        return
    incompat, ro_compat = fields["s_feature_incompat"], fields["s_feature_ro_compat"]
    strange = [bit for bit in range(32) if incompat >> bit & 1 and 1 << bit != FEATURE_REVOKE]
    names = [_INCOMPAT_NAMES.get(1 << bit, f"journal_incompat_{bit}") for bit in strange]
    names += [f"journal_ro_compat_{bit}" for bit in range(32) if ro_compat >> bit & 1]
    if names:
        raise UnsupportedError(names, hint="e2fsck -fy plays it back; tune2fs -O ^has_journal, then -j, makes a plain one")


def journal_extents(device: BlockDevice, superblock: Superblock, inode: Inode) -> Extents:
    """Return the extents of a journal file. Raises CorruptError if the inode is no journal's, or has a hole."""
    where = f"journal inode {inode.stat.ino}"
    if inode.stat.mode & S_IFMT != S_IFREG:
        raise CorruptError(where, "i_mode", f"{inode.stat.mode:#o}", "a regular file")
    if inode.stat.links == 0:
        raise CorruptError(where, "i_links_count", 0, 1)
    count = inode.stat.size // superblock.block_size
    most = min(superblock.blocks_count, map_limit(superblock.block_size))
    if not 3 <= count <= most:
        raise CorruptError(where, "i_size", inode.stat.size, f"from 3 to {most} blocks")
    extents = read_inode_map(device, superblock, inode, count, where=where).extents
    if extents.blocks != count:
        raise CorruptError(where, "block map", f"{count - extents.blocks} holes", "none")
    runs = sorted((block, length) for _, block, length in extents)
    if any(sum(one) > other[0] for one, other in pairwise(runs)):
        raise CorruptError(where, "block map", "a block that is used twice", "each used once")
    return extents


class _Open:
    """Transaction being read, before its commit block."""

    def __init__(self) -> None:
        self.tags: list[tuple[int, int, int]] = []
        self.revoked: list[int] = []
        self.problem: CorruptError | None = None


def scan_log(device: BlockDevice, journal: Journal, *, blocks_count: int, leave_out: bool = False) -> Replay:
    """Collect the changes of the log's committed transactions, on a filesystem of ``blocks_count`` blocks.

    No block of the log is read twice, so the scan ends whatever the log holds. Raises CorruptError if a committed
    transaction names blocks outside the filesystem (unless they are to be left out) or inside the journal, or holds a damaged
    revoke block.
    """
    replay = Replay(journal)
    sequence = journal.sequence
    running = _Open()
    writes: list[tuple[int, int, int, int]] = []
    revoked: dict[int, int] = {}
    position, left = journal.start, journal.maxlen - journal.first
    size = journal.block_size
    while position and left > 0:
        data = device.read(journal.offset(position), size)
        magic, kind, found = JOURNAL_HEADER.packer.unpack_from(data)
        if magic != JBD_MAGIC or found != sequence:
            break
        taken = 1
        if kind == DESCRIPTOR:
            for block, flags in _tags(data):
                running.tags.append((block, journal.wrapped(position + taken), flags))
                taken += 1
                if taken > left:
                    break
        elif kind == REVOKE:
            _take_revoke(data, position, running)
        elif kind == COMMIT:
            if running.problem:
                raise running.problem
            writes += [(sequence, *tag) for tag in running.tags]
            revoked.update(dict.fromkeys(running.revoked, sequence))
            replay.transactions += 1
            running = _Open()
            sequence = sequence_after(sequence)
        else:
            break
        left -= taken
        position = journal.wrapped(position + taken)
    for number, block, at, flags in writes:
        # Void if the transaction that revoked it is this one or a later one (sequence numbers wrap around).
        if block in revoked and not 0 < (number - revoked[block]) % _WRAP < _WRAP // 2:
            continue
        replay.blocks[block] = at
        (replay.escaped.add if flags & TAG_ESCAPE else replay.escaped.discard)(block)
    if leave_out:
        replay.outside = sorted(block for block in replay.blocks if block >= blocks_count)
        for block in replay.outside:
            del replay.blocks[block]
    _check_targets(journal, replay.blocks, blocks_count)
    # One number more than used: blocks of a transaction without its commit block may still be there.
    replay.next_sequence = sequence_after(sequence)
    return replay


def _tags(data: bytes) -> list[tuple[int, int]]:
    """Return (block, flags) of each tag of a descriptor block."""
    tags = []
    at = JOURNAL_HEADER.size
    while at + JOURNAL_TAG.size <= len(data):
        block, _, flags = JOURNAL_TAG.packer.unpack_from(data, at)
        tags.append((block, flags))
        at += JOURNAL_TAG.size
        if not flags & TAG_SAME_UUID:
            at += UUID_SIZE
        if flags & TAG_LAST:
            break
    return tags


def _take_revoke(data: bytes, position: int, running: _Open) -> None:
    _, _, _, count = JOURNAL_REVOKE.packer.unpack_from(data)
    if count > len(data):
        running.problem = CorruptError(f"journal block {position}", "r_count", count, f"<= {len(data)}")
        return
    numbers = max(0, count - JOURNAL_REVOKE.size) // 4
    running.revoked += struct.unpack_from(f">{numbers}I", data, JOURNAL_REVOKE.size)


def _check_targets(journal: Journal, blocks: dict[int, int], blocks_count: int) -> None:
    for block, position in blocks.items():
        if block >= blocks_count:
            raise CorruptError(f"journal block {position}", "t_blocknr", block, f"< {blocks_count}")
    runs = journal.runs
    starts = [first for first, _ in runs]
    for block, position in blocks.items():
        at = bisect_right(starts, block) - 1
        if at >= 0 and block < sum(runs[at]):
            raise CorruptError(f"journal block {position}", "t_blocknr", block, "outside the journal")
