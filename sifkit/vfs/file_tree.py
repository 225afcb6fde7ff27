"""FileTree: the one interface for reading a tree of files, whatever holds it: ext3, a directory of the host, a view of others.

Rules of the interface:

* Nodes identify files; they are hashable and opaque, and stay valid until the tree changes. Where they have an order, files
  are mostly stored in it. The identity of hard links is (dev, ino) of the Stat, never the node.
* Single calls raise OSError with an errno (EUCLEAN, or EIO where the system has none, for a damaged image). Calls for many
  files return errors as values and go on.
* Names contain neither ``/`` nor NUL and are never ``.`` or ``..``, which the resolver handles. Symlinks are not followed.
* Read calls may come from several threads, and from forked processes: they use no file position that is shared.
* A tree has no close: whoever opened it closes it.

``TreeStat``, ``TreeRow``, ``TreeListing``, ``TreeFile`` and ``TreeStatFS`` are values for trees that have none of their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

__all__ = [
    "BLOCK_DEVICE",
    "CHARACTER_DEVICE",
    "DIRECTORY",
    "FIFO",
    "REGULAR",
    "SOCKET",
    "SYMLINK",
    "UNKNOWN",
    "FileTree",
    "Listing",
    "Loaded",
    "OpenFile",
    "Row",
    "Stat",
    "StatFS",
    "TreeFile",
    "TreeListing",
    "TreeRow",
    "TreeStat",
    "TreeStatFS",
    "file_type_of",
    "is_directory",
    "stat_of",
]

UNKNOWN, REGULAR, DIRECTORY, CHARACTER_DEVICE, BLOCK_DEVICE, FIFO, SOCKET, SYMLINK = range(8)
"""File types of directory entries, numbered as in ext2."""
_TYPE_OF_FORMAT = {
    0o100000: REGULAR,
    0o040000: DIRECTORY,
    0o020000: CHARACTER_DEVICE,
    0o060000: BLOCK_DEVICE,
    0o010000: FIFO,
    0o140000: SOCKET,
    0o120000: SYMLINK,
}

N = TypeVar("N", bound=Hashable)
N_co = TypeVar("N_co", bound=Hashable, covariant=True)


def file_type_of(mode: int) -> int:
    """Return the file type of a mode, UNKNOWN for format bits that mean nothing."""
    return _TYPE_OF_FORMAT.get(mode & 0o170000, UNKNOWN)


class Stat(Protocol):
    """Metadata of a file. Times are nanoseconds since 1970; ``blocks`` counts 512 bytes.

    (``dev``, ``ino``) is the same for all hard links of a file. ``major`` and ``minor`` are 0 except for devices.
    """

    @property
    def ino(self) -> int: ...
    @property
    def dev(self) -> int: ...
    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def links(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def atime(self) -> int: ...
    @property
    def mtime(self) -> int: ...
    @property
    def ctime(self) -> int: ...
    @property
    def major(self) -> int: ...
    @property
    def minor(self) -> int: ...


class Row(Protocol[N_co]):
    """Entry of a directory.

    ``file_type``: a number as in ext2, UNKNOWN if only the Stat tells. ``stat``: None if it was not asked for.
    """

    @property
    def name(self) -> bytes: ...
    @property
    def node(self) -> N_co: ...
    @property
    def file_type(self) -> int: ...
    @property
    def stat(self) -> Stat | OSError | None: ...
    @property
    def may_have_xattrs(self) -> bool: ...


class Listing(Protocol[N_co]):
    """Content of the directory ``node``: rows in byte order of names.

    ``problem``: the error that cut it short. ``directory_bytes``: what the directory itself takes, without its files.
    """

    @property
    def node(self) -> N_co: ...
    @property
    def rows(self) -> Sequence[Row[N_co]]: ...
    @property
    def problem(self) -> OSError | None: ...
    @property
    def directory_bytes(self) -> int: ...


class Loaded(Protocol[N_co]):
    """File number ``position`` of those asked for.

    ``content``: of a small regular file without holes, valid until the next file is loaded; None: open it.
    """

    @property
    def position(self) -> int: ...
    @property
    def node(self) -> N_co: ...
    @property
    def stat(self) -> Stat | OSError: ...
    @property
    def xattrs(self) -> Mapping[bytes, bytes] | OSError: ...
    @property
    def content(self) -> bytes | memoryview | OSError | None: ...


class OpenFile(Protocol):
    """Open regular file of ``size`` bytes; a context manager."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int, /) -> bytes:
        """Return ``size`` bytes from byte ``offset``, fewer at the end of the file. Holes read as zeros. Thread-safe."""
        ...

    def data_ranges(self) -> Sequence[tuple[int, int]]:
        """Return (offset, length) in bytes of what is not a hole, ascending, with a hole between any two."""
        ...

    def host_ranges(self) -> Sequence[tuple[int, int, int, int]] | None:
        """Return (offset, descriptor, offset there, length) of the data ranges, for copies in the kernel; None: read it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


class StatFS(Protocol):
    """Totals of a filesystem, in bytes and inodes. ``available_bytes``: what users may allocate.

    ``metadata_bytes``, ``journal_bytes``: what the filesystem itself takes of the total; 0 where that is not known.

    ``data_limit``: no more bytes of data than this can be in its files; None if files may share blocks.
    """

    @property
    def total_bytes(self) -> int: ...
    @property
    def free_bytes(self) -> int: ...
    @property
    def available_bytes(self) -> int: ...
    @property
    def inodes(self) -> int: ...
    @property
    def free_inodes(self) -> int: ...
    @property
    def data_limit(self) -> int | None: ...
    @property
    def metadata_bytes(self) -> int: ...
    @property
    def journal_bytes(self) -> int: ...


class FileTree(Protocol[N]):
    """Tree of files. ``N`` identifies a file in it: an inode number, a path, a tuple."""

    @property
    def root(self) -> N: ...

    def stat(self, node: N, /) -> Stat: ...

    def find_name(self, directory: N, name: bytes, /) -> N | None:
        """Return the node of a name in a directory, None if there is none."""
        ...

    def scan_many(self, directories: Sequence[N], /, *, stats: bool = True) -> Iterator[Listing[N]]:
        """Iterate over the listings of ``directories``, in this order. Lazy: the caller may stop at any time."""
        ...

    def load_many(self, nodes: Sequence[N], /, *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[Loaded[N]]:
        """Load files with attributes and the content of regular files up to ``limit`` bytes where that is cheap.

        Without ``keep_order`` in the order in which they are stored.
        """
        ...

    def readlink(self, node: N, /) -> bytes: ...

    def xattrs(self, node: N, /) -> Mapping[bytes, bytes]:
        """Return full name -> value, in the form of the host's system calls."""
        ...

    def open_file(self, node: N, /) -> OpenFile:
        """Open a regular file; IsADirectoryError, or OSError (EINVAL) for another type."""
        ...

    def statfs(self) -> StatFS: ...


class TreeStat(NamedTuple):
    """See ``Stat``."""

    ino: int
    dev: int
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    major: int
    minor: int


class TreeRow(NamedTuple, Generic[N]):
    """See ``Row``."""

    name: bytes
    node: N
    file_type: int
    stat: Stat | OSError | None
    may_have_xattrs: bool


class TreeListing(NamedTuple, Generic[N]):
    """See ``Listing``."""

    node: N
    rows: Sequence[Row[N]]
    problem: OSError | None
    directory_bytes: int


class TreeFile(NamedTuple, Generic[N]):
    """See ``Loaded``."""

    position: int
    node: N
    stat: Stat | OSError
    xattrs: Mapping[bytes, bytes] | OSError
    content: bytes | memoryview | OSError | None


class TreeStatFS(NamedTuple):
    """See ``StatFS``."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
    inodes: int
    free_inodes: int
    data_limit: int | None
    metadata_bytes: int = 0
    journal_bytes: int = 0


def stat_of(row: Row[N]) -> Stat:
    """Return the Stat of a row that was read with Stats. Raises the error of reading it."""
    found = row.stat
    if isinstance(found, OSError):
        raise found
    assert found is not None
    return found


def is_directory(row: Row[N]) -> bool:
    """Return True if an entry is a directory, by its type or, if that is unknown, its Stat."""
    if row.file_type == UNKNOWN and row.stat is not None and not isinstance(row.stat, OSError):
        return row.stat.mode & 0o170000 == 0o040000
    return row.file_type == DIRECTORY
