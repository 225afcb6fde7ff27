"""WritableFilesystem: an image open for changes, by path or by inode; a subclass of Filesystem.

Each call is one atomic operation. Operations are committed together, by ``sync`` and ``close`` and when the journal fills;
after a crash the image is in the state of one of the commits. An exception inside ``with`` takes back what was not committed.
Permissions are not checked: a call does what the kernel does for root. Changing the owner of a file clears its set-id bits,
writing to it does not; both remove its capabilities. Locks, and copies of images without a journal, are up to the caller.
"""

from __future__ import annotations

from collections.abc import Callable

from ..constants import S_IFREG
from ..device.base import BlockDevice
from ..errors import JournalFullError, PathIsDirectoryError
from ..read.filesystem import PathOrIno
from ..read.path_walk import AnyPath, path_bytes
from . import file_data, namei
from .copy_file import SourceFile, SourceStream, copy_file
from .file_handle import FileEditor
from .inode_filesystem import InodeFilesystem
from .path_args import PathArguments, errors_name
from .session import Clock

__all__ = ["WritableFilesystem"]


class WritableFilesystem(InodeFilesystem):
    """Image open for changes; see ``Filesystem.open``. Methods ending in ``_at`` take inodes, the others paths."""

    def __init__(self, device: BlockDevice, *, clock: Clock | None = None, late_checkpoint: bool = False) -> None:
        """Open as InodeFilesystem does."""
        super().__init__(device, clock=clock, late_checkpoint=late_checkpoint)
        self._paths = PathArguments(self, self._nodes)

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
            self.set_xattr_at(self._paths.resolve(path, follow), name, value, create=create, replace=replace)

    def remove_xattr(self, path: PathOrIno, name: bytes, *, follow: bool = True) -> None:
        """Remove an attribute. Raise XattrError (ENODATA) if it does not exist."""
        with errors_name(path):
            self.remove_xattr_at(self._paths.resolve(path, follow), name)
