"""Hash index of a directory: its blocks read, checked, searched and packed. A whole index planned: ``htree_columns``.

Block 0 is the root (dx_root): ``.`` and ``..``, then entries (dx_entry), each a hash and the block that holds the names from
that hash on. With one more level the root leads to nodes (dx_node), and these to leaves: ordinary directory blocks, in which
all names are. So an index that contradicts the format is odd, not fatal: a search of all blocks finds what is there. Source:
Linux ``fs/ext4/namei.c`` (dx_probe, ext4_htree_next_block, dx_insert_block), e2fsprogs ``e2fsck/pass2.c`` (parse_int_node)
and ``e2fsck/rehash.c``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import gt
from typing import NamedTuple

from ..constants import HashVersion
from .dirent_block import DOT_REC_LEN, DOTS_SIZE
from .schema import DIRENT, DX_COUNTLIMIT, DX_ENTRY, DX_ROOT_INFO
from .violation import Violation

__all__ = [
    "DxFrame",
    "DxNode",
    "OddIndexError",
    "check_leaf",
    "leaves_of",
    "node_limit",
    "node_violations",
    "pack_node",
    "pack_root",
    "probe",
    "read_node",
    "read_root_info",
    "root_limit",
    "root_violations",
]

ROOT_HEAD = DOTS_SIZE + DX_ROOT_INFO.size
NODE_HEAD = DIRENT.size
BLOCK_MASK = 0x0FFFFFFF
"""Mask of an entry's block number: the upper bits are reserved."""
MAX_LEVELS = 1
"""Most levels of nodes below the root; more would need large_dir."""


class OddIndexError(Exception):
    """The index violates the format; names are to be searched without it."""


# -- read ----------------------------------------------------------------------------------------------------------


class DxNode(NamedTuple):
    """Root or node: its entries, from byte ``start`` of ``data``, logical block ``block``. ``hashes[0]`` counts as 0."""

    block: int
    data: bytes
    start: int
    hashes: list[int]
    blocks: list[int]

    @property
    def full(self) -> bool:
        return len(self.hashes) >= (len(self.data) - self.start) // DX_ENTRY.size

    def slot(self, number: int) -> int:
        """Return the entry whose leaf or node covers this hash."""
        return bisect_right(self.hashes, number, 1) - 1

    def with_entry(self, slot: int, number: int, block: int) -> tuple[list[int], list[int]]:
        """Return hashes and blocks with an entry inserted at ``slot``."""
        return (
            [*self.hashes[:slot], number, *self.hashes[slot:]],
            [*self.blocks[:slot], block, *self.blocks[slot:]],
        )

    def packed(self, hashes: Sequence[int], blocks: Sequence[int]) -> bytes:
        """Return the block with other entries."""
        return self.data[: self.start] + _pack_entries(hashes, blocks, len(self.data) - self.start)

    def inserted(self, slot: int, number: int, block: int) -> bytes:
        """Return the block with an entry inserted at ``slot`` (1 or more)."""
        at = self.start + slot * DX_ENTRY.size
        end = self.start + len(self.hashes) * DX_ENTRY.size
        changed = bytearray(self.data)
        changed[at + DX_ENTRY.size : end + DX_ENTRY.size] = self.data[at:end]
        DX_ENTRY.packer.pack_into(changed, at, number, block)
        limit = (len(changed) - self.start) // DX_ENTRY.size
        DX_COUNTLIMIT.packer.pack_into(changed, self.start, limit, len(self.hashes) + 1)
        return bytes(changed)


def root_limit(block_size: int) -> int:
    """Return the most entries of a root."""
    return (block_size - ROOT_HEAD) // DX_ENTRY.size


def node_limit(block_size: int) -> int:
    """Return the most entries of a node."""
    return (block_size - NODE_HEAD) // DX_ENTRY.size


def root_violations(data: bytes) -> Iterator[Violation]:
    """Yield what is wrong with the head of an index in a directory's block 0. Ends at names where it should be."""
    for at, want in ((0, DOT_REC_LEN), (DOT_REC_LEN, len(data) - DOT_REC_LEN)):
        _, rec_len, _, _ = DIRENT.packer.unpack_from(data, at)
        if rec_len != want:
            yield Violation(f"index root at byte {at}", "rec_len", rec_len, want)
            return
    zero, version, length, levels, flags = DX_ROOT_INFO.packer.unpack_from(data, DOTS_SIZE)
    if zero:
        yield Violation("index root", "reserved_zero", zero, 0)
    if length != DX_ROOT_INFO.size:
        yield Violation("index root", "info_length", length, DX_ROOT_INFO.size)
    if flags & 1:
        yield Violation("index root", "unused_flags", flags, flags & ~1)
    if version > HashVersion.TEA:
        yield Violation("index root", "hash_version", version, f"<= {HashVersion.TEA}")
    if levels > MAX_LEVELS:
        yield Violation("index root", "indirect_levels", levels, f"<= {MAX_LEVELS}")


def read_root_info(data: bytes) -> tuple[int, int]:
    """Return (hash version, levels of nodes) of a directory's block 0. Raise OddIndexError if it is not an index root."""
    for violation in root_violations(data):
        raise OddIndexError(str(violation))
    _, version, _, levels, _ = DX_ROOT_INFO.packer.unpack_from(data, DOTS_SIZE)
    return version, levels


def _place(block: int, size: int) -> tuple[int, int]:
    """Return (byte where the entries of a root, block 0, or a node begin, the most of them)."""
    return (NODE_HEAD, node_limit(size)) if block else (ROOT_HEAD, root_limit(size))


def node_violations(data: bytes, block: int, *, blocks: int) -> Iterator[Violation]:
    """Yield what is wrong with the entries of a root or node: limit and count, then hashes, then blocks.

    Arguments as those of ``read_node``. Ends at a head or count that says nothing of the entries.
    """
    where = f"index block {block}"
    start, right_limit = _place(block, len(data))
    ino, rec_len, _, _ = DIRENT.packer.unpack_from(data, 0)
    if block and (ino or rec_len != len(data)):
        yield Violation(where, "inode, rec_len", f"{ino}, {rec_len}", f"0, {len(data)}")
        return
    limit, count = DX_COUNTLIMIT.packer.unpack_from(data, start)
    if limit != right_limit:
        yield Violation(where, "limit", limit, right_limit)
    if not 0 < count <= right_limit:
        yield Violation(where, "count", count, f"from 1 to {right_limit}")
        return
    entries = list(DX_ENTRY.packer.iter_unpack(data[start : start + count * DX_ENTRY.size]))
    before = 0
    for slot, (number, _) in enumerate(entries[1:], 1):
        if number < before:
            yield Violation(where, f"hash of entry {slot}", f"{number:#x}", f">= {before:#x}")
        before = number
    for slot, (_, number) in enumerate(entries):
        if not 1 <= number & BLOCK_MASK < blocks:
            yield Violation(where, f"block of entry {slot}", number & BLOCK_MASK, f"from 1 to {blocks - 1}")


def read_node(data: bytes, block: int, *, blocks: int) -> DxNode:
    """Return the entries in logical block ``block`` (0: the root) of a directory of ``blocks`` blocks.

    OddIndexError for a wrong limit, a count beyond it, hashes that are not ascending, and entries that lead to the root or out
    of the directory.
    """
    start, right_limit = _place(block, len(data))
    ino, rec_len, _, _ = DIRENT.packer.unpack_from(data, 0)
    limit, count = DX_COUNTLIMIT.packer.unpack_from(data, start)
    sound = limit == right_limit and 0 < count <= limit and (not block or (not ino and rec_len == len(data)))
    hashes: list[int] = []
    numbers: list[int] = []
    if sound:
        pairs = DX_ENTRY.packer.iter_unpack(data[start : start + count * DX_ENTRY.size])
        hashes, numbers = map(list, zip(*pairs, strict=True))
        hashes[0] = 0
        numbers = [number & BLOCK_MASK for number in numbers]
        sound = not any(map(gt, hashes, hashes[1:])) and min(numbers) >= 1 and max(numbers) < blocks
    for violation in () if sound else node_violations(data, block, blocks=blocks):
        raise OddIndexError(str(violation))
    return DxNode(block, data, start, hashes, numbers)


# -- search --------------------------------------------------------------------------------------------------------


class DxFrame(NamedTuple):
    """Step of the path to a leaf: a node, the slot taken, and its block."""

    node: DxNode
    slot: int
    child: int


def probe(number: int, levels: int, node_at: Callable[[int], DxNode]) -> list[DxFrame]:
    """Return the path to the leaf of a hash; the last frame's child is the leaf. ``node_at`` reads root and nodes."""
    frames = []
    child = 0
    for _ in range(levels + 1):
        node = node_at(child)
        slot = node.slot(number)
        child = node.blocks[slot]
        frames.append(DxFrame(node, slot, child))
    return frames


def leaves_of(frames: Sequence[DxFrame], number: int, node_at: Callable[[int], DxNode], *, blocks: int) -> Iterable[int]:
    """Return the leaves that may hold a hash: that of ``frames``, and the following ones, if the lowest bit of their entries
    marks them as beginning with the same hash.

    Raise OddIndexError if there are more than ``blocks``, those of the directory.
    """
    node, slot, leaf = frames[-1]
    if slot + 1 < len(node.hashes) and node.hashes[slot + 1] != number | 1:
        return (leaf,)  # nearly always
    return chain((leaf,), _bounded(_continued(frames, number | 1, node_at), blocks))


def check_leaf(block: bytes, hashes: Iterable[int], frames: Sequence[DxFrame]) -> None:
    """Check the leaf of ``frames``, in which a name was not found. ``hashes``: those of all names in it.

    Raise OddIndexError if one belongs to another leaf, or the block is a node: then the index does not prove that the name
    does not exist. Names hidden in the neighbouring leaf by an entry with a wrong hash are not detected.
    """
    low, high = 0, 1 << 32
    for node, slot, _ in frames:
        low = max(low, node.hashes[slot] & ~1)
        if slot + 1 < len(node.hashes):
            high = min(high, node.hashes[slot + 1])
    empty = True
    for number in hashes:
        empty = False
        if not low <= number < high:
            raise OddIndexError(f"a name in block {frames[-1].child} belongs elsewhere")
    if empty and DX_COUNTLIMIT.packer.unpack_from(block, NODE_HEAD)[0] == node_limit(len(block)):
        raise OddIndexError(f"block {frames[-1].child} is a node")


def _bounded(leaves: Iterator[int], blocks: int) -> Iterator[int]:
    for found, leaf in enumerate(leaves, 1):
        if found >= blocks:
            raise OddIndexError("more leaves than blocks")
        yield leaf


def _continued(frames: Sequence[DxFrame], wanted: int, node_at: Callable[[int], DxNode]) -> Iterator[int]:
    *above, (node, slot, _) = frames
    for at in range(slot + 1, len(node.hashes)):
        if node.hashes[at] != wanted:
            return
        yield node.blocks[at]
    if not above:
        return
    root, slot, _ = above[0]
    for following in range(slot + 1, len(root.hashes)):
        if root.hashes[following] != wanted:
            return
        node = node_at(root.blocks[following])
        yield node.blocks[0]
        for at in range(1, len(node.hashes)):
            if node.hashes[at] != wanted:
                return
            yield node.blocks[at]


# -- pack ----------------------------------------------------------------------------------------------------------


def _pack_entries(hashes: Sequence[int], blocks: Sequence[int], size: int) -> bytes:
    """Pack entries in ``size`` bytes. Limit and count take the hash of slot 0, which covers all hashes below slot 1."""
    raw = bytearray(b"".join(map(DX_ENTRY.packer.pack, hashes, blocks)))
    DX_COUNTLIMIT.packer.pack_into(raw, 0, size // DX_ENTRY.size, len(hashes))
    return bytes(raw).ljust(size, b"\0")


def pack_root(first_block: bytes, version: int, levels: int, hashes: Sequence[int], blocks: Sequence[int]) -> bytes:
    """Pack a root. ``first_block`` begins with ``.``, of 12 bytes, and ``..``, which reaches to its end."""
    info = DX_ROOT_INFO.packer.pack(0, version, DX_ROOT_INFO.size, levels, 0)
    return first_block[:DOTS_SIZE] + info + _pack_entries(hashes, blocks, len(first_block) - ROOT_HEAD)


def pack_node(hashes: Sequence[int], blocks: Sequence[int], block_size: int) -> bytes:
    """Pack a node."""
    return DIRENT.packer.pack(0, block_size, 0, 0) + _pack_entries(hashes, blocks, block_size - NODE_HEAD)
