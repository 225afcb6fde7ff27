"""Read-only backend of a FUSE server: any tree of files.

Open files and listings are kept by node in small caches, so that the kernel need not open files and directories: it reads them
by node. What it has read it keeps itself, for the tree never changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from threading import Lock
from typing import Generic, TypeVar

from ...vfs.file_tree import FileTree, OpenFile, Row, Stat
from .backend import Attributes, Entry, FilesystemTotals, ListedName, format_bits, is_shown_xattr
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
"""Bytes of a directory, some thousand names, from which on its listing is kept without Stats, which take most of the memory."""
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
        self._listings: _Recent[int, _Listed[N]] = _Recent(LISTED_NAMES, size=lambda listed: len(listed.names) + 1)
        self._xattrs: _Recent[int, Mapping[bytes, bytes]] = _Recent(XATTR_SETS)

    @property
    def valid_seconds(self) -> int:
        return VALID_SECONDS

    def lookup(self, directory: int, name: bytes, /) -> Entry | None:
        listed = self._listings.peek(directory)
        if listed is None:
            above = self._numbers.node(directory)
            if self.tree.stat(above).size < SMALL_DIRECTORY:
                with suppress(OSError):  # the name may be before what is damaged
                    listed = self._listing(directory)
            if listed is None:
                node = self.tree.find_name(above, name)
                return None if node is None else self._entry(node, self.tree.stat(node))
        position = listed.positions.get(name)
        if position is None:
            return None
        stat = self._row_stat(listed.rows[position])
        if isinstance(stat, OSError):
            raise stat
        return self._entry(listed.rows[position].node, stat)

    def forget(self, node: int, count: int, /) -> None:
        if self._numbers.forget(node, count):
            self._files.drop(node)
            self._listings.drop(node)
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

    def list_directory(self, node: int, /) -> Sequence[ListedName]:
        return self._listing(node).names

    def entry(self, directory: int, listed: ListedName, /) -> Entry | None:
        row = self._listing(directory).rows[listed.position]
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

    def _listing(self, node: int) -> _Listed[N]:
        return self._listings.get(node, lambda: self._scan(node))

    def _scan(self, node: int) -> _Listed[N]:
        directory = self._numbers.node(node)
        (listing,) = self.tree.scan_many([directory], stats=self.tree.stat(directory).size < LARGE_DIRECTORY)
        if listing.problem is not None:
            raise listing.problem
        names = [
            ListedName(row.name, self._ino(self._row_stat(row)), format_bits(row.file_type), index)
            for index, row in enumerate(listing.rows)
        ]
        return _Listed(names, listing.rows)

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


class _Listed(Generic[N]):
    """Directory: the names as the kernel gets them, and its rows; ``positions`` of names among them."""

    def __init__(self, names: Sequence[ListedName], rows: Sequence[Row[N]]) -> None:
        self.names = names
        self.rows = rows

    @cached_property
    def positions(self) -> Mapping[bytes, int]:
        return {one.name: one.position for one in self.names}


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
