"""Tree as a plain user's files can have it: without set-id bits and the attributes of the system."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from ...vfs.file_tree import Loaded, Stat, TreeFile, TreeStat
from ...vfs.subtree import Subtree
from ...vfs.whiteouts import without_overlay_xattrs

__all__ = ["PlainTree"]

N = TypeVar("N", bound=Hashable)
SET_ID_BITS = 0o6000
USER_XATTRS = b"user."


class PlainTree(Subtree[N]):
    """View of a tree, with the xattrs of users alone, but those of overlayfs."""

    def load_many(self, nodes: Sequence[N], /, *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[Loaded[N]]:
        for loaded in self.tree.load_many(nodes, keep_order=keep_order, limit=limit):
            found, xattrs = loaded.stat, loaded.xattrs
            if not isinstance(found, OSError) and found.mode & SET_ID_BITS:
                found = _without_set_id(found)
            if xattrs and not isinstance(xattrs, OSError):
                xattrs = _of_users(xattrs)
            yield TreeFile(loaded.position, loaded.node, found, xattrs, loaded.content)


def _without_set_id(found: Stat) -> Stat:
    fields = {name: getattr(found, name) for name in TreeStat._fields}
    return TreeStat(**fields | {"mode": found.mode & ~SET_ID_BITS})


def _of_users(xattrs: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    return without_overlay_xattrs({name: value for name, value in xattrs.items() if name.startswith(USER_XATTRS)})
