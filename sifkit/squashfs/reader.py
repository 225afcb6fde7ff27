"""Reader: a squashfs image as a tree of files. Its nodes are references of inodes, so it holds no table of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from ext3 import hostio

from ..vfs.file_tree import TreeFile, TreeListing, TreeRow, TreeStat, TreeStatFS
from .codecs import decompressor
from .data_blocks import BlockCache
from .directory import DirectoryListing, find_entry, read_directory
from .file_data import SquashfsFile
from .inode import DIRECTORY_KIND, FILE_TYPES, REGULAR_KIND, SYMLINK_KIND, Inode, InodeTable, stat_of_inode
from .metadata_blocks import LookupTable, MetadataBlocks, MetadataTable
from .schema import SYMLINK_INODE
from .source import ByteSource, FileWindow
from .superblock import read_superblock
from .tables import Fragment, export_table, fragment_at, fragment_table, read_ids

if TYPE_CHECKING:
    from .xattr_table import XattrTable

__all__ = ["DEFAULT_CACHE_BYTES", "Reader"]

DEFAULT_CACHE_BYTES = 8 << 20
"""Bytes of data blocks that are kept; blocks of metadata take up to half as much more."""

_row = partial(tuple.__new__, TreeRow)
"""TreeRow from a tuple, without checking its length: this runs once per file."""


class Reader:
    """Image in ``source``, which the caller closes, as a tree of files (``sifkit.vfs.file_tree.FileTree``).

    A node is the reference of an inode; ``root`` is that of the top. ``sifkit.vfs.walk`` goes through the tree,
    ``sifkit.vfs.extract`` copies it to the host, ``sifkit.vfs.resolve`` finds paths in it. A context manager, which closes what
    ``open`` opened. Calls may come from several threads. Not for pickling: open the image again in another process.
    """

    def __init__(self, source: ByteSource, *, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Read the superblock and the small tables.

        Raises NotSquashfsError, UnsupportedSquashfsError, MissingCodecError, CorruptSquashfsError and OSError.
        """
        self.source = source
        self.superblock = found = read_superblock(source)
        self.inflate = decompressor(found.compression)
        self.metadata = MetadataBlocks(source, self.inflate, cache_bytes=cache_bytes // 2)
        self._cache_bytes = cache_bytes
        self._stack = ExitStack()
        ids = read_ids(self.metadata, found)
        self.fragments = fragment_table(self.metadata, found)
        """Table of fragments; see ``fragment``."""
        self.xattr_table: XattrTable | None = None
        """Attributes; None in an image without any."""
        if found.has_xattrs:
            from .xattr_table import XattrTable

            self.xattr_table = XattrTable(self.metadata, found)
        start, end = found.inode_table_start, found.directory_table_start
        self.inodes = InodeTable(
            MetadataTable(self.metadata, "table of inodes", start, end), ids, inodes=found.inodes, block_size=found.block_size
        )
        self.directories = MetadataTable(self.metadata, "table of directories", end, found.table_end(end))

    @classmethod
    def open(
        cls,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        offset: int = 0,
        size: int | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> Self:
        """Open the image at byte ``offset`` of a file, in at most ``size`` bytes. Raises as the class does."""
        with ExitStack() as stack:
            fd = os.open(path, os.O_RDONLY | hostio.OPEN | hostio.NO_WAIT)
            stack.callback(os.close, fd)
            source = FileWindow(fd, offset, size)
            stack.callback(source.forget_descriptor)
            found = cls(source, cache_bytes=cache_bytes)
            found._stack = stack.pop_all()
            return found

    def close(self) -> None:
        """Close the file that ``open`` opened. What was not read before raises OSError (EBADF) then."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    # The tree

    @property
    def root(self) -> int:
        """Node of the top directory."""
        return self.superblock.root_inode

    def inode(self, node: int, /) -> Inode:
        """Return an inode by its reference. Raises CorruptSquashfsError and OSError."""
        return self.inodes.read(node)

    def stat(self, node: int, /) -> TreeStat:
        """Return the Stat of a node: times in nanoseconds, blocks of 512 bytes. Raises CorruptSquashfsError and OSError."""
        return self.stat_of(self.inode(node))

    def stat_of(self, inode: Inode) -> TreeStat:
        """Return the Stat of an inode, which counts the blocks of its attributes, too. Raises CorruptSquashfsError, OSError."""
        index, table = inode.xattr_index, self.xattr_table
        return stat_of_inode(inode, 0 if index is None or table is None else table.set_at(index).size)

    def find_name(self, directory: int, name: bytes, /) -> int | None:
        """Return the node of a name in a directory, None if there is none. Raises NotADirectoryError, too."""
        inode = self._directory(directory)
        found = find_entry(self.directories, self.inodes.table, directory, inode, name)
        return None if found is None else found.node

    def listing(self, directory: int, /) -> DirectoryListing:
        """Return the entries of a directory as they are stored. Raises NotADirectoryError and errors of its inode."""
        return read_directory(self.directories, self._directory(directory))

    def scan_many(self, directories: Sequence[int], /, *, stats: bool = True) -> Iterator[TreeListing[int]]:
        """Iterate over the listings of ``directories``, in this order, with the Stats of their entries unless not wanted.

        What cannot be read is in them: a listing's ``problem``, a row's ``stat``.
        """
        for directory in directories:
            try:
                found = self.listing(directory)
            except OSError as error:
                yield TreeListing(directory, [], error, 0)
                continue
            if stats:
                rows = self._rows(found)
            else:
                attributed = self.xattr_table is not None
                rows = cast("list[TreeRow[int]]", found.entries)
                for position, (name, node, kind, _) in enumerate(found.entries):  # in place: names may be many
                    rows[position] = _row((name, node, FILE_TYPES[kind], None, attributed))
            yield TreeListing(directory, rows, found.problem, found.stored_bytes)

    def _rows(self, listing: DirectoryListing) -> list[TreeRow[int]]:
        """Return the rows of a listing with their Stats."""
        rows: list[TreeRow[int]] = []
        table, decode, xattrs = self.inodes.table, self.inodes.decode, self.xattr_table
        start, block = -1, b""
        for name, node, kind, _ in listing.entries:
            try:
                if node >> 16 != start:
                    start = -1
                    block = table.block(node >> 16)
                    start = node >> 16
                inode = decode(block, node)
                attributed = inode.xattr_index is not None and xattrs is not None
                stat: TreeStat | OSError = self.stat_of(inode) if attributed else stat_of_inode(inode)
                if inode.kind != kind:
                    stat = self.inodes.corrupt(node, "inode_type", inode.kind, f"{kind}, as its directory entry says")
                rows.append(_row((name, node, FILE_TYPES[inode.kind], stat, attributed)))
            except OSError as error:
                rows.append(TreeRow(name, node, FILE_TYPES[kind], error, True))
        return rows

    def load_many(self, nodes: Sequence[int], /, *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[TreeFile[int]]:
        """Iterate over files with attributes, and the content of regular files up to ``limit`` bytes without holes.

        Without ``keep_order`` in the order of their content, which decompresses each block once. Errors are values.
        """
        from .file_loading import load_files

        return load_files(self, nodes, keep_order=keep_order, limit=limit)

    def readlink(self, node: int, /) -> bytes:
        """Return the target of a symlink. Raises OSError (EINVAL) for another type."""
        inode = self.inode(node)
        if inode.kind != SYMLINK_KIND:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        target = self.inodes.table.read(node + SYMLINK_INODE.size, inode.size)
        if not target or b"\0" in target:
            raise self.inodes.corrupt(node, "target", "empty" if not target else "one with NUL", "a path")
        return target

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
        """Return full name -> value of a node's extended attributes."""
        index = self.inode(node).xattr_index
        return {} if index is None or self.xattr_table is None else self.xattr_table.read(index)

    def open_file(self, node: int, /) -> SquashfsFile:
        """Open a regular file. Raises IsADirectoryError, and OSError (EINVAL) for another type."""
        inode = self.inode(node)
        if inode.kind != REGULAR_KIND:
            number = errno.EISDIR if inode.kind == DIRECTORY_KIND else errno.EINVAL
            raise OSError(number, os.strerror(number))
        return SquashfsFile(self, inode)

    def statfs(self) -> TreeStatFS:
        """Return the size of the image and the number of its inodes; nothing is free."""
        found = self.superblock
        metadata = found.bytes_used - found.inode_table_start
        return TreeStatFS(found.bytes_used, 0, 0, found.inodes, 0, None, metadata_bytes=metadata)

    def _directory(self, node: int) -> Inode:
        inode = self.inode(node)
        if inode.kind != DIRECTORY_KIND:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return inode

    # What files are made of

    @cached_property
    def data(self) -> BlockCache:
        """Data blocks."""
        return BlockCache(self.source, self.superblock, self.inflate, self._cache_bytes)

    @cached_property
    def exports(self) -> LookupTable:
        """Table of inodes by number, which nothing here needs. Raises CorruptSquashfsError and OSError."""
        return export_table(self.metadata, self.superblock)

    def fragment(self, index: int) -> Fragment:
        """Return a fragment by its index. Raises CorruptSquashfsError and OSError."""
        return fragment_at(self.fragments, index)
