"""Read-only backend of a FUSE server: any tree of files.

Open files and listings are kept by node in small caches, so that the kernel need not open files and directories: it reads them
by node. What it has read it keeps itself, for the tree never changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

from ...vfs.file_tree import FileTree, OpenFile, Row, Stat
from .backend import Attributes, Entry, FilesystemTotals, ListedName, Names, format_bits, is_shown_xattr
from .node_numbers import NodeNumbers
from .protocol import encode_device

__all__ = ["TreeBackend"]

N = TypeVar("N", bound=Hashable)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
VALID_SECONDS = 86_400
OPEN_FILES, LISTED_NAMES, XATTR_SETS = 64, 4096, 256
"""Most files, names and sets of xattrs that are kept; of the names of directories also all of the last one."""
SMALL_DIRECTORY = 8192
"""Bytes of a directory, some hundred names, up to which it is read as a whole if one of them is looked up."""
LARGE_DIRECTORY = 65_536
"""Bytes of a directory, some thousand names, from which on its listing is kept without Stats, which take most of the memory.

The last one is kept until another large directory is listed: the kernel keeps the names, and may look all of them up later.
"""
BLOCK_SIZE = 4096
LAYER_SHIFT = 48
"""Inode numbers of different devices (layers of a union) are told apart by their upper bits."""
UNKNOWN_INODE = 0xFFFF_FFFF
"""Number of an inode that cannot be read: the C library leaves out names with 0."""


class TreeBackend(Generic[N]):
    """Tree as a backend. ``owner``: the user and group that all files belong to; None: those they have.

    Calls may come from several threads.
    """

    def __init__(self, tree: FileTree[N], *, owner: tuple[int, int] | None = None) -> None:
        self.tree = tree
        self.owner = owner
        self._numbers: NodeNumbers[N] = NodeNumbers(tree.root)
        self._files: _Recent[int, OpenFile] = _Recent(OPEN_FILES)
        self._listings: _Recent[int, Sequence[Row[N]]] = _Recent(LISTED_NAMES, size=lambda rows: len(rows) + 1)
        self._large: _Recent[int, Sequence[Row[N]]] = _Recent(1)
        self._xattrs: _Recent[int, Mapping[bytes, bytes]] = _Recent(XATTR_SETS)

    @property
    def valid_seconds(self) -> int:
        return VALID_SECONDS

    def lookup(self, directory: int, name: bytes, /) -> Entry | None:
        rows = self._kept_listing(directory)
        if rows is None:
            above = self._numbers.node(directory)
            if self.tree.stat(above).size < SMALL_DIRECTORY:
                with suppress(OSError):  # the name may be before what is damaged
                    rows = self._listing(directory)
            if rows is None:
                node = self.tree.find_name(above, name)
                return None if node is None else self._entry(node, self.tree.stat(node))
        position = bisect_left(rows, name, key=lambda row: row.name)
        if position == len(rows) or rows[position].name != name:
            return None
        stat = self._row_stat(rows[position])
        if isinstance(stat, OSError):
            raise stat
        return self._entry(rows[position].node, stat)

    def forget(self, node: int, count: int, /) -> None:
        if self._numbers.forget(node, count):
            self._files.drop(node)
            self._listings.drop(node)
            self._large.drop(node)
            self._xattrs.drop(node)

    def attributes(self, node: int, /) -> Attributes:
        return self._attributes(self.tree.stat(self._numbers.node(node)))

    def readlink(self, node: int, /) -> bytes:
        return self.tree.readlink(self._numbers.node(node))

    def read(self, node: int, offset: int, size: int, /) -> bytes:
        return self._file(node).read_at(offset, size)

    def data_ranges(self, node: int, /) -> Sequence[tuple[int, int]]:
        return self._file(node).data_ranges()

    def _file(self, node: int) -> OpenFile:
        return self._files.get(node, lambda: self.tree.open_file(self._numbers.node(node)))

    def list_directory(self, node: int, /) -> Names:
        return _RowNames(self._listing(node), self._listed_name)

    def _listed_name(self, row: Row[N], position: int) -> ListedName:
        return ListedName(row.name, self._ino(self._row_stat(row)), format_bits(row.file_type), position)

    def entry(self, directory: int, listed: ListedName, /) -> Entry | None:
        row = self._listing(directory)[listed.position]
        stat = self._row_stat(row)
        return None if isinstance(stat, OSError) else self._entry(row.node, stat)

    def _row_stat(self, row: Row[N]) -> Stat | OSError:
        """Return the Stat of a row, which is read if the row has none; an error as a value."""
        if row.stat is not None:
            return row.stat
        try:
            return self.tree.stat(row.node)
        except OSError as error:
            return error

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
        return self._xattrs.get(node, lambda: self._shown_xattrs(self._numbers.node(node)))

    def _shown_xattrs(self, node: N) -> Mapping[bytes, bytes]:
        found = self.tree.xattrs(node)
        if self.owner is None:
            return found
        return {name: value for name, value in found.items() if is_shown_xattr(name, self.owner[0])}

    def totals(self) -> FilesystemTotals:
        found = self.tree.statfs()
        blocks = -(-found.total_bytes // BLOCK_SIZE)
        return FilesystemTotals(blocks, 0, 0, found.inodes, 0, BLOCK_SIZE)

    def _kept_listing(self, node: int) -> Sequence[Row[N]] | None:
        found = self._listings.peek(node)
        return self._large.peek(node) if found is None else found

    def _listing(self, node: int) -> Sequence[Row[N]]:
        found = self._kept_listing(node)
        if found is not None:
            return found
        directory = self._numbers.node(node)
        is_large = self.tree.stat(directory).size >= LARGE_DIRECTORY
        kept = self._large if is_large else self._listings
        return kept.get(node, lambda: self._scan(directory, stats=not is_large))

    def _scan(self, directory: N, *, stats: bool) -> Sequence[Row[N]]:
        (listing,) = self.tree.scan_many([directory], stats=stats)
        if listing.problem is not None:
            raise listing.problem
        return listing.rows

    def _entry(self, node: N, stat: Stat) -> Entry:
        return Entry(self._numbers.hand_out(node), 0, self._attributes(stat))

    def _attributes(self, stat: Stat) -> Attributes:
        uid, gid = self.owner or (stat.uid, stat.gid)
        return Attributes(
            self._ino(stat),
            stat.size,
            stat.blocks,
            stat.atime,
            stat.mtime,
            stat.ctime,
            stat.mode,
            stat.links,
            uid,
            gid,
            encode_device(stat.major, stat.minor),
        )

    @staticmethod
    def _ino(stat: Stat | OSError) -> int:
        if isinstance(stat, OSError):
            return UNKNOWN_INODE
        return stat.ino ^ (abs(stat.dev) & 0xFFFF) << LAYER_SHIFT


class _RowNames(Generic[N]):
    """Names of the rows of a directory, each made when it is asked for: all would take as much memory as the rows."""

    def __init__(self, rows: Sequence[Row[N]], named: Callable[[Row[N], int], ListedName]) -> None:
        self._rows = rows
        self._named = named

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> ListedName:
        return self._named(self._rows[index], index)


class _Recent(Generic[K, V]):
    """Values that were asked for last, at most ``limit`` of them; if they have a ``size``, as many as that has room for."""

    def __init__(self, limit: int, *, size: Callable[[V], int] = lambda _: 1) -> None:
        self._limit = limit
        self._size = size
        self._held = 0
        self._lock = Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def peek(self, key: K) -> V | None:
        """Return the value of ``key``; None if it is not here."""
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
            return found

    def get(self, key: K, load: Callable[[], V]) -> V:
        """Return the value of ``key``, which ``load`` gives if it is not here."""
        found = self.peek(key)
        if found is not None:
            return found
        made = load()
        with self._lock:
            self._remove(key)
            self._values[key] = made
            self._held += self._size(made)
            while self._held > self._limit and len(self._values) > 1:
                self._remove(next(iter(self._values)))
        return made

    def drop(self, key: K) -> None:
        with self._lock:
            self._remove(key)

    def _remove(self, key: K) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._held -= self._size(found)
