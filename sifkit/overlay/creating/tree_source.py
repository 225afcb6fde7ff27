"""Tree of files (an image, a view of one, a directory of the host) as the source of a new image.

Everything is taken as it is: owners, modes, times (of creation, too, where the tree knows them), attributes, the flags of
chattr, hard links, devices, holes. File data is not read before it is written; large files are copied in the kernel where the
tree says where they lie in a file of the host.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

from ext3 import hostio
from ext3.constants import S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, USER_FLAGS, InodeFlag
from ext3.errors import ContentChangedError, Ext3Error, SourceError
from ext3.format.inode import Stat as InodeStat
from ext3.newfs.builder import Times, TreeBuilder
from ext3.newfs.content import ContentFile
from ext3.newfs.node import Segment
from ext3.progress import Progress

from ...vfs.data_limit import check_data_limit
from ...vfs.errors import DamagedTreeError, reason_of
from ...vfs.file_tree import DIRECTORY, UNKNOWN, FileTree, OpenFile, Stat, file_type_of, stat_of
from ...vfs.walk import WalkedFile, walk

__all__ = ["TreeContent", "scan_tree", "segments_on_host"]

N = TypeVar("N", bound=Hashable)
SECOND = 1_000_000_000
PLAIN_BYTES = 12 << 10
"""Largest file whose blocks are all direct ones, whatever their size: if it has as many as it needs, it has no holes."""
LARGE_BYTES = 1 << 20
"""Files of this size and more are copied in the kernel, from where they lie."""
MAX_OFFSET = (1 << 63) - 1
PROGRESS_STEP = 1024
SECTOR = 512


class TreeContent(Generic[N]):
    """Data of the regular files of ``tree``, for a tree of a new image made of it.

    Segments of nodes in ``placed`` have their offsets in a file of the host; all others are read through the tree. Nothing is
    held open: the tree is closed by whoever opened it, after the image is written.
    """

    def __init__(self, tree: FileTree[N]) -> None:
        self.tree = tree
        self.placed: dict[int, list[Segment]] = {}
        self._sources: dict[int, tuple[N, bytes]] = {}

    def add(self, node: int, source: N, path: bytes) -> None:
        """Set the file of the tree that is the source of ``node``."""
        self._sources[node] = source, path

    def read_whole(self, node: int, view: memoryview) -> None:
        path = self._sources[node][1]
        with self._opened(node) as file, _errors_of(path):
            data = file.read_at(0, len(view)) if file.size == len(view) else b""
        if len(data) != len(view):
            raise ContentChangedError(path, f"{len(data)} bytes where there were {len(view)}")
        view[:] = data

    def open(self, node: int) -> ContentFile:
        path = self._sources[node][1]
        file = self._opened(node)
        if node not in self.placed:
            return _TreeFile(file, path, None)
        with _errors_of(path):
            found = segments_on_host(file)
        if found is None or found[1] != self.placed[node]:
            file.__exit__(None, None, None)
            raise ContentChangedError(path, "moved while the image was made")
        return _TreeFile(file, path, found[0])

    def _opened(self, node: int) -> OpenFile:
        source, path = self._sources[node]
        with _errors_of(path):
            return self.tree.open_file(source)


class _TreeFile:
    """Data of an open file. ``fd``: the file of the host that it lies in, to which all offsets refer; None: to itself."""

    def __init__(self, file: OpenFile, path: bytes, fd: int | None) -> None:
        self.fd = fd
        self._file = file
        self._path = path

    def read_into(self, view: memoryview, offset: int) -> int:
        with _errors_of(self._path):
            if self.fd is not None:
                return hostio.read_into(self.fd, offset, view)
            data = self._file.read_at(offset, len(view))
        view[: len(data)] = data
        return len(data)

    def changed(self) -> bool:
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.__exit__(kind, error, trace)


def scan_tree(builder: TreeBuilder, tree: FileTree[N], progress: Progress | None = None) -> TreeContent[N]:
    """Fill an empty ``builder`` with all of ``tree``, whose root becomes the root of the image. Nothing is left out.

    Nodes are numbered in pre-order, names in byte order. ``progress``: advances by the names. Raises OSError for what cannot
    be read, CorruptError and DamagedTreeError for a damaged image (also names that are in a directory twice, and files that
    together hold more data than there is room for), SourceError for what no ext3 image holds.
    """
    content = TreeContent(tree)
    scan = _Scan(builder, tree, content)
    scan.add_root()
    count = 0
    for count, found in enumerate(walk(tree, tree.root, b"/"), 1):
        scan.add(found)
        if progress is not None and count % PROGRESS_STEP == 0:
            progress.advance(PROGRESS_STEP)
    if progress is not None:
        progress.advance(count % PROGRESS_STEP)
    return content


class _Scan(Generic[N]):
    """Scan of one tree. ``_directories``: of the present path, as (node, names seen)."""

    def __init__(self, builder: TreeBuilder, tree: FileTree[N], content: TreeContent[N]) -> None:
        self._builder = builder
        self._tree = tree
        self._content = content
        self._directories: list[tuple[int, bytes]] = []
        self._known: dict[tuple[int, int], int] = {}
        self._limit = tree.statfs().data_limit
        self._data_bytes = 0

    def add_root(self) -> None:
        found = self._tree.stat(self._tree.root)
        node = self._add_node(0, b"", found, 0)
        self._set_flags(node, found)
        self._set_attributes(node, self._tree.root)
        self._directories.append((node, b""))

    def add(self, walked: WalkedFile[N]) -> None:
        """Add one name. Directories come before what is in them, names of a directory in byte order."""
        row, path = walked.row, walked.path
        found = stat_of(row)
        del self._directories[walked.depth + 1 :]
        parent, before = self._directories[walked.depth]
        if row.name == before:
            raise DamagedTreeError(path, "the image is damaged: this name is in its directory twice")
        self._directories[walked.depth] = parent, row.name
        kind, file_type = found.mode & S_IFMT, file_type_of(found.mode)
        if file_type == UNKNOWN or row.file_type not in (UNKNOWN, file_type):
            raise DamagedTreeError(path, f"the image is damaged: its mode is {found.mode:#o}, want what its entry says")
        linked = found.links > 1 and file_type != DIRECTORY
        if linked:
            known = self._known.get((found.dev, found.ino))
            if known is not None:
                self._builder.link(parent, row.name, known)
                return
        target = self._tree.readlink(row.node) if kind == S_IFLNK else b""
        size = found.size if kind == S_IFREG else len(target)
        if size > MAX_OFFSET:
            raise DamagedTreeError(path, f"the image is damaged: its size is {size} bytes")
        node = self._add_node(parent, row.name, found, size)
        if kind == S_IFREG:
            self._add_data(node, row.node, path, found, plain=not row.may_have_xattrs)
        elif kind == S_IFLNK:
            self._builder.targets[node] = target
        elif kind in (S_IFCHR, S_IFBLK):
            self._builder.devices[node] = found.major, found.minor
        self._set_flags(node, found)
        if row.may_have_xattrs:
            self._set_attributes(node, row.node)
        if file_type == DIRECTORY:
            self._directories.append((node, b""))
        elif linked:
            self._known[found.dev, found.ino] = node

    def _add_node(self, parent: int, name: bytes, found: Stat, size: int) -> int:
        """Add a node with its times; only files of an ext3 image have a creation time."""
        created = found.crtime if isinstance(found, InodeStat) else None
        for column, part in zip(self._builder.created, divmod(created or 0, SECOND), strict=True):
            column.append(part)
        return self._builder.add(parent, name, found.mode, found.uid, found.gid, size, _times(found))

    def _set_flags(self, node: int, found: Stat) -> None:
        """Set the flags of chattr; only files of an ext3 image have them, and special files and symlinks not all."""
        if not isinstance(found, InodeStat):
            return
        flags = found.flags & USER_FLAGS
        if found.mode & S_IFMT not in (S_IFREG, S_IFDIR):
            flags &= ~int(InodeFlag.IMMUTABLE | InodeFlag.APPEND)
        if flags:
            self._builder.flags[node] = flags

    def _set_attributes(self, node: int, source: N) -> None:
        attributes = self._tree.xattrs(source)
        if attributes:
            self._builder.xattrs[node] = dict(attributes)

    def _add_data(self, node: int, source: N, path: bytes, found: Stat, *, plain: bool) -> None:
        """Add the data of a regular file. ``plain``: it has no attributes, which could take some of its blocks."""
        self._content.add(node, source, path)
        if plain and found.size <= PLAIN_BYTES and found.blocks * SECTOR >= found.size:
            self._count(found.size)
            return
        with self._tree.open_file(source) as file:
            on_host = segments_on_host(file) if found.size >= LARGE_BYTES else None
            segments = [(offset, length, offset) for offset, length in file.data_ranges()] if on_host is None else on_host[1]
        self._count(sum(length for _, length, _ in segments))
        if on_host is not None:
            self._content.placed[node] = segments
        elif segments == ([(0, found.size, 0)] if found.size else []):
            return
        self._builder.segments[node] = segments

    def _count(self, size: int) -> None:
        self._data_bytes += size
        check_data_limit(self._limit, self._data_bytes)


def segments_on_host(file: OpenFile) -> tuple[int, list[Segment]] | None:
    """Return the descriptor of the file of the host that all data of ``file`` lies in, and the segments of the data there.

    None if it does not lie in one. Raises OSError.
    """
    ranges = file.host_ranges()
    if not ranges or len({fd for _, fd, _, _ in ranges}) > 1:
        return None
    segments: list[Segment] = []
    for offset, _, place, length in ranges:
        if segments:
            before, size, at = segments[-1]
            if (before + size, at + size) == (offset, place):
                segments[-1] = before, size + length, at
                continue
        segments.append((offset, length, place))
    return ranges[0][1], segments


def _times(found: Stat) -> Times:
    times = (found.atime, found.mtime, found.ctime)
    seconds = [time // SECOND for time in times]
    return seconds[0], seconds[1], seconds[2], times[0] % SECOND, times[1] % SECOND, times[2] % SECOND


@contextmanager
def _errors_of(path: bytes) -> Iterator[None]:
    """Turn OSErrors of reading a tree into SourceErrors of this path; those of a damaged image stay."""
    try:
        yield
    except Ext3Error:
        raise
    except OSError as error:
        raise SourceError(path, f"cannot be read: {reason_of(error)}", error=error) from error
