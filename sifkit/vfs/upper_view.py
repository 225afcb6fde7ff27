"""UpperView: upper/ as a container sees it, without whiteouts, the names they hide, and overlay xattrs.

The only place that hides them, and that says whose content is in a lower layer (metacopy). Lower layers are not known here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from .errors import LowerContentError
from .file_tree import (
    REGULAR,
    FileTree,
    Listing,
    Loaded,
    OpenFile,
    TreeFile,
    TreeListing,
    file_type_of,
)
from .resolve import is_dir
from .subtree import Subtree
from .whiteouts import (
    OPAQUE_WHITEOUT,
    OVERLAY_XATTR_PREFIXES,
    find_visible,
    is_metacopy,
    is_opaque,
    visible_rows,
    without_overlay_xattrs,
)

__all__ = ["UpperView", "find_upper", "is_opaque_directory"]

N = TypeVar("N", bound=Hashable)


def find_upper(tree: FileTree[N]) -> N | None:
    """Return the directory upper/ in the root of a tree, None if it has none."""
    node = tree.find_name(tree.root, b"upper")
    return node if node is not None and is_dir(tree.stat(node)) else None


def is_opaque_directory(tree: FileTree[N], directory: N) -> bool:
    """Return True if a directory is opaque, by its xattrs or an opaque whiteout in it, also if the tree hides these."""
    raw = tree.tree if isinstance(tree, UpperView) else tree
    return is_opaque(raw.xattrs(directory)) or raw.find_name(directory, OPAQUE_WHITEOUT) is not None


class UpperView(Subtree[N]):
    """View of the directory ``root`` of a tree as a container sees an upper layer. ``tree`` is the tree itself."""

    def find_name(self, directory: N, name: bytes, /) -> N | None:
        return find_visible(self.tree, directory, name)[0]

    def scan_many(self, directories: Sequence[N], /, *, stats: bool = True) -> Iterator[Listing[N]]:
        for listing in self.tree.scan_many(directories, stats=stats):
            rows, _ = visible_rows(self.tree, listing.rows)
            changed = len(rows) != len(listing.rows)
            yield TreeListing(listing.node, rows, listing.problem, listing.directory_bytes) if changed else listing

    def load_many(self, nodes: Sequence[N], /, *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[Loaded[N]]:
        for found in self.tree.load_many(nodes, keep_order=keep_order, limit=limit):
            if isinstance(found.xattrs, OSError) or not any(name.startswith(OVERLAY_XATTR_PREFIXES) for name in found.xattrs):
                yield found
            else:
                xattrs, content = without_overlay_xattrs(found.xattrs), found.content
                if is_metacopy(found.xattrs) and not isinstance(found.stat, OSError):
                    content = LowerContentError(None) if file_type_of(found.stat.mode) == REGULAR else content
                yield TreeFile(found.position, found.node, found.stat, xattrs, content)

    def xattrs(self, node: N, /) -> Mapping[bytes, bytes]:
        return without_overlay_xattrs(self.tree.xattrs(node))

    def open_file(self, node: N, /) -> OpenFile:
        """Open a regular file. Raises LowerContentError for a metacopy, as well as what ``FileTree`` says."""
        try:
            xattrs = self.tree.xattrs(node)
        except OSError:  # none here, or damaged: then the data may be all there is
            xattrs = {}
        if is_metacopy(xattrs) and file_type_of(self.tree.stat(node).mode) == REGULAR:
            raise LowerContentError(None)
        return self.tree.open_file(node)
