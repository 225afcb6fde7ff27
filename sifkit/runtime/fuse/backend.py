"""Backend of a FUSE server: the one interface between the protocol and what is served.

Node ids are numbers of the backend's choice, 1 for the root; each is valid until the kernel forgets it as often as it was
handed out by ``lookup`` and ``entry``. Calls raise OSError with an errno, which the kernel gives to the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = [
    "AttributeChanges",
    "Attributes",
    "Backend",
    "Entry",
    "FilesystemTotals",
    "ListedName",
    "Names",
    "WritableBackend",
    "format_bits",
    "is_shown_xattr",
]


_FORMAT_OF_TYPE = (0, 0o10, 0o04, 0o02, 0o06, 0o01, 0o14, 0o12)


class Attributes(NamedTuple):
    """Metadata of a file. Times: nanoseconds since 1970; ``blocks``: of 512 bytes; ``rdev``: see ``protocol.encode_device``."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    mode: int
    links: int
    uid: int
    gid: int
    rdev: int


class Entry(NamedTuple):
    """Node that a name leads to. The kernel tells nodes of equal ids apart by ``generation``."""

    node: int
    generation: int
    attributes: Attributes


class ListedName(NamedTuple):
    """Name in a directory; ``file_type``: the format bits of its mode, shifted right by 12, 0 if unknown.

    ``position``: the backend's own.
    """

    name: bytes
    ino: int
    file_type: int
    position: int = 0


class Names(Protocol):
    """Names of a directory, in the order in which they are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ListedName: ...


class AttributeChanges(NamedTuple):
    """Attributes to set, those that are not None. ``clears_set_id``: set-id bits go, unless ``mode`` says otherwise."""

    mode: int | None
    uid: int | None
    gid: int | None
    size: int | None
    atime: int | None
    mtime: int | None
    clears_set_id: bool


class FilesystemTotals(NamedTuple):
    """Totals in blocks of ``block_size`` bytes."""

    blocks: int
    free_blocks: int
    available_blocks: int
    inodes: int
    free_inodes: int
    block_size: int


def format_bits(file_type: int) -> int:
    """Return the format bits of a mode, shifted right by 12, for the file type of a directory entry in ext2."""
    return _FORMAT_OF_TYPE[file_type & 7]


def is_shown_xattr(name: bytes, uid: int) -> bool:
    """Return whether a mount in a user namespace shows an xattr; ``uid``: owner of all files there.

    The kernel lists the others, but lets nobody there read them, and overlayfs copies no file up whose xattrs it cannot read:
    those of root, ACLs of FUSE, and capabilities where root is no user of the namespace.
    """
    return not name.startswith((b"trusted.", b"system.posix_acl_")) and (name != b"security.capability" or uid == 0)


class Backend(Protocol):
    """Tree that nobody else changes."""

    @property
    def valid_seconds(self) -> int:
        """Time for which the kernel may keep names and attributes without asking again."""
        ...

    def lookup(self, directory: int, name: bytes, /) -> Entry | None:
        """Return the node of a name and count it as handed out; None if there is no such name."""
        ...

    def forget(self, node: int, count: int, /) -> None: ...

    def attributes(self, node: int, /) -> Attributes: ...

    def readlink(self, node: int, /) -> bytes: ...

    def read(self, node: int, offset: int, size: int, /) -> bytes | memoryview: ...

    def data_ranges(self, node: int, /) -> Sequence[tuple[int, int]]:
        """Return start and length of what is no hole in a file, in order, with a hole between any two."""
        ...

    def list_directory(self, node: int, /) -> Names:
        """Return the names of a directory without ``.`` and ``..``; the same ones while the kernel reads it in parts."""
        ...

    def entry(self, directory: int, listed: ListedName, /) -> Entry | None:
        """Return the node of a name of ``list_directory``, counted as ``lookup`` does; None if it cannot be read."""
        ...

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]: ...

    def totals(self) -> FilesystemTotals: ...


class WritableBackend(Backend, Protocol):
    """Tree that the kernel changes. Each call but ``write`` takes effect as a whole, or not at all."""

    def commit(self) -> None:
        """Bring all changes to stable storage."""
        ...

    def close(self) -> None:
        """Commit, and end the work with the filesystem."""
        ...

    def has_changes(self) -> bool:
        """Return True if there is something to commit."""
        ...

    def fsync(self, node: int, /) -> None: ...

    def is_known(self, node: int, /) -> bool:
        """Return whether the kernel has a node that was handed out."""
        ...

    def has_removed(self) -> bool:
        """Return whether files without a name take up room until the kernel forgets them."""
        ...

    def is_private(self, directory: int, /) -> bool:
        """Return whether overlayfs alone uses a directory."""
        ...

    def again(self, node: int, /) -> Entry:
        """Hand out a node that the kernel has once more."""
        ...

    def xattr(self, node: int, name: bytes, /) -> bytes | None: ...

    def set_attributes(self, node: int, changes: AttributeChanges, /) -> Attributes: ...

    def write(self, node: int, offset: int, data: memoryview, clears_set_id: bool, /) -> int:
        """Write the beginning of ``data`` that there is room for; return its length. Raises OSError (ENOSPC) for none."""
        ...

    def make_node(self, directory: int, name: bytes, mode: int, device: tuple[int, int], /) -> Entry: ...

    def make_directory(self, directory: int, name: bytes, mode: int, /) -> Entry: ...

    def make_nameless(self, directory: int, mode: int, /) -> Entry:
        """Create a file without a name, which ``link`` may give it later."""
        ...

    def make_symlink(self, directory: int, name: bytes, target: bytes, /) -> Entry: ...

    def link(self, node: int, directory: int, name: bytes, /) -> Entry: ...

    def unlink(self, directory: int, name: bytes, /) -> int | None:
        """Remove a name; return the node it led to if the kernel knows that by another name."""
        ...

    def rmdir(self, directory: int, name: bytes, /) -> None: ...

    def rename(
        self,
        directory: int,
        name: bytes,
        new_directory: int,
        new_name: bytes,
        /,
        *,
        replace: bool,
        exchange: bool,
        whiteout: bool,
    ) -> int | None:
        """Rename; return the node that ``new_name`` led to, as ``unlink`` does."""
        ...

    def set_xattr(self, node: int, name: bytes, value: bytes, /, *, create: bool, replace: bool) -> None: ...

    def remove_xattr(self, node: int, name: bytes, /) -> None: ...
