"""Subtree: a tree whose root is a directory of another one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from .file_tree import FileTree, Listing, Loaded, OpenFile, Stat, StatFS

__all__ = ["Subtree"]

N = TypeVar("N", bound=Hashable)


class Subtree(Generic[N]):
    """Tree below the directory ``root`` of another tree; also the base of views that change what a tree shows."""

    def __init__(self, tree: FileTree[N], root: N) -> None:
        self.tree = tree
        self._root = root

    @property
    def root(self) -> N:
        return self._root

    def stat(self, node: N, /) -> Stat:
        return self.tree.stat(node)

    def find_name(self, directory: N, name: bytes, /) -> N | None:
        return self.tree.find_name(directory, name)

    def scan_many(self, directories: Sequence[N], /, *, stats: bool = True) -> Iterator[Listing[N]]:
        return self.tree.scan_many(directories, stats=stats)

    def load_many(self, nodes: Sequence[N], /, *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[Loaded[N]]:
        return self.tree.load_many(nodes, keep_order=keep_order, limit=limit)

    def readlink(self, node: N, /) -> bytes:
        return self.tree.readlink(node)

    def xattrs(self, node: N, /) -> Mapping[bytes, bytes]:
        return self.tree.xattrs(node)

    def open_file(self, node: N, /) -> OpenFile:
        return self.tree.open_file(node)

    def statfs(self) -> StatFS:
        return self.tree.statfs()
