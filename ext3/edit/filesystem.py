"""WritableFilesystem: an image that is open for changes, by path or by inode; everything a Filesystem reads, it reads too.

Each call is one operation: all of it happens or nothing. Operations become safe together, at ``sync`` and ``close`` and
whenever the journal fills; a crash leaves the image as it was after one of them. Nobody is asked for permission: who may
write the image owns what is in it, and a call does what the kernel does for root: set-id bits go when a file changes its
owner, and stay when it is written to; capabilities go with both. Locks, and copies of images without a journal,
are the caller's business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import IO, Self, TypeVar

import numpy as np
import numpy.typing as npt

from .. import hostio
from ..constants import S_IFREG
from ..device.base import BlockDevice, FileDevice, PathOrFile, open_device
from ..errors import JournalFullError, PathIsDirectoryError
from ..format.inode import Inode
from ..format.layout import Table
from ..format.superblock import Superblock
from ..read.filesystem import Filesystem, PathOrIno
from . import file_data, namei, rename, setattr
from .file_handle import FileEditor
from .inode_cache import InodeCache
from .path_args import Path, PathArguments, errors_name
from .session import Clock, Session
from .tree_removal import remove_tree

__all__ = ["WritableFilesystem"]

T = TypeVar("T")


class WritableFilesystem(Filesystem):
    """An image open for changes; see ``Filesystem.open``. Methods ending in ``_at`` take inodes of directories."""

    def __init__(self, device: BlockDevice, *, clock: Clock | None = None) -> None:
        """Put the image on ``device`` in order (journal, orphan list) and begin. ``clock`` gives nanoseconds since 1970.

        Raises NeedsCheckError for an image that is marked as damaged, UnsupportedError, CorruptError, DeviceError.
        """
        self._session = Session(device, clock=clock or time.time_ns)
        self._nodes = InodeCache(self._session)
        self._paths = PathArguments(self, self._nodes)
        self.device = self._session.device
        self.journal_problem = None
        self._superblock = self._session.superblock
        self._groups = self._session.groups
        self._stack = ExitStack()
        self._last_inode = None
        self._chunk = (-1, b"")
        self._judged = (0, 0)

    @classmethod
    def open_for_changes(
        cls, where: PathOrFile | BlockDevice, *, offset: int = 0, size: int | None = None, clock: Clock | None = None
    ) -> Self:
        """``Filesystem.open`` with mode "r+"."""
        with ExitStack() as stack:
            device: BlockDevice
            if isinstance(where, str | bytes | os.PathLike):
                # open_device would make a file that is not there.
                fd = os.open(where, os.O_RDWR | hostio.OPEN)
                stack.callback(os.close, fd)
                device = FileDevice(fd, offset, size)
            else:
                device = stack.enter_context(open_device(where, offset=offset, size=size))
            found = cls(device, clock=clock)
            found._stack = stack.pop_all()
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

    def sync(self) -> None:
        """Commit: what was done so far survives whatever happens. DeviceError: nothing more is written."""
        self._session.sync()

    def close(self) -> None:
        """Sync, delete files without names that are still open, mark the image as clean and close what ``open`` opened."""
        try:
            try:
                self._nodes.release_all()
            finally:
                self._nodes.abandon()
                self._session.close()
        finally:
            super().close()

    def abandon(self) -> None:
        """Close; what was not synced is lost. Files without names that were synced are deleted by the next open."""
        self._nodes.abandon()
        self._session.abandon()
        super().close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Inodes and paths

    def inode(self, ino: int) -> Inode:
        return self._nodes.inode(ino)

    def find_name(self, directory: int, name: bytes) -> int | None:
        return namei.find(self._nodes, directory, name)

    def _run(self, work: Callable[[], T]) -> T:
        return self._nodes.run(work)

    # Names, by directory

    def mkdir_at(self, parent: int, name: bytes, mode: int = 0o755, *, uid: int = 0, gid: int = 0, umask: int = 0) -> int:
        """Make a directory; its inode. ``umask``: taken from the mode where the parent has no default ACL."""
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
        """Make a file, FIFO, socket or device, as the format bits of ``mode`` say; its inode. ``umask``: as ``mkdir_at``."""
        make = partial(namei.make_node, self._nodes, parent, name, mode, uid=uid, gid=gid, device=rdev, umask=umask)
        return self._run(make).ino

    def create_at(self, parent: int, name: bytes, mode: int = 0o644, *, uid: int = 0, gid: int = 0, umask: int = 0) -> int:
        """Make an empty file; its inode. PathExistsError. ``umask``: as ``mkdir_at``."""
        return self.mknod_at(parent, name, S_IFREG | mode & 0o7777, uid=uid, gid=gid, umask=umask)

    def create_nameless(self, parent: int, mode: int = 0o644, *, uid: int = 0, gid: int = 0, umask: int = 0) -> int:
        """Make an empty file for the directory ``parent``; its inode, held. ``name_at`` names it when it is whole.

        ``release`` it in the end: without a name it is deleted then, and by a crash. ``umask``: as ``mkdir_at``.
        """
        make = partial(namei.make_nameless, self._nodes, parent, mode, uid=uid, gid=gid, umask=umask)
        ino = self._run(make).ino
        self._nodes.hold(ino)
        return ino

    def name_at(self, ino: int, parent: int, name: bytes) -> None:
        """Give a file that ``create_nameless`` made its name. PathExistsError."""
        self._run(lambda: namei.give_name(self._nodes, ino, parent, name))

    def symlink_at(self, target: bytes, parent: int, name: bytes, *, uid: int = 0, gid: int = 0) -> int:
        """Make a symbolic link; its inode."""
        return self._run(lambda: namei.make_symlink(self._nodes, target, parent, name, uid=uid, gid=gid)).ino

    def link_at(self, ino: int, parent: int, name: bytes) -> None:
        """Give a file one more name."""
        self._run(lambda: namei.link(self._nodes, ino, parent, name))

    def unlink_at(self, parent: int, name: bytes) -> None:
        """Remove a name that is no directory's."""
        self._parting(lambda: namei.unlink(self._nodes, parent, name), parent, name)

    def rmdir_at(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        self._parting(lambda: namei.rmdir(self._nodes, parent, name), parent, name)

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
        """Move a name; see ``rename``."""
        old, new = (old_parent, old_name), (new_parent, new_name)
        if exchange:
            if whiteout or not replace:
                raise ValueError("exchange leaves no whiteout, and what it exchanges is there")
            self._run(lambda: rename.exchange(self._nodes, old, new))
            return
        self._parting(
            lambda: rename.rename(self._nodes, old, new, replace=replace, whiteout=whiteout), new_parent, new_name
        )  # fmt: skip

    def _parting(self, work: Callable[[], None], parent: int, name: bytes) -> None:
        """``work``, which takes the name from an inode. Where deleting it is too much at once, it happens in steps."""
        try:
            self._run(work)
            return
        except JournalFullError:
            ino = namei.find(self._nodes, parent, name)
            if ino is None:
                raise
        self._nodes.hold(ino)  # it becomes an orphan first
        try:
            self._run(work)
        finally:
            self._nodes.release(ino)

    def remove_tree_at(self, parent: int, name: bytes) -> None:
        """Remove a file, or a directory with all below it, name by name."""
        remove_tree(self, self._nodes, parent, name)

    def hold(self, ino: int) -> None:
        """The inode outlives its last name until ``release`` was called as often as this."""
        self._nodes.hold(ino)

    def release(self, ino: int) -> None:
        """Give back a ``hold``; an inode without names is deleted by the last one."""
        self._nodes.release(ino)

    # Names, by path

    def mkdir(self, path: Path, mode: int = 0o755, uid: int = 0, gid: int = 0) -> int:
        """Make a directory; its inode. PathExistsError, PathNotFoundError, PathNotDirectoryError, NoSpaceError."""
        with errors_name(path):
            return self.mkdir_at(*self._paths.resolve_parent(path), mode, uid=uid, gid=gid)

    def mknod(self, path: Path, mode: int, rdev: tuple[int, int] = (0, 0), uid: int = 0, gid: int = 0) -> int:
        """Make a file, FIFO, socket or device (``rdev``: major, minor); its inode."""
        with errors_name(path):
            return self.mknod_at(*self._paths.for_create(path), mode, rdev=rdev, uid=uid, gid=gid)

    def create(self, path: Path, mode: int = 0o644, *, uid: int = 0, gid: int = 0, exclusive: bool = True) -> int:
        """Make an empty file; its inode. One that is there is a PathExistsError, or given unless ``exclusive``.

        Where a symbolic link is not ``exclusive`` the file it leads to is given, or made.
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

    def symlink(self, target: bytes | str, path: Path, uid: int = 0, gid: int = 0) -> int:
        """Make a symbolic link to ``target``; its inode."""
        text = target.encode("utf-8", "surrogateescape") if isinstance(target, str) else target
        with errors_name(path):
            return self.symlink_at(text, *self._paths.for_create(path), uid=uid, gid=gid)

    def link(self, existing: PathOrIno, path: Path) -> None:
        """Give ``existing`` (itself, where it is a symbolic link) one more name."""
        with errors_name(path):
            self.link_at(self._paths.resolve(existing, False), *self._paths.for_create(path))

    def unlink(self, path: Path) -> None:
        """Remove a name that is no directory's."""
        with errors_name(path):
            self.unlink_at(*self._paths.for_remove(path))

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory. PathNotEmptyError."""
        with errors_name(path):
            self.rmdir_at(*self._paths.resolve_parent(path))

    def rename(
        self, old: Path, new: Path, *, exchange: bool = False, replace: bool = True, whiteout: bool = False
    ) -> None:  # fmt: skip
        """Move a name; what has the new one is gone then (a file over a file, a directory over an empty one).

        ``replace`` False: PathExistsError instead. ``exchange``: the two change places. ``whiteout``: a character device
        0, 0 is left in the old place. PathError (EINVAL) for a directory that would go below itself.
        """
        with errors_name(old, new):
            source = self._paths.for_remove(old)
            goal = self._paths.for_remove(new) if exchange else self._paths.for_rename(new, source, replace=replace)
            self.rename_at(*source, *goal, exchange=exchange, replace=replace, whiteout=whiteout)

    def remove_tree(self, path: Path) -> None:
        """Remove a file, or a directory with all that is below it, name by name."""
        with errors_name(path):
            self.remove_tree_at(*self._paths.for_remove(path))

    # Content

    def open_file(self, path_or_ino: PathOrIno, mode: str = "r") -> FileEditor:  # type: ignore[override]
        """A regular file as a seekable binary file, to read ("r") or to change ("r+"). What is written is seen at once."""
        if mode not in ("r", "r+"):
            raise ValueError(f"mode {mode!r} is not 'r' or 'r+'")
        with errors_name(path_or_ino):
            return FileEditor(self._nodes, self._paths.resolve(path_or_ino, True), writable=mode == "r+")

    def write_bytes(self, path: PathOrIno, data: bytes | bytearray | memoryview) -> None:
        """Make a file of this content, or replace that of the file which is there, or to which a symbolic link leads."""
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
        """Cut a file to ``size`` bytes, or make it longer by a hole."""
        with errors_name(path):
            file_data.set_size(self._nodes, self._paths.resolve(path, True), size)

    def punch_hole(self, path: PathOrIno, offset: int, length: int) -> None:
        """Make a range of bytes a hole as far as it is whole blocks, and zeros; the size stays."""
        with errors_name(path):
            file_data.punch(self._nodes, self._paths.resolve(path, True), offset, length)

    def write_from(self, path: PathOrIno, source: int | IO[bytes], *, advance: Callable[[int], None] | None = None) -> int:
        """Give a file that is there the content of an open file of the host (a descriptor or binary file); its size.

        Holes stay holes. ``advance`` is told how many bytes were copied since the last call. The file is emptied first, and
        empty where this fails. NoSpaceError before anything is changed. SourceError where the source cannot be read.
        """
        with errors_name(path):
            return file_data.copy_from(self._nodes, self._paths.resolve(path, True), source, advance or (lambda count: None))

    # Facts

    def chmod(self, path: PathOrIno, mode: int, *, follow: bool = True) -> None:
        """Set the permission bits; an access ACL follows."""
        with errors_name(path):
            ino = self._paths.resolve(path, follow)
            self._run(lambda: setattr.chmod(self._nodes, ino, mode))

    def chown(self, path: PathOrIno, uid: int | None, gid: int | None, *, follow: bool = True) -> None:
        """Set owner and group where not None; set-id bits and capabilities of files go, as in the kernel."""
        with errors_name(path):
            ino = self._paths.resolve(path, follow)
            self._run(lambda: setattr.chown(self._nodes, ino, uid, gid))

    def utimens(self, path: PathOrIno, atime_ns: int | None, mtime_ns: int | None, *, follow: bool = True) -> None:
        """Set the times of access and change where not None, in nanoseconds since 1970."""
        with errors_name(path):
            ino = self._paths.resolve(path, follow)
            self._run(lambda: setattr.set_times(self._nodes, ino, atime_ns, mtime_ns))

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
        """Set an attribute by its full name, ACLs in the form of the system calls (the mode follows). XattrError."""
        with errors_name(path):
            ino = self._paths.resolve(path, follow)
            self._run(lambda: setattr.set_attribute(self._nodes, ino, name, value, create=create, replace=replace))

    def remove_xattr(self, path: PathOrIno, name: bytes, *, follow: bool = True) -> None:
        """Take an attribute out. XattrError (ENODATA) if it is not there."""
        with errors_name(path):
            ino = self._paths.resolve(path, follow)
            self._run(lambda: setattr.remove_attribute(self._nodes, ino, name))
