"""LayerTree: one layer of a container, whose damage is reported with the layer's name.

In a merged tree a path alone does not tell which image is damaged.
"""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from ...errors import show
from ...vfs.errors import TreePathError
from ...vfs.file_tree import FileTree, Listing, Loaded, OpenFile, Row, Stat, TreeFile, TreeListing, TreeRow
from ...vfs.subtree import Subtree

__all__ = ["LayerError", "LayerTree"]

N = TypeVar("N", bound=Hashable)
T = TypeVar("T")
DAMAGE = frozenset({"corrupt", "truncated", "io", "unsupported"})
"""Kinds of errors that are about an image, not about a path in it."""


class LayerError(TreePathError):
    """Error of the filesystem of one ``layer`` of a container."""

    def __init__(self, layer: str, error: OSError, *, hint: str = "") -> None:
        text = getattr(error, "message", None) or error.strerror or str(error)
        super().__init__(None, error.errno or errno.EIO, f"{show(layer)}: {text}")
        self.kind = getattr(error, "kind", "io")
        self.layer = layer
        self.hint = getattr(error, "hint", "") or hint


class LayerTree(Subtree[N]):
    """Tree below ``root`` of another one, as the layer ``name`` of a container. ``hint``: what to do if it is damaged."""

    def __init__(self, tree: FileTree[N], root: N, *, name: str, hint: str) -> None:
        super().__init__(tree, root)
        self.name = name
        self.hint = hint

    def named(self, error: OSError) -> OSError:
        """Return the error with the name of the layer, if it is about the layer's filesystem, else the error itself."""
        if isinstance(error, TreePathError) or getattr(error, "kind", None) not in DAMAGE:
            return error
        return LayerError(self.name, error, hint=self.hint)

    def stat(self, node: N, /) -> Stat:
        with _Naming(self):
            return self.tree.stat(node)

    def find_name(self, directory: N, name: bytes, /) -> N | None:
        with _Naming(self):
            return self.tree.find_name(directory, name)

    def scan_many(self, directories: Sequence[N], /, *, stats: bool = True) -> Iterator[Listing[N]]:
        with _Naming(self):
            for listing in self.tree.scan_many(directories, stats=stats):
                problem = listing.problem
                if problem is None and not (stats and any(isinstance(row.stat, OSError) for row in listing.rows)):
                    yield listing
                    continue
                rows: list[Row[N]] = [
                    TreeRow(row.name, row.node, row.file_type, self.named(row.stat), row.may_have_xattrs)
                    if isinstance(row.stat, OSError)
                    else row
                    for row in listing.rows
                ]
                problem = None if problem is None else self.named(problem)
                yield TreeListing(listing.node, rows, problem, listing.directory_bytes)

    def load_many(self, nodes: Sequence[N], /, *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[Loaded[N]]:
        with _Naming(self):
            for found in self.tree.load_many(nodes, keep_order=keep_order, limit=limit):
                if any(isinstance(part, OSError) for part in (found.stat, found.xattrs, found.content)):
                    named = self._part(found.stat), self._part(found.xattrs), self._part(found.content)
                    yield TreeFile(found.position, found.node, *named)
                else:
                    yield found

    def _part(self, part: T | OSError) -> T | OSError:
        return self.named(part) if isinstance(part, OSError) else part

    def readlink(self, node: N, /) -> bytes:
        with _Naming(self):
            return self.tree.readlink(node)

    def xattrs(self, node: N, /) -> Mapping[bytes, bytes]:
        with _Naming(self):
            return self.tree.xattrs(node)

    def open_file(self, node: N, /) -> OpenFile:
        with _Naming(self):
            return _LayerFile(self.tree.open_file(node), self)


class _Naming:
    """Block whose errors get the name of a layer. A class: a generator costs three times as much for each file."""

    __slots__ = ("_layer",)

    def __init__(self, layer: LayerTree[Any]) -> None:
        self._layer = layer

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, OSError) and (named := self._layer.named(error)) is not error:
            raise named from error


class _LayerFile:
    """Open file of a layer."""

    def __init__(self, file: OpenFile, layer: LayerTree[Any]) -> None:
        self._file = file
        self._naming = _Naming(layer)

    @property
    def size(self) -> int:
        return self._file.size

    def read_at(self, offset: int, size: int, /) -> bytes:
        with self._naming:
            return self._file.read_at(offset, size)

    def data_ranges(self) -> Sequence[tuple[int, int]]:
        with self._naming:
            return self._file.data_ranges()

    def host_ranges(self) -> Sequence[tuple[int, int, int, int]] | None:
        with self._naming:
            return self._file.host_ranges()

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        return self._file.__exit__(kind, error, trace)
