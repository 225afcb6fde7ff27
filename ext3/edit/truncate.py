"""Size of a regular file: truncated, or extended by a hole. Called inside an operation, except ``finish_cut``.

A cut that does not fit one transaction of the journal is made in steps: the operation that sets the new size adds the file to
the orphan list (``begin_cut``), and ``finish_cut`` frees the blocks behind it. After a crash recovery does that.
Source: Linux ``fs/ext4/inode.c`` (ext4_setattr, ext4_truncate), ``fs/ext4/indirect.c`` (ext4_ind_truncate).
"""

from __future__ import annotations

from ..errors import PathError, PathIsDirectoryError
from ..format.indirect_blocks import file_limit
from .block_map_edit import FileTooLargeError
from .inode_cache import InodeCache, Node
from .orphan_list import cut_in_steps, cut_inode
from .privileges import content_changed

__all__ = [
    "LARGE_FILE",
    "begin_cut",
    "check_end",
    "clear_tail",
    "finish_cut",
    "regular",
    "set_size",
    "zero_in_block",
]

LARGE_FILE = 1 << 31
"""Size from which a file needs the feature large_file."""


def regular(node: Node) -> Node:
    """Return the node. Raise PathIsDirectoryError or PathError if it is not a regular file's."""
    if not node.record.is_file:
        if node.record.is_dir:
            raise PathIsDirectoryError(node.ino, "Is a directory")
        raise PathError(node.ino, "not a regular file")
    return node


def check_end(nodes: InodeCache, ino: int, end: int) -> None:
    """Raise FileTooLargeError if no file can have ``end`` bytes."""
    if end > (limit := file_limit(nodes.block_size)):
        raise FileTooLargeError(f"inode {ino}", f"File too large: at most {limit} bytes")


def set_size(nodes: InodeCache, node: Node, size: int) -> None:
    """Set the size of a file that may be changed, and free the blocks behind it. Raise PathError, FileTooLargeError."""
    record = regular(node).record
    check_end(nodes, node.ino, size)
    if size > record.size:
        clear_tail(nodes, node)
        if size >= LARGE_FILE:
            nodes.need_large_file(node)
    elif size < record.size:
        kept = -(-size // nodes.block_size)
        nodes.map(node).truncate(kept)
        if size % nodes.block_size:
            zero_in_block(nodes, node, kept - 1, size % nodes.block_size, nodes.block_size)
        nodes.update_map(node)
    record.size = size
    content_changed(nodes, node)


def begin_cut(nodes: InodeCache, node: Node, size: int) -> None:
    """Set a smaller size of a file that may be changed; the blocks behind it stay until ``finish_cut``."""
    regular(node).record.size = size
    content_changed(nodes, node)
    if node.record.links:  # a file without a name is in the list
        nodes.add_orphan(node)


def finish_cut(nodes: InodeCache, ino: int, size: int) -> None:
    """Free the blocks behind the end, in as many operations as the journal needs. Not inside an operation."""
    cut_in_steps(nodes.session, ino, -(-size // nodes.block_size))
    nodes.drop(ino)
    nodes.run(lambda: _end_cut(nodes, ino))


def _end_cut(nodes: InodeCache, ino: int) -> None:
    node = nodes.edit(ino)
    if node.record.links:
        nodes.remove_orphan(node)
        nodes.write_out()
    cut_inode(nodes.session, ino)
    nodes.drop(ino)


def clear_tail(nodes: InodeCache, node: Node) -> None:
    """Zero the last block behind the end of the file, which is about to grow past it."""
    size = nodes.block_size
    inside = node.record.size % size
    if inside:
        zero_in_block(nodes, node, node.record.size // size, inside, size)


def zero_in_block(nodes: InodeCache, node: Node, logical: int, low: int, high: int) -> None:
    """Zero a part of one block through the journal, so that a failed operation rolls it back."""
    block = nodes.map(node).block(logical)
    if block is None:
        return
    data = nodes.session.read(block)
    if data.count(0, low, high) != high - low:
        nodes.session.write(block, data[:low] + bytes(high - low) + data[high:])
