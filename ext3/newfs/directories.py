"""Directory blocks of a whole tree, with an index for directories of more than one block.

A directory's blocks hold inode numbers and names but no block numbers: they can be counted before allocation and packed
when they are written. Entries of all directories are laid out together in numpy columns; only directories of several blocks
are handled one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..constants import FILE_TYPE_OF_FORMAT, S_IFDIR, FileType, HashVersion
from ..format.dirent_block import DOT_REC_LEN, DOTS_SIZE, empty_block
from ..format.dirent_block_columns import fill_blocks, pack_records, place_records, record_sizes
from ..format.dirhash import DirHash
from ..format.dirhash_columns import hash_columns
from ..format.htree_columns import IndexPlan, plan_index
from .tree import Tree

__all__ = ["DirectoryPlan", "lay_out_directories"]

Array64 = npt.NDArray[np.int64]

LOST_FOUND_BYTES = 16384
"""Size of lost+found (at most its direct blocks), so that repairs need not allocate."""


@dataclass(slots=True)
class _Entries:
    """All entries, sorted by directory: parent node, inode, file type, padded size, name, and position."""

    names: list[bytes]
    inos: Array64
    types: npt.NDArray[np.uint8]
    sizes: Array64
    first: Array64  # of each directory, and the end
    position: Array64  # byte in the blocks
    rec_len: Array64


@dataclass(frozen=True, slots=True)
class DirectoryPlan:
    """Layout of a tree's directories: per directory node ``first`` (its first block, counted over all directories), ``blocks``
    and ``indexed``. ``total``: blocks of all."""

    nodes: Array64
    first: Array64
    blocks: Array64
    indexed: npt.NDArray[np.bool_]
    total: int
    _tree: Tree
    _inos: npt.NDArray[np.uint32]
    _block_size: int
    _entries: _Entries
    _single: npt.NDArray[np.bool_]
    _large: dict[int, tuple[IndexPlan | None, Array64]]
    """Row of a directory of several blocks -> its index, and the first entry of each block."""

    def pack(self) -> npt.NDArray[np.uint8]:
        """Return the blocks of all directories, as bytes."""
        tree, inos, size, entries = self._tree, self._inos, self._block_size, self._entries
        data = np.zeros(self.total * size, np.uint8)
        _place_singles(entries, self._single, self.first, size)
        for row, (index, firsts) in self._large.items():
            low, high = int(entries.first[row]), int(entries.first[row + 1])
            base = int(self.first[row]) * size
            if index is None:
                _place(entries, np.arange(low, high), firsts, base, size, reserve=DOTS_SIZE)
            else:
                node = int(self.nodes[row])
                head = index.pack(int(inos[node]), _parent_ino(tree, inos, node))
                data[base : base + len(head)] = np.frombuffer(head, np.uint8)
                _place(entries, low + index.order, firsts, base + (1 + index.nodes) * size, size, reserve=0)
        pack_records(
            data,
            at=entries.position,
            inodes=entries.inos,
            rec_lens=entries.rec_len,
            file_types=entries.types,
            names=entries.names,
        )
        _write_dots(data, tree, self.nodes, inos, entries, self._single, self.first, self.indexed, size)
        _end_blocks(data, self.nodes, self.first, self.blocks, self._single, tree.lost_found, size)
        return data


def lay_out_directories(tree: Tree, inos: npt.NDArray[np.uint32], block_size: int, seed: tuple[int, ...]) -> DirectoryPlan:
    """Lay out all directories of ``tree`` with these inode numbers (shape (nodes,)) and hash seed."""
    nodes = np.flatnonzero(tree.is_kind(S_IFDIR))
    entries = _collect(tree, nodes, inos)
    content = np.add.reduceat(np.append(entries.sizes, 0), entries.first[:-1]) if len(nodes) else np.zeros(0, np.int64)
    content[entries.first[:-1] == entries.first[1:]] = 0  # reduceat returns the next entry for an empty range
    single = content + DOTS_SIZE <= block_size
    blocks = np.ones(len(nodes), np.int64)
    indexed = np.zeros(len(nodes), bool)
    large: dict[int, tuple[IndexPlan | None, Array64]] = {}
    several = np.flatnonzero(~single).tolist()
    spans = [(int(entries.first[row]), int(entries.first[row + 1])) for row in several]
    hashed_names = [name for low, high in spans for name in entries.names[low:high]]
    hashes = hash_columns(DirHash(HashVersion.HALF_MD4, seed, signed=True), hashed_names)
    hashed = 0
    for row, (low, high) in zip(several, spans, strict=True):
        index = plan_index(hashes[hashed : hashed + high - low], entries.sizes[low:high], block_size)
        hashed += high - low
        if index is None:
            firsts = fill_blocks(entries.sizes[low:high], block_size)
            large[row] = (None, firsts)
            blocks[row] = len(firsts)
        else:
            large[row] = (index, index.leaf_first)
            blocks[row] = index.blocks
            indexed[row] = True
    if tree.lost_found:
        kept = int(np.searchsorted(nodes, tree.lost_found))
        if not indexed[kept]:
            blocks[kept] = max(int(blocks[kept]), min(12, LOST_FOUND_BYTES // block_size))
    first = np.cumsum(blocks) - blocks
    return DirectoryPlan(nodes, first, blocks, indexed, int(blocks.sum()), tree, inos, block_size, entries, single, large)


def _collect(tree: Tree, nodes: Array64, inos: npt.NDArray[np.uint32]) -> _Entries:
    extra_parents = [parent for parent, _, _ in tree.extra_links]
    parents = np.concatenate([tree.nodes["parent"][1:].astype(np.int64), np.array(extra_parents, np.int64)])
    children = np.concatenate([np.arange(1, len(tree)), np.array([node for _, _, node in tree.extra_links], np.int64)])
    order = np.argsort(parents, kind="stable")
    all_names = tree.names[1:] + [name for _, name, _ in tree.extra_links]
    names = [all_names[number] for number in order]
    children = children[order]
    kinds = np.zeros(16, np.uint8)
    for format_bits, file_type in FILE_TYPE_OF_FORMAT.items():
        kinds[format_bits] = file_type
    sizes = record_sizes(np.fromiter(map(len, names), np.int64, len(names)))
    return _Entries(
        names=names,
        inos=inos[children].astype(np.int64),
        types=kinds[(tree.nodes["mode"][children] >> 12) & 15],
        sizes=sizes,
        first=np.append(np.searchsorted(parents[order], nodes), len(names)).astype(np.int64),
        position=np.zeros(len(names), np.int64),
        rec_len=sizes.copy(),
    )


def _place_singles(entries: _Entries, single: npt.NDArray[np.bool_], first: Array64, block_size: int) -> None:
    counts = np.diff(entries.first)
    owner = np.repeat(np.arange(len(counts)), counts)
    chosen = single[owner]
    before = np.cumsum(entries.sizes) - entries.sizes
    starts = np.zeros(len(counts), np.int64)
    starts[counts > 0] = before[entries.first[:-1][counts > 0]]
    offset = DOTS_SIZE + before - starts[owner]
    entries.position[chosen] = (first[owner] * block_size + offset)[chosen]
    last = entries.first[1:][(counts > 0) & single] - 1
    entries.rec_len[last] = block_size - offset[last]


def _place(entries: _Entries, rows: Array64, firsts: Array64, base: int, block_size: int, *, reserve: int) -> None:
    """Put entries ``rows`` into blocks from byte ``base``; block k begins with ``rows[firsts[k]]``."""
    offset, rec_len = place_records(entries.sizes[rows], firsts, block_size, reserve=reserve)
    entries.position[rows] = base + offset
    entries.rec_len[rows] = rec_len


def _parent_ino(tree: Tree, inos: npt.NDArray[np.uint32], node: int) -> int:
    return int(inos[int(tree.nodes["parent"][node])])


def _write_dots(
    data: npt.NDArray[np.uint8],
    tree: Tree,
    nodes: Array64,
    inos: npt.NDArray[np.uint32],
    entries: _Entries,
    single: npt.NDArray[np.bool_],
    first: Array64,
    indexed: npt.NDArray[np.bool_],
    block_size: int,
) -> None:
    rows = np.flatnonzero(~indexed)
    at = first[rows] * block_size
    empty = (entries.first[1:] == entries.first[:-1])[rows]
    parents = tree.nodes["parent"][nodes[rows]]
    for name, owners, place, rec_lens in (
        (b".", nodes[rows], at, np.full(len(rows), DOT_REC_LEN)),
        (b"..", parents, at + DOT_REC_LEN, np.where(empty, block_size - DOT_REC_LEN, DOT_REC_LEN)),
    ):
        pack_records(
            data,
            at=place,
            inodes=inos[owners],
            rec_lens=rec_lens,
            file_types=FileType.DIRECTORY,
            names=[name] * len(rows),
        )


def _end_blocks(
    data: npt.NDArray[np.uint8],
    nodes: Array64,
    first: Array64,
    blocks: Array64,
    single: npt.NDArray[np.bool_],
    lost_found: int,
    block_size: int,
) -> None:
    """Fill the blocks of lost+found behind its entries with one unused record each."""
    if not lost_found:
        return
    row = int(np.searchsorted(nodes, lost_found))
    begin = int(first[row]) + (1 if single[row] else 0)
    unused = np.frombuffer(empty_block(block_size), np.uint8)
    blocks_of_row = data.reshape(-1, block_size)[begin : int(first[row] + blocks[row])]
    blocks_of_row[~blocks_of_row.any(axis=1)] = unused
