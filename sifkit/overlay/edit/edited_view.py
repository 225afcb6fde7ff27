"""EditedView: what a container sees of its layers while the highest one, upper/ of an image, is changed.

Nodes are numbers that stay valid when a file is copied up. A positive one is an inode of the image. A negative one stands for
a name that only lower layers have: two names of one lower file are two files here, as copying up will make them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ext3.edit.filesystem import WritableFilesystem

from ...vfs.file_tree import FileTree, OpenFile, Stat, TreeFile, TreeListing, TreeRow, TreeStatFS
from ...vfs.subtree import Subtree
from ...vfs.union import UnionNode, UnionTree

__all__ = ["EditedView"]


class EditedView:
    """View of ``lower`` layers, the lowest first, below the directory ``upper`` of an image that is open for changes."""

    def __init__(self, filesystem: WritableFilesystem, upper: int, lower: Sequence[FileTree[Any]]) -> None:
        """Raises OSError if the top of a layer cannot be read."""
        self._union = UnionTree([*lower, Subtree(filesystem, upper)])
        self._upper = upper
        self._top = len(lower)
        self._nodes: dict[int, UnionNode] = {upper: self._union.root}
        """Of lower files, and of those of upper/ that have something below."""
        self._places: dict[int, tuple[int, bytes]] = {}
        self._numbers: dict[tuple[int, bytes], int] = {}
        """(directory, name) of a lower file, and its number by these."""
        self._copies: dict[int, int] = {}

    # Layers

    def upper_inode(self, node: int) -> int | None:
        """Return the inode of a file in the image; None if only lower layers have it."""
        return node if node > 0 else self._copies.get(node)

    def place_of(self, node: int) -> tuple[int, bytes]:
        """Return (directory, name) under which a lower file was found."""
        return self._places[node]

    def is_merged(self, node: int) -> bool:
        """Return True if lower layers have something of a file: of a directory names, of a metacopy the content."""
        return len(self._seen(node)) > 1 or self.upper_inode(node) is None

    def is_same(self, one: int, other: int) -> bool:
        """Return True for two names of one file, also of one in a lower layer."""
        if one == other:
            return True
        found, there = self.stat(one), self.stat(other)
        return (found.dev, found.ino) == (there.dev, there.ino)

    def has_lower(self, directory: int, name: bytes) -> bool:
        """Return True if layers below upper/ show ``name`` in a directory wherever upper/ does not hide it."""
        lower = tuple(pair for pair in self._seen(directory) if pair[0] != self._top)
        return bool(lower) and self._union.find_name(lower, name) is not None

    def set_copy(self, node: int, inode: int, *, is_directory: bool) -> None:
        """Record that a lower file was copied up. A directory stays merged."""
        lower = self._nodes[node]
        self._copies[node] = inode
        self._nodes.pop(inode, None)
        if is_directory:
            self._nodes[inode] = ((self._top, inode), *lower)

    def set_unmerged(self, inode: int) -> None:
        """Record that lower layers have nothing of a file of the image: it is new, or opaque now."""
        self._nodes.pop(inode, None)

    def _seen(self, node: int) -> UnionNode:
        number = self._copies.get(node, node)
        found = self._nodes.get(number)
        return ((self._top, number),) if found is None else found

    def _number(self, directory: int, name: bytes, node: UnionNode) -> int:
        layer, top = node[0]
        if layer == self._top:
            inode = int(top)
            if len(node) > 1:
                self._nodes[inode] = node
            else:
                self._nodes.pop(inode, None)
            return inode
        place = self._copies.get(directory, directory), name
        number = self._numbers.get(place)
        if number is None or number in self._copies:
            number = -1 - len(self._places)
            self._numbers[place] = number
            self._places[number] = place
        self._nodes[number] = node
        return number

    # FileTree

    @property
    def root(self) -> int:
        return self._upper

    def stat(self, node: int, /) -> Stat:
        return self._union.stat(self._seen(node))

    def find_name(self, directory: int, name: bytes, /) -> int | None:
        found = self._union.find_name(self._seen(directory), name)
        return None if found is None else self._number(directory, name, found)

    def scan_many(self, directories: Sequence[int], /, *, stats: bool = True) -> Iterator[TreeListing[int]]:
        listings = self._union.scan_many([self._seen(directory) for directory in directories], stats=stats)
        for directory, listing in zip(directories, listings, strict=True):
            rows = [
                TreeRow(row.name, self._number(directory, row.name, row.node), row.file_type, row.stat, row.may_have_xattrs)
                for row in listing.rows
            ]
            yield TreeListing(directory, rows, listing.problem, listing.directory_bytes)

    def load_many(self, nodes: Sequence[int], /, *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[TreeFile[int]]:
        for found in self._union.load_many([self._seen(node) for node in nodes], keep_order=keep_order, limit=limit):
            yield TreeFile(found.position, nodes[found.position], found.stat, found.xattrs, found.content)

    def readlink(self, node: int, /) -> bytes:
        return self._union.readlink(self._seen(node))

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
        return self._union.xattrs(self._seen(node))

    def open_file(self, node: int, /) -> OpenFile:
        return self._union.open_file(self._seen(node))

    def statfs(self) -> TreeStatFS:
        return self._union.statfs()
