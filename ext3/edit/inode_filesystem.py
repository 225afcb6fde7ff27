"""Filesystem open for changes by inode: what a server of a mounted image, and the calls by path, are made of.

Each call is one atomic operation, and no path is resolved. Inodes, their block maps and directories are cached; the cache is
bounded. What a server needs is loaded at once, and the rest by the calls that need it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from .. import hostio
from ..constants import S_IFLNK, S_IFMT, S_IFREG
from ..device.base import BlockDevice, FileDevice, PathOrFile, open_device
from ..errors import JournalFullError
from ..format.inode import Inode
from ..format.superblock import Superblock
from ..read.filesystem import Filesystem
from . import file_data, namei, rename, setattr
from .inode_cache import InodeCache
from .session import Clock, Session
from .unclosed import close_session, commit_when_forgotten, owns_file

if TYPE_CHECKING:
    from uuid import UUID

    import numpy as np
    import numpy.typing as npt

    from ..format.layout_columns import Table

__all__ = ["DirectorySnapshot", "InodeFilesystem"]

T = TypeVar("T")


class DirectorySnapshot(NamedTuple):
    """Names of a directory at one moment, in the order of the disk, ``.`` and ``..`` among them.

    ``entries``: (name, inode, file type); the types are those of FileType, 0 (unknown) in a filesystem that does not store
    them. ``generation``: of the directory's inode, which another one of the same number does not have.
    """

    generation: int
    entries: list[tuple[bytes, int, int]]


class InodeFilesystem(Filesystem):
    """Image open for changes by inode. Names are changed by the inode of their directory: methods ending in ``_at``."""

    def __init__(self, device: BlockDevice, *, clock: Clock | None = None, late_checkpoint: bool = False) -> None:
        """Recover the image on ``device`` (journal, orphan list) and begin. ``clock`` returns nanoseconds since 1970.

        ``late_checkpoint``: for many calls of ``sync``. Each costs two syncs of the device instead of four; the changes stay
        in the journal until it is full, and up to 32 MiB of them in memory. ``close`` and ``checkpoint`` empty it.
        Raise NeedsCheckError if the image is marked as damaged, UnsupportedError, CorruptError, DeviceError.
        """
        self._session = Session(device, clock=clock or time.time_ns, late_checkpoint=late_checkpoint)
        self._nodes = InodeCache(self._session)
        self.device = self._session.device
        self.journal_problem = None
        self._superblock = self._session.superblock
        self._groups = self._session.descriptors
        self._stack = ExitStack()
        self._last_inode = None
        self._chunk = (-1, b"")
        self._block_owners = None
        self._judged = {}
        self._finalizer = commit_when_forgotten(self, self._session, self._nodes, self._stack, owned=owns_file(device, device))

    @classmethod
    def open_for_changes(
        cls,
        where: PathOrFile | BlockDevice,
        *,
        offset: int = 0,
        size: int | None = None,
        clock: Clock | None = None,
        late_checkpoint: bool = False,
    ) -> Self:
        """Open an image as ``Filesystem.open`` does with mode "r+". ``late_checkpoint``: see the constructor."""
        with ExitStack() as stack:
            device: BlockDevice
            if isinstance(where, str | bytes | os.PathLike):
                # open_device would create a missing file.
                fd = os.open(where, os.O_RDWR | hostio.OPEN)
                stack.callback(os.close, fd)
                device = FileDevice(fd, offset, size)
            else:
                device = stack.enter_context(open_device(where, offset=offset, size=size))
            found = cls(device, clock=clock, late_checkpoint=late_checkpoint)
            found._stack.enter_context(stack.pop_all())
            found._finalizer.detach()
            owned = owns_file(where, device)
            found._finalizer = commit_when_forgotten(found, found._session, found._nodes, found._stack, owned=owned)
            return found

    # The filesystem as a whole

    @property
    def writable(self) -> bool:
        return True

    @property
    def superblock(self) -> Superblock:
        return self._session.superblock

    @property
    def free_counts(self) -> tuple[int, int]:
        """Free blocks and inodes, as ``superblock`` has them, which takes longer to make."""
        return self._session.free_counts

    @property
    def groups(self) -> Table:
        return self._session.groups

    @property
    def needs_recovery(self) -> bool:
        return False

    def block_bitmap(self, group: int) -> npt.NDArray[np.bool_]:
        self._session.flush()
        return super().block_bitmap(group)

    def inode_bitmap(self, group: int) -> npt.NDArray[np.bool_]:
        self._session.flush()
        return super().inode_bitmap(group)

    def change_settings(
        self, *, label: bytes | None = None, uuid: UUID | None = None, reserved_blocks: int | None = None
    ) -> None:
        """Change label, UUID and the number of blocks reserved for root, those that are not None, in the superblock and its
        copies. Raise GeometryError for a label that is too long, and more reserved blocks than half of all."""
        from .settings import change_settings

        change_settings(self._session, label=label, uuid=uuid, reserved_blocks=reserved_blocks)

    def trim(self, advance: Callable[[int], None] | None = None) -> int:
        """Commit, and give the space of free blocks back to the host. Return the bytes freed.

        ``advance``: called with the bytes of free blocks looked at. Raise DeviceError if the host cannot do that.
        """
        from .trim import trim

        return trim(self._session, advance)

    @property
    def unsynced(self) -> bool:
        """True if there are changes or written data that ``sync`` has not brought to stable storage."""
        return self._session.unsynced

    @property
    def usable(self) -> bool:
        """False after a write that failed, and after ``close``: nothing more is written, and what was not committed is lost."""
        return self._session.usable

    def sync(self) -> None:
        """Commit all changes to stable storage. After a DeviceError nothing more is written."""
        self._session.sync()

    def checkpoint(self) -> None:
        """Commit all changes, put them in their places and mark the image as clean, as ``close`` does; then go on."""
        self._session.checkpoint()

    def close(self) -> None:
        """Delete open files without names, sync, mark the image as clean and close the file that ``open`` opened.

        Left open and collected, it is committed with a ResourceWarning; on a caller's descriptor or device it only warns.
        """
        self._finalizer.detach()
        try:
            close_session(self._session, self._nodes)
        finally:
            super().close()

    def abandon(self) -> None:
        """Close without a commit: unsynced changes are lost. The next open deletes synced files without names."""
        self._finalizer.detach()
        self._nodes.abandon()
        try:
            self._session.abandon()
        finally:
            super().close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close; after an exception without a commit."""
        if kind is None:
            self.close()
        else:
            self.abandon()

    # Inodes and paths

    def inode(self, ino: int) -> Inode:
        return self._nodes.inode(ino)

    def find_name(self, directory: int, name: bytes) -> int | None:
        return namei.find(self._nodes, directory, name)

    def atomically(self, work: Callable[[], T]) -> T:
        """Run ``work``, which changes names and attributes by calls of this object, as one operation. Return its result.

        All of it takes effect, or nothing. Where the journal is short it is run once more, after a commit. Calls that may
        need several operations (those that change content, ``release``) are made outside; ``hold`` a large file
        before ``work`` removes its last name.
        """
        return self._run(work)

    def _run(self, work: Callable[[], T]) -> T:
        return self._nodes.run(work)

    # Names, by directory

    def mkdir_at(self, parent: int, name: bytes, mode: int = 0o755, *, uid: int = 0, gid: int = 0, umask: int = 0) -> int:
        """Create a directory. Return its inode. ``umask`` applies to the mode unless the parent has a default ACL."""
        return self._run(lambda: namei.make_directory(self._nodes, parent, name, mode, uid=uid, gid=gid, umask=umask)).ino

    def mknod_at(
        self,
        parent: int,
        name: bytes,
        mode: int,
        *,
        rdev: tuple[int, int] = (0, 0),
        uid: int = 0,
        gid: int = 0,
        umask: int = 0,
    ) -> int:
        """Create a file, FIFO, socket or device by the type in ``mode``. Return its inode. ``umask``: see ``mkdir_at``."""
        make = partial(namei.make_node, self._nodes, parent, name, mode, uid=uid, gid=gid, device=rdev, umask=umask)
        return self._run(make).ino

    def create_at(self, parent: int, name: bytes, mode: int = 0o644, *, uid: int = 0, gid: int = 0, umask: int = 0) -> int:
        """Create an empty file. Return its inode. Raise PathExistsError. ``umask``: see ``mkdir_at``."""
        return self.mknod_at(parent, name, S_IFREG | mode & 0o7777, uid=uid, gid=gid, umask=umask)

    def create_nameless(
        self,
        parent: int,
        mode: int = 0o644,
        *,
        target: bytes | None = None,
        rdev: tuple[int, int] = (0, 0),
        uid: int = 0,
        gid: int = 0,
        umask: int = 0,
    ) -> int:
        """Create a file without a name, for directory ``parent``. Return its inode, with one ``hold``.

        ``mode`` has the type, which is no directory's; without one it is a regular file. ``target``: of a symbolic link.
        ``name_at`` gives it a name. ``release`` deletes it if it has none by then; so does recovery after a crash.
        ``umask``: see ``mkdir_at``.
        """
        if not mode & S_IFMT:
            mode |= S_IFREG
        if mode & S_IFMT == S_IFLNK:
            mode |= 0o777
        make = partial(
            namei.make_nameless, self._nodes, parent, mode, uid=uid, gid=gid, device=rdev, target=target, umask=umask
        )  # fmt: skip
        ino = self._run(make).ino
        self._nodes.hold(ino)
        return ino

    def name_at(self, ino: int, parent: int, name: bytes) -> None:
        """Add the first name of a file from ``create_nameless``. Raise PathExistsError."""
        self._run(lambda: namei.give_name(self._nodes, ino, parent, name))

    def symlink_at(self, target: bytes, parent: int, name: bytes, *, uid: int = 0, gid: int = 0) -> int:
        """Create a symbolic link. Return its inode."""
        make = partial(namei.make_node, self._nodes, parent, name, S_IFLNK | 0o777, uid=uid, gid=gid, target=target)
        return self._run(make).ino

    def link_at(self, ino: int, parent: int, name: bytes) -> None:
        """Create a hard link to a file."""
        self._run(lambda: namei.link(self._nodes, ino, parent, name))

    def unlink_at(self, parent: int, name: bytes) -> None:
        """Remove a name of a file that is not a directory."""
        self._run_removal(lambda: namei.unlink(self._nodes, parent, name), parent, name)

    def rmdir_at(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        self._run_removal(lambda: namei.rmdir(self._nodes, parent, name), parent, name)

    def rename_at(
        self,
        old_parent: int,
        old_name: bytes,
        new_parent: int,
        new_name: bytes,
        *,
        exchange: bool = False,
        replace: bool = True,
        whiteout: bool = False,
    ) -> None:
        """Rename an entry; see ``rename``."""
        old, new = (old_parent, old_name), (new_parent, new_name)
        if exchange:
            if whiteout or not replace:
                raise ValueError("exchange leaves no whiteout, and what it exchanges is there")
            self._run(lambda: rename.exchange(self._nodes, old, new))
            return
        self._run_removal(
            lambda: rename.rename(self._nodes, old, new, replace=replace, whiteout=whiteout), new_parent, new_name
        )  # fmt: skip

    def _run_removal(self, work: Callable[[], None], parent: int, name: bytes) -> None:
        """Run ``work``, which removes the name of an inode. Delete the inode in steps if one does not fit the journal."""
        try:
            self._run(work)
            return
        except JournalFullError:
            ino = None if self._session.in_operation else namei.find(self._nodes, parent, name)
            if ino is None:
                raise
        self._nodes.hold(ino)  # it becomes an orphan first
        try:
            self._run(work)
        finally:
            self._nodes.release(ino)

    def list_directory(self, ino: int) -> DirectorySnapshot:
        """Return the names of a directory as they are now. Raise PathNotDirectoryError, CorruptError."""
        node = self._nodes.load(ino)
        return DirectorySnapshot(node.record.generation, self._nodes.directory(node).listed())

    def remove_tree_at(self, parent: int, name: bytes) -> None:
        """Remove a file, or a directory and everything below it, name by name."""
        from .tree_removal import remove_tree

        remove_tree(self, self._nodes, parent, name)

    def hold(self, ino: int) -> None:
        """Keep the inode when its last name is removed, until ``release`` was called once for each ``hold``."""
        self._nodes.hold(ino)

    def release(self, ino: int) -> None:
        """Undo one ``hold``; the last one deletes an inode without names."""
        self._nodes.release(ino)

    @property
    def has_orphans(self) -> bool:
        """True if there are files without a name: deleted when they are released."""
        return self._session.last_orphan != 0

    # Content and attributes

    def read_at(self, ino: int, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of a regular file from byte ``offset``, fewer at its end."""
        return file_data.read(self._nodes, ino, offset, size)

    def write_at(self, ino: int, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at byte ``offset`` of a regular file. Raise NoSpaceError with nothing written."""
        file_data.write_all(self._nodes, ino, offset, data)

    def set_attributes(
        self,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
    ) -> None:
        """Set the permission bits, the owner, the size of a file and the times (nanoseconds since 1970) that are not None.

        All together, as one operation, to the same end as ``chown``, ``chmod``, ``truncate`` and ``utimens`` in this order:
        set-id bits in ``mode`` stay, and so do the times.
        """
        setattr.set_attributes(
            self._nodes, ino, mode=mode, uid=uid, gid=gid, size=size, atime=atime, mtime=mtime
        )  # fmt: skip

    def data_ranges_at(self, ino: int) -> list[tuple[int, int]]:
        """Return (offset, length) in bytes of what is not a hole of a regular file, ascending."""
        return file_data.data_ranges(self._nodes, ino)

    def set_xattr_at(
        self, ino: int, name: bytes, value: bytes, *, create: bool = False, replace: bool = False
    ) -> None:  # fmt: skip
        """Set an attribute; see ``set_xattr``."""
        self._run(lambda: setattr.set_attribute(self._nodes, ino, name, value, create=create, replace=replace))

    def remove_xattr_at(self, ino: int, name: bytes) -> None:
        """Remove an attribute. Raise XattrError (ENODATA) if it does not exist."""
        self._run(lambda: setattr.remove_attribute(self._nodes, ino, name))

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """Return the value of an attribute by its full name, None if there is none; see ``xattrs``."""
        node = self._nodes.load(ino)
        return self._nodes.attributes(node).get(name) if self._nodes.has_attributes(node) else None
