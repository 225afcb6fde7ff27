"""Many files at once, with the content of small ones, in the order in which it is stored.

Small files share fragments. Read in that order, each fragment is decompressed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..vfs.file_tree import Stat, TreeFile
from .file_data import SquashfsFile
from .inode import REGULAR_KIND, Inode

if TYPE_CHECKING:
    from .reader import Reader

__all__ = ["load_files"]

BATCH_FILES = 1024
BATCH_BYTES = 4 << 20
"""Most content of a batch, which is in memory if the order is kept; one file may have more."""

_Found = tuple[int, int, Inode | OSError, int]
"""File of a batch: position, node, inode, and where its content begins in the image."""


def load_files(reader: Reader, nodes: Sequence[int], *, keep_order: bool, limit: int) -> Iterator[TreeFile[int]]:
    """Iterate over ``nodes`` with attributes, and the content of regular files up to ``limit`` bytes without holes.

    Without ``keep_order`` in the order of their content, batch by batch. See ``FileTree.load_many``.
    """
    order: Sequence[int] = range(len(nodes))
    if not keep_order:
        order = sorted(order, key=nodes.__getitem__)
    for batch in _batches(reader, nodes, order, limit):
        stored = sorted(batch, key=lambda found: found[3])
        if keep_order:
            yield from sorted((_load(reader, found, limit) for found in stored), key=lambda loaded: loaded.position)
        else:
            for found in stored:
                yield _load(reader, found, limit)


def _batches(reader: Reader, nodes: Sequence[int], order: Sequence[int], limit: int) -> Iterator[list[_Found]]:
    """Iterate over the files in batches of a bounded size."""
    batch: list[_Found] = []
    size = 0
    for position in order:
        node = nodes[position]
        try:
            inode = reader.inode(node)
            batch.append((position, node, inode, _start_of(reader, inode)))
            size += inode.size if inode.kind == REGULAR_KIND and inode.size <= limit else 0
        except OSError as error:
            batch.append((position, node, error, 0))
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _start_of(reader: Reader, inode: Inode) -> int:
    """Return the byte of the image at which a file's content begins. Raises CorruptSquashfsError and OSError."""
    if inode.block_count or inode.fragment_index is None:
        return inode.start_block
    return reader.fragment(inode.fragment_index).start


def _load(reader: Reader, found: _Found, limit: int) -> TreeFile[int]:
    position, node, inode, _ = found
    if isinstance(inode, OSError):
        return TreeFile(position, node, inode, {}, None)
    try:
        stat: Stat = reader.stat_of(inode)
    except OSError as error:
        return TreeFile(position, node, error, {}, None)
    xattrs: Mapping[bytes, bytes] | OSError = {}
    if inode.xattr_index is not None and reader.xattr_table is not None:
        try:
            xattrs = reader.xattr_table.read(inode.xattr_index)
        except OSError as error:
            xattrs = error
    content: bytes | OSError | None = None
    if inode.kind == REGULAR_KIND and inode.size <= limit:
        try:
            content = _content(reader, inode)
        except OSError as error:
            content = error
    return TreeFile(position, node, stat, xattrs, content)


def _content(reader: Reader, inode: Inode) -> bytes | None:
    """Return the whole content of a file, None if it has holes. Raises CorruptSquashfsError and OSError."""
    if not inode.size:
        return b""
    file = SquashfsFile(reader, inode)
    if inode.block_count and file.has_holes:
        return None
    return file.read_at(0, inode.size)
