"""Many directory blocks judged by columns: which are plainly sound, and what sound ones leave in the context.

The judge is stricter than the format: a block that it does not pass may be sound, and ``directory_entries`` decides. Source of
the rules: e2fsprogs ``e2fsck/pass2.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from ..constants import FILE_TYPE_OF_FORMAT, ROOT_INO, S_IFDIR, FileType
from ..format.dirent_columns import read_dirent_columns
from ..format.dirhash_columns import hash_columns
from ..format.htree import NODE_HEAD, node_limit
from ..format.schema import DIRENT
from .context import Context
from .directory_index import IndexChecks

__all__ = ["Batch"]

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DIRECTORY = S_IFDIR >> 12

_REC_LEN, _NAME_LEN, _FILE_TYPE = map(DIRENT.offset_of, ("rec_len", "name_len", "file_type"))
_TYPES = np.zeros(16, np.uint8)
for _form, _file_type in FILE_TYPE_OF_FORMAT.items():
    _TYPES[_form] = _file_type


class Batch:
    """Blocks ``logical`` of the directories ``ino``, end to end in ``raw`` with 12 bytes behind them.

    Rows are taken in order: those that ``doubtful`` or ``stop_before_second_link`` hold back are judged one by one in between,
    the others are accepted.
    """

    def __init__(self, context: Context, ino: Numbers, logical: Numbers, raw: bytes) -> None:
        self._context = context
        self._ino, self._logical = ino, logical
        self._raw = raw
        self._data = np.frombuffer(raw, np.uint8)
        superblock = context.superblock
        self._size = superblock.block_size
        self._first = np.flatnonzero(logical == 0)
        columns = read_dirent_columns(raw, logical == 0, block_size=self._size, inodes=superblock.inodes_count)
        self._names = columns.names
        self._damaged = columns.damaged
        self._file_types = columns.file_types
        self._child = columns.inodes.astype(np.int64)
        self._row = columns.at // self._size
        form = context.census.mode[self._child] >> 12
        self._is_dir = form == DIRECTORY
        self._wanted = _TYPES[form] if superblock.has_filetype else np.zeros(len(form), np.uint8)
        self._links: Numbers = np.zeros(0, np.int64)
        """Entries that lead to directories."""
        self._dotdot: Numbers = np.zeros(len(ino), np.int64)

    def doubtful(self) -> Flags:
        """Return which rows have to be looked at one by one."""
        context, child = self._context, self._child
        found = np.zeros(len(self._ino), np.bool_)
        found[self._damaged] = True
        bad = (self._file_types != self._wanted) | (context.census.mode[child] == 0)
        bad |= (child < context.superblock.first_ino) | (child == self._ino[self._row])
        if context.bad_inodes:
            marked = np.fromiter(context.bad_inodes, np.int64, len(context.bad_inodes))
            bad |= np.isin(child, marked)
            found |= np.isin(self._ino, marked)
        found[self._row[bad]] = True
        rows = self._first[~found[self._first]]
        found[rows[self._dots_bad(rows)]] = True
        self._links = np.flatnonzero(self._is_dir)
        order = np.argsort(child[self._links], kind="stable")
        ordered = child[self._links][order]
        again = order[1:][ordered[1:] == ordered[:-1]]
        found[self._row[self._links[again]]] = True
        return found

    def _dots_bad(self, rows: Numbers) -> Flags:
        """Return which of the rows, whose ``.`` and ``..`` have their names, have them with other inodes or types."""
        context, words = self._context, self._data.view("<u4")
        superblock = context.superblock
        dot = rows * self._size
        dotdot = dot + self._data.view("<u2")[(dot + _REC_LEN) >> 1]
        above = words[dotdot >> 2].astype(np.int64)
        self._dotdot[rows] = above
        bad = words[dot >> 2] != self._ino[rows]
        bad |= (above != ROOT_INO) & (above < superblock.first_ino)
        bad |= context.census.mode[above] >> 12 != DIRECTORY
        if context.bad_inodes:
            bad |= np.isin(above, np.fromiter(context.bad_inodes, np.int64, len(context.bad_inodes)))
        want = FileType.DIRECTORY if superblock.has_filetype else 0
        found: Flags = bad | (self._data[dot + _FILE_TYPE] != want) | (self._data[dotdot + _FILE_TYPE] != want)
        return found

    def stop_before_second_link(self, row: int, stop: int) -> int:
        """Return the first row from ``row`` to ``stop`` that names a directory which is named already, else ``stop``."""
        low, high = np.searchsorted(self._row[self._links], (row, stop))
        links = self._links[low:high]
        again = np.flatnonzero(self._context.parent[self._child[links]])
        return int(self._row[links[again[0]]]) if len(again) else stop

    def accept(self, row: int, stop: int, indexes: IndexChecks, add_names: Callable[[Numbers, list[bytes]], None]) -> None:
        """Take the rows from ``row`` to ``stop`` as sound: count their names, note parents, give the indexes their hashes."""
        context = self._context
        low, high = np.searchsorted(self._row, (row, stop)).tolist()
        owner = self._ino[self._row[low:high]]
        names = self._names[low:high] if high - low < len(self._names) else self._names
        context.census.add_names(self._child[low:high])
        first, last = np.searchsorted(self._links, (low, high))
        links = self._links[first:last]
        context.parent[self._child[links]] = self._ino[self._row[links]]
        first, last = np.searchsorted(self._first, (row, stop))
        rows = self._first[first:last]
        context.census.names[self._ino[rows]] += 1
        context.dotdot[self._ino[rows]] = self._dotdot[rows]
        add_names(owner, names)
        if len(indexes.directories):
            self._add_to_indexes(row, stop, indexes)

    def _add_to_indexes(self, row: int, stop: int, indexes: IndexChecks) -> None:
        rows = row + np.flatnonzero(np.isin(self._ino[row:stop], indexes.directories))
        if not len(rows):
            return
        for first in rows[self._logical[rows] == 0].tolist():
            if indexes.wants(ino := int(self._ino[first])):
                indexes.add_root(ino, self._block(first))
        rows = rows[self._logical[rows] != 0]
        nodes = self._are_nodes(rows)
        for node in rows[nodes].tolist():
            if indexes.wants(ino := int(self._ino[node])):
                indexes.add_node(ino, int(self._logical[node]), self._block(node))
        leaves = rows[~nodes]
        spans = np.searchsorted(self._row, np.stack([leaves, leaves + 1]))
        filled = spans[0] < spans[1]
        leaves, spans = leaves[filled], spans[:, filled]
        hashed = [indexes.hash_of(ino) for ino in self._ino[leaves].tolist()]
        for function in {id(one): one for one in hashed if one is not None}.values():
            mine = np.array([one is function for one in hashed], np.bool_)
            self._add_leaves(leaves[mine], spans[:, mine], partial(hash_columns, function), indexes)

    def _add_leaves(
        self,
        rows: Numbers,
        spans: Numbers,
        hash_many: Callable[[list[bytes]], npt.NDArray[np.uint32]],
        indexes: IndexChecks,
    ) -> None:
        """Give the lowest and highest hash of the leaves in ``rows``, whose entries are ``spans``, to the indexes."""
        counts = spans[1] - spans[0]
        starts = np.cumsum(counts) - counts
        low, high = int(spans[0, 0]), int(spans[1, -1])
        if high - low == int(counts.sum()):
            names = self._names[low:high]
        else:
            names = [name for begin, end in spans.T.tolist() for name in self._names[begin:end]]
        hashes = hash_many(names)
        lowest, highest = np.minimum.reduceat(hashes, starts), np.maximum.reduceat(hashes, starts)
        columns = (self._ino[rows], self._logical[rows], lowest, highest)
        for ino, logical, least, most in zip(*(column.tolist() for column in columns), strict=True):
            indexes.add_leaf(ino, logical, least, most)

    def _are_nodes(self, rows: Numbers) -> Flags:
        """Return which rows ``directory_index.is_node`` holds for."""
        at = rows * self._size
        words, halves = self._data.view("<u4"), self._data.view("<u2")
        found = (words[at >> 2] == 0) & (halves[(at + _REC_LEN) >> 1] == self._size) & (self._data[at + _NAME_LEN] == 0)
        found &= halves[(at + NODE_HEAD) >> 1] == node_limit(self._size)
        nodes: Flags = found
        return nodes

    def _block(self, row: int) -> bytes:
        return self._raw[row * self._size : (row + 1) * self._size]
