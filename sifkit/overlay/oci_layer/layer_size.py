"""Size of the archive that a layer makes, from the sizes of its files: for messages, once the space for it has run out."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import islice
from stat import S_ISREG
from typing import TypeVar

from ...vfs.file_tree import FileTree
from .layer_entries import walk_layer

__all__ = ["layer_size"]

N = TypeVar("N", bound=Hashable)

BATCH = 4096
RECORD = 512
"""Bytes of a header, and to which the content is rounded."""
END_BYTES = 2 * RECORD
EXTENDED_BYTES = 4 * RECORD
"""Bytes of an extended header with a name, attributes or a large number, usually."""


def layer_size(tree: FileTree[N], *, sparse: bool) -> int:
    """Return about how many bytes the archive of ``tree`` takes. ``sparse``: holes are left out."""
    total = END_BYTES
    seen: set[tuple[int, int]] = set()
    entries = walk_layer(tree, lambda path, reason: None)
    while batch := list(islice(entries, BATCH)):
        for entry, loaded in zip(batch, tree.load_many([entry.node for entry in batch], limit=0), strict=True):
            total += RECORD + EXTENDED_BYTES
            found = loaded.stat
            if entry.is_whiteout or isinstance(found, OSError) or not S_ISREG(found.mode):
                continue
            if found.links > 1:
                if (found.dev, found.ino) in seen:
                    continue
                seen.add((found.dev, found.ino))
            size = min(found.size, found.blocks * 512) if sparse else found.size
            total += -(-size // RECORD) * RECORD
    return total
