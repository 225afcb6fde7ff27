"""Space that files of a tree take on the host: for messages, once it has run out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

from .file_tree import REGULAR, FileTree, file_type_of

__all__ = ["needed_bytes"]

N = TypeVar("N", bound=Hashable)

BATCH = 4096
BLOCK = 4096
"""Bytes that a directory or a special file takes, and to which the data of a file is rounded."""


def needed_bytes(tree: FileTree[N], *groups: Sequence[N]) -> int:
    """Return the bytes that these files take, their holes left out; a file with several names once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for nodes in groups:
        rest: Iterable[N] = iter(nodes)
        while batch := list(islice(rest, BATCH)):
            for loaded in tree.load_many(batch, limit=0):
                found = loaded.stat
                if isinstance(found, OSError) or (found.dev, found.ino) in seen:
                    continue
                if found.links > 1:
                    seen.add((found.dev, found.ino))
                data = found.blocks * 512 if file_type_of(found.mode) == REGULAR else 1
                total += -(-data // BLOCK) * BLOCK
    return total
