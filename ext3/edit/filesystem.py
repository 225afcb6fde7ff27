"""WritableFilesystem: an image open for changes, by path or by inode; a subclass of Filesystem.

Each call is one atomic operation. Operations are committed together, by ``sync`` and ``close`` and when the journal fills;
after a crash the image is in the state of one of the commits. An exception inside ``with`` takes back what was not committed.
Permissions are not checked: a call does what the kernel does for root. Changing the owner of a file clears its set-id bits,
writing to it does not; both remove its capabilities. Locks, and copies of images without a journal, are up to the caller.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from .. import hostio
from ..constants import S_IFLNK, S_IFMT, S_IFREG
from ..device.base import BlockDevice, FileDevice, PathOrFile, open_device
from ..errors import JournalFullError, PathIsDirectoryError
from ..format.inode import Inode
from ..format.layout import Table
from ..format.superblock import Superblock
from ..read.filesystem import Filesystem, PathOrIno
from ..read.path_walk import AnyPath, path_bytes
from . import file_data, namei, rename, setattr
from .copy_file import SourceFile, SourceStream, copy_file
from .file_handle import FileEditor
from .inode_cache import InodeCache
from .path_args import PathArguments, errors_name
from .session import Clock, Session
from .settings import change_settings
from .tree_removal import remove_tree
from .trim import trim
from .unclosed import close_session, commit_when_forgotten, owns_file

__all__ = ["WritableFilesystem"]

T = TypeVar("T")


class WritableFilesystem(Filesystem):
    """Image open for changes; see ``Filesystem.open``. Methods ending in ``_at`` take inodes of directories."""

    def __init__(self, device: BlockDevice, *, clock: Clock | None = None, late_checkpoint: bool = False) -> None:
        """Recover the image on ``device`` (journal, orphan list) and begin. ``clock`` returns nanoseconds since 1970.

        ``late_checkpoint``: for many calls of ``sync``. Each costs two syncs of the device instead of four; the changes stay
        in the journal until it is full, and up to 32 MiB of them in memory. ``close`` and ``checkpoint`` empty it.
        Raise NeedsCheckError if the image is marked as damaged, UnsupportedError, CorruptError, DeviceError.
        """
        self._session = Session(device, clock=clock or time.time_ns, late_checkpoint=late_checkpoint)
        self._nodes = InodeCache(self._session)
        self._paths = PathArguments(self, self._nodes)
        self.device = self._session.device
        self.journal_problem = None
        self._superblock = self._session.superblock
        self._groups = self._session.groups
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
        change_settings(self._session, label=label, uuid=uuid, reserved_blocks=reserved_blocks)

    def trim(self, advance: Callable[[int], None] | None = None) -> int:
        """Commit, and give the space of free blocks back to the host. Return the bytes freed.

        ``advance``: called with the bytes of free blocks looked at. Raise DeviceError if the host cannot do that.
        """
        return trim(self._session, advance)

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

    def remove_tree_at(self, parent: int, name: bytes) -> None:
        """Remove a file, or a directory and everything below it, name by name."""
        remove_tree(self, self._nodes, parent, name)

    def hold(self, ino: int) -> None:
        """Keep the inode when its last name is removed, until ``release`` was called once for each ``hold``."""
        self._nodes.hold(ino)

    def release(self, ino: int) -> None:
        """Undo one ``hold``; the last one deletes an inode without names."""
        self._nodes.release(ino)

    # Names, by path

    def mkdir(self, path: AnyPath, mode: int = 0o755, uid: int = 0, gid: int = 0) -> int:
        """Create a directory. Return its inode.

        Raise PathExistsError, PathNotFoundError, PathNotDirectoryError, NoSpaceError.
        """
        with errors_name(path):
            return self.mkdir_at(*self._paths.resolve_parent(path), mode, uid=uid, gid=gid)

    def mknod(self, path: AnyPath, mode: int, rdev: tuple[int, int] = (0, 0), uid: int = 0, gid: int = 0) -> int:
        """Create a file, FIFO, socket or device (``rdev``: major, minor). Return its inode."""
        with errors_name(path):
            return self.mknod_at(*self._paths.for_create(path), mode, rdev=rdev, uid=uid, gid=gid)

    def create(self, path: AnyPath, mode: int = 0o644, *, uid: int = 0, gid: int = 0, exclusive: bool = True) -> int:
        """Create an empty file. Return its inode. An existing file raises PathExistsError if ``exclusive``, else is returned.

        A symbolic link is followed unless ``exclusive``: the file it leads to is returned, or created.
        """
        with errors_name(path):
            if exclusive:
                return self.create_at(*self._paths.for_create_file(path), mode, uid=uid, gid=gid)
            directory, name, ino = self._paths.for_open(path)
            if ino is None:
                return self.create_at(directory, name, mode, uid=uid, gid=gid)
            if self.inode(ino).stat.is_dir:
                raise PathIsDirectoryError(name, "Is a directory")
            return ino

    def symlink(self, target: AnyPath, path: AnyPath, uid: int = 0, gid: int = 0) -> int:
        """Create a symbolic link to ``target``. Return its inode."""
        with errors_name(path):
            return self.symlink_at(path_bytes(target), *self._paths.for_create(path), uid=uid, gid=gid)

    def link(self, existing: PathOrIno, path: AnyPath) -> None:
        """Create a hard link to ``existing`` (to a symbolic link itself)."""
        with errors_name(path):
            self.link_at(self._paths.resolve(existing, False), *self._paths.for_create(path))

    def unlink(self, path: AnyPath) -> None:
        """Remove a name of a file that is not a directory."""
        with errors_name(path):
            self.unlink_at(*self._paths.for_remove(path))

    def rmdir(self, path: AnyPath) -> None:
        """Remove an empty directory. Raise PathNotEmptyError."""
        with errors_name(path):
            self.rmdir_at(*self._paths.resolve_parent(path))

    def rename(
        self, old: AnyPath, new: AnyPath, *, exchange: bool = False, replace: bool = True, whiteout: bool = False
    ) -> None:  # fmt: skip
        """Rename an entry, replacing an existing one (a file by a file, an empty directory by a directory).

        ``replace`` False: raise PathExistsError instead. ``exchange``: swap the two entries. ``whiteout``: leave a
        character device 0, 0 at the old name. Raise PathError (EINVAL) if a directory would move below itself.
        """
        with errors_name(old, new):
            source = self._paths.for_remove(old)
            goal = self._paths.for_remove(new) if exchange else self._paths.for_rename(new, source, replace=replace)
            self.rename_at(*source, *goal, exchange=exchange, replace=replace, whiteout=whiteout)

    def remove_tree(self, path: AnyPath) -> None:
        """Remove a file, or a directory and everything below it, name by name."""
        with errors_name(path):
            self.remove_tree_at(*self._paths.for_remove(path))

    # Content

    def open_file(self, path_or_ino: PathOrIno, mode: str = "r") -> FileEditor:  # type: ignore[override]
        """Open a regular file for reading ("r") or changes ("r+"), as a seekable binary file. Writes are visible at once."""
        if mode not in ("r", "r+"):
            raise ValueError(f"mode {mode!r} is not 'r' or 'r+'")
        with errors_name(path_or_ino):
            ino = self._paths.resolve(path_or_ino, True)
            return FileEditor(self._nodes, ino, writable=mode == "r+", filesystem=self)

    def write_bytes(self, path: PathOrIno, data: bytes | bytearray | memoryview) -> None:
        """Create a file with this content, or replace the content of an existing file; symbolic links are followed."""
        with errors_name(path):
            if isinstance(path, int):
                file_data.replace(self._nodes, path, data)
                return
            directory, name, ino = self._paths.for_open(path)
            if ino is not None:
                file_data.replace(self._nodes, ino, data)
                return
            try:
                self._run(lambda: self._create_filled(directory, name, data))
            except JournalFullError:
                ino = self.create_nameless(directory)
                try:
                    file_data.write_all(self._nodes, ino, 0, data)
                    self.name_at(ino, directory, name)
                finally:
                    self.release(ino)

    def _create_filled(self, parent: int, name: bytes, data: bytes | bytearray | memoryview) -> None:
        node = namei.make_node(self._nodes, parent, name, S_IFREG | 0o644, uid=0, gid=0)
        file_data.write(self._nodes, node.ino, 0, data)

    def truncate(self, path: PathOrIno, size: int) -> None:
        """Truncate a file to ``size`` bytes, or extend it by a hole."""
        with errors_name(path):
            self.set_attributes(self._paths.resolve(path, True), size=size)

    def punch_hole(self, path: PathOrIno, offset: int, length: int) -> None:
        """Free the whole blocks of a range and zero the rest; the size stays."""
        with errors_name(path):
            file_data.punch(self._nodes, self._paths.resolve(path, True), offset, length)

    def write_from(
        self, path: PathOrIno, source: SourceFile | SourceStream | int, *, advance: Callable[[int], None] | None = None
    ) -> int:
        """Replace the content of an existing file by that of an open file. Return its size in bytes.

        ``source``: a descriptor or a binary file, also of a pipe, another stream, or any SourceFile. Holes stay holes.
        ``advance`` is called with the bytes copied since its last call. The file is truncated first, and again on failure.
        Raise NoSpaceError if the source does not fit, before anything is changed where its size is known, and SourceError if
        the source cannot be read.
        """
        with errors_name(path):
            return copy_file(self._nodes, self._paths.resolve(path, True), source, advance or (lambda count: None))

    # Metadata

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

    def chmod(self, path: PathOrIno, mode: int, *, follow: bool = True) -> None:
        """Set the permission bits and update the access ACL."""
        with errors_name(path):
            self.set_attributes(self._paths.resolve(path, follow), mode=mode)

    def chown(self, path: PathOrIno, uid: int | None, gid: int | None, *, follow: bool = True) -> None:
        """Set owner and group if not None; clear set-id bits and capabilities of files, as the kernel does."""
        with errors_name(path):
            ino = self._paths.resolve(path, follow)
            if uid is None and gid is None:
                uid = self.inode(ino).stat.uid  # bits and capabilities are cleared all the same
            self.set_attributes(ino, uid=uid, gid=gid)

    def utimens(self, path: PathOrIno, atime_ns: int | None, mtime_ns: int | None, *, follow: bool = True) -> None:
        """Set access and modification time if not None, in nanoseconds since 1970."""
        with errors_name(path):
            self.set_attributes(self._paths.resolve(path, follow), atime=atime_ns, mtime=mtime_ns)

    def touch(self, path: PathOrIno, *, follow: bool = True) -> None:
        """Set the access and modification times to now."""
        now = self._session.nanoseconds
        self.utimens(path, now, now, follow=follow)

    def set_xattr(
        self,
        path: PathOrIno,
        name: bytes,
        value: bytes,
        *,
        create: bool = False,
        replace: bool = False,
        follow: bool = True,
    ) -> None:
        """Set an attribute by its full name. ACLs have the form of the system calls and update the mode. Raise XattrError."""
        with errors_name(path):
            ino = self._paths.resolve(path, follow)
            self._run(lambda: setattr.set_attribute(self._nodes, ino, name, value, create=create, replace=replace))

    def remove_xattr(self, path: PathOrIno, name: bytes, *, follow: bool = True) -> None:
        """Remove an attribute. Raise XattrError (ENODATA) if it does not exist."""
        with errors_name(path):
            ino = self._paths.resolve(path, follow)
            self._run(lambda: setattr.remove_attribute(self._nodes, ino, name))
