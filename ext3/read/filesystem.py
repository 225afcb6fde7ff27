"""Filesystem: an open ext2 or ext3 image: paths, directories, files, attributes, and the tables for bulk reads.

Nothing is written here (see ``ext3.edit.filesystem``). An image that needs recovery is read through the journal, as it will
be after the replay; if the journal cannot be read, without it (see ``journal_problem``). For any image content a method
returns data or raises an Ext3Error, in time and memory bounded by the image's size.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from ..constants import (
    JBD_MAGIC,
    NAME_MAX,
    ROOT_INO,
    S_IFDIR,
    S_IFMT,
    S_IFREG,
    Compat,
    FileType,
    InodeFlag,
)
from ..device.base import BlockDevice, PathOrFile, open_device
from ..errors import (
    CorruptError,
    DeviceError,
    Ext3Error,
    PathError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
)
from ..format import xattr
from ..format.block_map import BlockMap, PointerBounds, map_limit, read_inode_map
from ..format.dirent import Entry, directory_block_count, directory_blocks, read_entries
from ..format.geometry import Geometry
from ..format.group_desc import read_groups
from ..format.htree import OddIndexError
from ..format.inode import Inode, Stat, checked_target, fast_symlink, file_type_of, has_block_map, parse_inode
from ..format.inode_table import inode_offset, table_offset
from ..format.jbd_schema import JOURNAL_SUPERBLOCK
from ..format.superblock import Superblock, read_superblock
from ..journal.replay import through_journal
from .directory_lookup import find_by_index, find_by_scan
from .file import FileReader
from .listing import BlockOwners, Listing, Loaded, are_small, list_directory, load_one
from .path_walk import MAX_COMPONENTS, AnyPath, path_bytes, resolve
from .totals import StatFS, totals

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..edit.filesystem import WritableFilesystem
    from ..format.layout_columns import Table
    from .path import Path

__all__ = ["Entry", "FileReader", "Filesystem", "Stat", "StatFS"]

MAX_PATH = 1 << 16
"""Longest path of a directory that a walk enters, in bytes: without it a small image could yield a terabyte of paths."""
READ_LIMIT = 1 << 30
"""Default limit of read_bytes: a sparse file of a small image may claim terabytes."""

PathOrIno = AnyPath | int
_FILE_TYPES: dict[int, FileType] = {int(file_type): file_type for file_type in FileType if file_type is not FileType.UNKNOWN}
JUDGED_DIRECTORIES = 1024
"""Directories whose undamaged blocks are remembered."""
_INDEX, _DIR_INDEX = InodeFlag.INDEX.value, Compat.DIR_INDEX.value
"""Plain numbers: the ``&`` of a flag takes as long as the search of a small block."""


class Filesystem:
    """Open image; a context manager. Paths are bytes or text from the image's root, numbers are inodes."""

    def __init__(self, device: BlockDevice) -> None:
        """Read the superblock and groups of ``device``, which the caller closes. Raise as ``open`` does, except OSError."""
        self.device = device
        self.journal_problem: Ext3Error | None = None
        """Error of the journal of an image that needs recovery. If set, the journal is ignored and data read may be old."""
        self._superblock = read_superblock(device)
        if self._superblock.needs_recovery:
            self.device, self.journal_problem = through_journal(device, self._superblock)
            self._superblock = read_superblock(self.device)
        self._groups = read_groups(self.device, self._superblock)
        # As the kernel counts at mount. The superblock's counts are written at unmount only, never through the journal; and
        # fuse2fs writes those of an image inside a file to the wrong place.
        self._superblock = self._superblock._replace(
            free_blocks=sum(self._groups["bg_free_blocks_count"]),
            free_inodes=sum(self._groups["bg_free_inodes_count"]),
        )
        self._stack = ExitStack()
        self._last_inode: Inode | None = None
        self._chunk: tuple[int, bytes] = (-1, b"")
        self._block_owners: BlockOwners | None = None
        self._judged: dict[int, int] = {}
        """Number of leading blocks known to be undamaged, of directories searched without an index."""

    @overload
    @classmethod
    def open(
        cls, where: PathOrFile | BlockDevice, mode: Literal["r"] = ..., *, offset: int = ..., size: int | None = ...
    ) -> Self: ...

    @overload
    @classmethod
    def open(
        cls,
        where: PathOrFile | BlockDevice,
        mode: Literal["r+"],
        *,
        offset: int = 0,
        size: int | None = None,
        clock: Callable[[], int] | None = None,
    ) -> WritableFilesystem: ...

    @classmethod
    def open(
        cls,
        where: PathOrFile | BlockDevice,
        mode: str = "r",
        *,
        offset: int = 0,
        size: int | None = None,
        clock: Callable[[], int] | None = None,
    ) -> Filesystem:
        """Open the image in ``where``: a path, a binary file or a device. It starts at byte ``offset`` and has ``size`` bytes.

        Mode "r+" opens it for changes; ``clock`` returns nanoseconds since 1970. Without a journal the image is inconsistent
        until it is closed: open a copy. Raise OSError if the file cannot be opened, NotExt3Error, UnsupportedError,
        CorruptError for an invalid superblock or descriptors, DeviceError, and for changes NeedsCheckError.
        """
        if mode == "r+":
            from ..edit.filesystem import WritableFilesystem

            return WritableFilesystem.open_for_changes(where, offset=offset, size=size, clock=clock)
        if mode != "r":
            raise ValueError(f"mode {mode!r} is not 'r' or 'r+'")
        with ExitStack() as stack:
            found = cls(stack.enter_context(open_device(where, offset=offset, size=size)))
            found._stack = stack.pop_all()
            return found

    def __repr__(self) -> str:
        found = self.superblock
        kind = "ext3" if found.has_journal else "ext2"
        mode = "r+" if self.writable else "r"
        return f"<{type(self).__name__} {kind}, {found.size_bytes} bytes in blocks of {found.block_size}, mode {mode!r}>"

    def close(self) -> None:
        """Close the file that ``open`` opened."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # The filesystem as a whole

    @property
    def writable(self) -> bool:
        """True if it is open for changes (see WritableFilesystem)."""
        return False

    @property
    def root(self) -> int:
        """Inode of the root directory."""
        return ROOT_INO

    @property
    def superblock(self) -> Superblock:
        return self._superblock

    @property
    def groups(self) -> Table:
        """Group descriptors: GROUP_DESC rows, shape (groups,)."""
        from ..format.group_desc_columns import group_table

        return group_table(self._groups)

    @property
    def needs_recovery(self) -> bool:
        """True if the journal holds changes to replay. Reads include them, unless there is a ``journal_problem``."""
        return self._superblock.needs_recovery

    def statfs(self) -> StatFS:
        """Return the totals of the superblock, clamped to possible values."""
        journal = 0
        if self._superblock.has_journal and self._superblock.journal_ino:
            with suppress(CorruptError, DeviceError, PathError):
                journal = self.stat(self._superblock.journal_ino).blocks
        return totals(self.superblock, journal)

    def geometry(self) -> Geometry:
        """Fixed layout. Its metadata locations are those of a new image; ``groups`` has the real ones."""
        return self._superblock.geometry

    def block_bitmap(self, group: int) -> npt.NDArray[np.bool_]:
        """Return a group's block bitmap: bool, shape (8 * block_size,), True = used; padding behind the last block."""
        from ..format.group_desc_columns import read_bitmap

        return read_bitmap(self.device, self._superblock, self._groups, self._checked_group(group), "bg_block_bitmap")

    def inode_bitmap(self, group: int) -> npt.NDArray[np.bool_]:
        """Return a group's inode bitmap: bool, shape (8 * block_size,), True = used; padding behind inodes_per_group."""
        from ..format.group_desc_columns import read_bitmap

        return read_bitmap(self.device, self._superblock, self._groups, self._checked_group(group), "bg_inode_bitmap")

    def inode_table(self, group: int, count: int | None = None) -> Table:
        """Return the first ``count`` inodes of a group (None: all): INODE_CORE rows, shape (count,).

        Row 0 is inode group * inodes_per_group + 1.
        """
        from ..format.inode_table_columns import table_rows

        per_group = self._superblock.inodes_per_group
        count = per_group if count is None else max(0, min(count, per_group))
        size = self._superblock.inode_size
        offset = table_offset(self._superblock, self._groups, self._checked_group(group))
        return table_rows(self.device.read(offset, count * size), size)

    def journal_superblock(self) -> dict[str, Any] | None:
        """Return the fields of the journal's superblock; None without a journal, or with one on another device."""
        if not self._superblock.has_journal or not self._superblock.journal_ino:
            return None
        ino = self._superblock.journal_ino
        if ino > self._superblock.inodes_count:
            raise CorruptError("superblock", "s_journal_inum", ino, f"<= {self._superblock.inodes_count}")
        extents = self._map(self.inode(ino), 1).extents
        if not len(extents):
            raise CorruptError("journal", "first block", "a hole", "a block")
        raw = self.device.read(extents[0][1] * self._superblock.block_size, JOURNAL_SUPERBLOCK.size)
        fields = JOURNAL_SUPERBLOCK.record(raw)
        if fields["h_magic"] != JBD_MAGIC:
            raise CorruptError("journal", "h_magic", f"{fields['h_magic']:#x}", f"{JBD_MAGIC:#x}")
        return fields

    def _checked_group(self, group: int) -> int:
        if not 0 <= group < self._superblock.groups_count:
            raise IndexError(f"group {group} is not from 0 to {self._superblock.groups_count - 1}")
        return group

    # Paths and inodes

    def lookup(self, path: AnyPath, *, follow: bool = True) -> int:
        """Return the inode of ``path``. Follows at most 40 symlinks, inside the image; a last one only if ``follow``.

        Raise PathNotFoundError, PathNotDirectoryError, PathError (ELOOP, ENAMETOOLONG).
        """
        whole = path_bytes(path)
        found = resolve(self, whole, follow=follow).ino
        if found is None:
            raise PathNotFoundError(whole, "No such file or directory")
        return found

    def path(self, at: AnyPath = b"/") -> Path:
        """Return a path in this image, with the habits of pathlib."""
        from .path import Path

        return Path(self, at)

    def inode(self, ino: int) -> Inode:
        """Return inode ``ino`` decoded, in use or not. Raise PathNotFoundError for an invalid number."""
        last = self._last_inode
        if last is not None and last.stat.ino == ino:
            return last
        geometry = self._superblock.geometry
        offset = inode_offset(self._superblock, self._groups, ino)
        # The next inode asked for is usually a neighbour: read a whole block of the table.
        place = offset % geometry.block_size
        if self._chunk[0] != offset - place:
            self._chunk = (offset - place, self.device.read(offset - place, geometry.block_size))
        found = parse_inode(self._chunk[1][place : place + geometry.inode_size], ino)
        self._last_inode = found
        return found

    def stat(self, path_or_ino: PathOrIno, *, follow: bool = True) -> Stat:
        """Return the metadata of an inode."""
        return self._inode_of(path_or_ino, follow).stat

    def readlink(self, path_or_ino: PathOrIno) -> bytes:
        """Return the target of a symbolic link. Raise PathError (EINVAL) if it is not one."""
        inode = self._inode_of(path_or_ino, False)
        if not inode.stat.is_symlink:
            raise PathError(path_or_ino, "not a symbolic link")
        return self._target(inode)

    def xattrs(self, path_or_ino: PathOrIno, *, follow: bool = True) -> dict[bytes, bytes]:
        """Return full name -> value, in the form of the host's system calls, ACLs in the kernel's form."""
        inode = self._inode_of(path_or_ino, follow)
        where = f"inode {inode.stat.ino}"
        found = xattr.parse_inode_area(inode.area, where=where)
        block = inode.stat.file_acl
        if block:
            PointerBounds.of(self._superblock, where).check(block, "i_file_acl")
            size = self._superblock.block_size
            where = f"{where}, attribute block {block}"
            found = {**xattr.parse_block(self.device.read(block * size, size), where=where), **found}
        return found

    def _inode_of(self, path_or_ino: PathOrIno, follow: bool) -> Inode:
        return self.inode(path_or_ino if isinstance(path_or_ino, int) else self.lookup(path_or_ino, follow=follow))

    def find_name(self, directory: int, name: bytes) -> int | None:
        """Return the inode of ``name`` in a directory, None if there is none."""
        inode = self.inode(directory)
        where = f"directory inode {directory}"
        count = directory_block_count(inode.stat.size, self._superblock.block_size, where)
        extents = self._map(inode, count).extents
        if inode.stat.flags & _INDEX and self._superblock.compat & _DIR_INDEX:
            try:
                return find_by_index(self.device, self._superblock, extents, count, name, where=where)
            except OddIndexError:
                pass
        judged = self._judged.get(directory, 0)
        ino, judged = find_by_scan(self.device, self._superblock, extents, count, name, where=where, judged=judged)
        if len(self._judged) >= JUDGED_DIRECTORIES:
            self._judged.clear()
        self._judged[directory] = judged
        return ino

    def _target(self, inode: Inode) -> bytes:
        size = self._superblock.block_size
        target = fast_symlink(inode, size)
        if target is not None:
            return target
        where = f"inode {inode.stat.ino}"
        if not 0 < inode.stat.size < size:
            raise CorruptError(where, "i_size", inode.stat.size, f"a target of 1 to {size - 1} bytes")
        extents = self._map(inode, 1).extents
        if not len(extents):
            raise CorruptError(where, "i_block[0]", 0, "the block of the target")
        return checked_target(self.device.read(extents[0][1] * size, inode.stat.size), inode.stat.ino)

    # Directories

    def scandir(self, path_or_ino: PathOrIno = ROOT_INO) -> Iterator[Entry]:
        """Yield the entries of a directory in disk order, without ``.`` and ``..``. Raise PathNotDirectoryError."""
        inode = self._inode_of(path_or_ino, True)
        if not inode.stat.is_dir:
            raise PathNotDirectoryError(path_or_ino, "Not a directory")
        return self._entries(inode)

    def scan_many(self, inos: Sequence[int], *, stats: bool = True) -> Iterator[Listing]:
        """Yield the listing of each of these directories, in this order, with the Stats of their entries unless not wanted.

        They are read ahead in batches; errors are in the listings. A block of two directories is damage.
        """
        if self._block_owners is None and not self.writable:
            self._block_owners = BlockOwners()
        owners = self._block_owners
        if are_small(self, inos):
            return (list_directory(self, ino, owners, stats=stats) for ino in inos)
        from . import tree_scan

        return tree_scan.scan_many(self, inos, owners, stats=stats)

    def load_many(self, inos: Sequence[int], *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[Loaded]:
        """Yield each of these files with attributes, and the content of a small file whose blocks are contiguous.

        In this order, or without ``keep_order`` in the order of their data. Errors are values. ``limit``: bytes of content.
        """
        if len(inos) == 1 and not limit:
            return iter([load_one(self, inos[0])])
        from . import tree_scan

        return tree_scan.load_many(self, inos, keep_order=keep_order, limit=limit)

    def _entries(self, inode: Inode, seen: Iterator[int] | None = None) -> Iterator[Entry]:
        """Yield entries. ``seen`` counts the blocks of several directories: CorruptError if they exceed the filesystem."""
        return itertools.chain.from_iterable(self._entry_lists(inode, seen))

    def _entry_lists(self, inode: Inode, seen: Iterator[int] | None) -> Iterator[list[Entry]]:
        """Yield the entries of each block of a directory; of a damaged block those before the damage."""
        known = _FILE_TYPES if self._superblock.has_filetype else {}
        inodes, where = self._superblock.inodes_count, f"directory inode {inode.stat.ino}"
        for logical, block in self._directory_blocks(inode):
            if seen is not None and next(seen) >= self._superblock.blocks_count:
                want = f"<= {self._superblock.blocks_count}"
                raise CorruptError(f"{where}, block {logical}", "blocks of directories", "more than there are", want)
            found, damage = read_entries(block, logical, inodes=inodes, where=where, known=known, type_of=self._file_type)
            yield found
            if damage is not None:
                raise damage

    def _file_type(self, ino: int) -> FileType:
        return file_type_of(self.inode(ino).stat.mode)

    def _directory_blocks(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """Yield (logical block, data) of each block of a directory."""
        size = self._superblock.block_size
        where = f"directory inode {inode.stat.ino}"
        count = directory_block_count(inode.stat.size, size, where)
        return directory_blocks(self.device, self._map(inode, count).extents, count, block_size=size, where=where)

    def walk(
        self, path_or_ino: PathOrIno = ROOT_INO, *, onerror: Callable[[Ext3Error], None] | None = None
    ) -> Iterator[tuple[bytes, Entry]]:
        """Yield (path relative to the directory, entry) of everything below it, parents first.

        Raise CorruptError for a directory reached twice (a loop), directories that together have more blocks than the
        filesystem, or a damaged directory when it is reached. ``onerror`` is called with the error instead, and the walk
        continues with the rest.
        """
        top = path_or_ino if isinstance(path_or_ino, int) else self.lookup(path_or_ino)
        seen = {top}
        blocks = itertools.count()

        def entries_of(ino: int) -> Iterator[Entry]:
            inode = self.inode(ino)
            if not inode.stat.is_dir:
                raise PathNotDirectoryError(ino, "Not a directory")
            return self._entries(inode, blocks)

        prefix = b""
        pending: list[tuple[int, Iterator[Entry]]] = [(0, entries_of(top))]  # (length of its path, its entries)
        while pending:
            length, entries = pending[-1]
            prefix = prefix[:length]
            try:
                entry = next(entries, None)
                if entry is None:
                    pending.pop()
                    continue
            except Ext3Error as error:
                if onerror is None:
                    raise
                onerror(error)
                pending.pop()
                continue
            path = prefix + entry.name
            yield path, entry
            if entry.file_type is not FileType.DIRECTORY:
                continue
            try:
                if entry.ino in seen:
                    raise CorruptError(f"directory inode {entry.ino}", "entries that lead to it", "two or more", 1)
                if len(pending) >= MAX_COMPONENTS or len(path) >= MAX_PATH:
                    what = f"directories are nested deeper than {MAX_COMPONENTS}, or their path is longer than {MAX_PATH} bytes"
                    raise PathError(path[:NAME_MAX] + b"...", what, code=errno.ENAMETOOLONG)
                seen.add(entry.ino)
                pending.append((len(path) + 1, entries_of(entry.ino)))
                prefix = path + b"/"
            except Ext3Error as error:
                if onerror is None:
                    raise
                onerror(error)

    # Files

    def open_file(self, path_or_ino: PathOrIno) -> FileReader:
        """Return a regular file as a seekable binary reader. Raise PathIsDirectoryError, PathError if it is not regular."""
        inode = self._inode_of(path_or_ino, True)
        form = inode.stat.mode & S_IFMT
        if form == S_IFDIR:
            raise PathIsDirectoryError(path_or_ino, "a directory")
        if form != S_IFREG:
            raise PathError(path_or_ino, "not a regular file")
        return FileReader(self.device, self.block_map(inode).extents, inode.stat.size, self._superblock.block_size)

    def read_bytes(self, path_or_ino: PathOrIno, *, limit: int = READ_LIMIT) -> bytes:
        """Return the content of a regular file. Raise PathError (EFBIG) if it is longer than ``limit`` bytes."""
        with self.open_file(path_or_ino) as file:
            if file.size > limit:
                raise PathError(path_or_ino, f"{file.size} bytes are more than {limit}", code=errno.EFBIG)
            return file.readall()

    def data_extents(self, path_or_ino: PathOrIno) -> list[tuple[int, int, int]]:
        """Return (logical block, physical block, count) of a file's or directory's data, ascending; gaps are holes."""
        return list(self.block_map(path_or_ino).extents)

    def block_map(self, path_or_ino: PathOrIno | Inode) -> BlockMap:
        """Return the block map up to the size of the file; empty if the data is in the inode."""
        inode = path_or_ino if isinstance(path_or_ino, Inode) else self._inode_of(path_or_ino, True)
        block_size = self._superblock.block_size
        blocks = -(-inode.stat.size // block_size)
        if blocks > map_limit(block_size) and inode.stat.is_file:
            raise CorruptError(f"inode {inode.stat.ino}", "i_size", inode.stat.size, f"<= {map_limit(block_size) * block_size}")
        return self._map(inode, min(blocks, map_limit(block_size)) if has_block_map(inode, block_size) else 0)

    def _map(self, inode: Inode, wanted: int) -> BlockMap:
        return read_inode_map(self.device, self._superblock, inode, wanted)
