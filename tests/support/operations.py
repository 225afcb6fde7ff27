"""Operations on a tree: the vocabulary of all random tests, and what does them to an image and to a directory of the host.

An operation is a tuple of a verb and its arguments; every tree has a method for each verb. Names at the end of a path are
never followed when they are symbolic links, and owners and modes are given: nothing depends on who runs the test.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import ext3
from ext3.edit.directory import DirectoryFullError
from ext3.edit.file_handle import FileEditor
from ext3.edit.filesystem import WritableFilesystem

from .facts import data_ranges

__all__ = ["HOST_VERBS", "KERNEL_VERBS", "VERBS", "HostTree", "ImageTree", "Operation", "Outcome", "Paths", "Tree"]

Operation = tuple[Any, ...]
"""(verb, arguments ...)."""

KERNEL_VERBS = frozenset({
    "mkdir", "create", "mknod", "mkdev", "symlink", "link", "unlink", "orphan", "rmdir", "remove_tree",
    "rename", "rename_noreplace", "rename_whiteout", "rename_exchange",
    "write_bytes", "write", "append", "truncate", "punch",
    "chmod", "chown", "utimens", "set_xattr", "remove_xattr",
})  # fmt: skip
"""What the kernel does for root on a mounted image."""
VERBS = KERNEL_VERBS | {"lchmod"}
"""Everything an image can be asked to do: modes of symbolic links too, which Linux does not change."""
HOST_VERBS = KERNEL_VERBS - {
    "mkdev", "rename_noreplace", "rename_whiteout", "rename_exchange", "write_bytes", "chown", "set_xattr", "remove_xattr",
}  # fmt: skip
"""What any user may do in a directory of any host."""

NO_ROOM = (ext3.NoSpaceError, ext3.NoFreeInodesError, DirectoryFullError)
MOST_HELD = 4
LEFT_BEHIND = b"o" * 3000
"""Data for a file that has lost its name."""


class Outcome(StrEnum):
    """How an operation went. ``NO_ROOM`` and ``FAILED`` changed nothing."""

    DONE = "done"
    FAILED = "failed"
    NO_ROOM = "no room"


@dataclass(frozen=True)
class Paths:
    """Paths to choose from; ``directories`` has b"" for the root. What is known besides: directories that are ``empty``, paths
    of ``symlinks``, (path, name) of ``attributes``."""

    everything: Sequence[bytes]
    directories: Sequence[bytes]
    files: Sequence[bytes]
    empty: Sequence[bytes] = ()
    symlinks: Collection[bytes] = ()
    attributes: Sequence[tuple[bytes, bytes]] = ()


class Tree(Protocol):
    """What operations are done to."""

    def apply(self, operation: Operation) -> Outcome: ...


def _is_no_room(error: OSError) -> bool:
    """Whether an operation on an image failed with something a model knows nothing of."""
    if isinstance(error, NO_ROOM) or error.errno in (errno.ENOSPC, errno.EFBIG):
        return True
    return isinstance(error, ext3.XattrError) and error.errno == errno.EOPNOTSUPP  # revision 0 has no attributes


class ImageTree:
    """An image open for changes. ``held`` are files that are open and have lost their names; whoever closes the image drops
    them."""

    def __init__(self, fs: WritableFilesystem) -> None:
        self.fs = fs
        self.held: list[FileEditor] = []

    def apply(self, operation: Operation) -> Outcome:
        """Do one operation; how it went. Errors are those of the library, and leave as much free as there was."""
        free = self.fs.superblock.free_blocks, self.fs.superblock.free_inodes
        try:
            self.run(operation)
        except OSError as error:
            assert isinstance(error, ext3.Ext3Error), operation
            if _is_no_room(error):
                assert (self.fs.superblock.free_blocks, self.fs.superblock.free_inodes) == free, operation
                return Outcome.NO_ROOM
            return Outcome.FAILED
        return Outcome.DONE

    def run(self, operation: Operation) -> None:
        """Do one operation; its errors are raised."""
        verb, *arguments = operation
        getattr(self, verb)(*arguments)

    def _check_not_symlink(self, path: bytes) -> None:
        if self.fs.stat(path, follow=False).is_symlink:
            raise ext3.PathError(path, "a symbolic link")

    def mkdir(self, path: bytes, mode: int, uid: int, gid: int) -> None:
        self.fs.mkdir(path, mode, uid, gid)

    def create(self, path: bytes, mode: int, uid: int, gid: int) -> None:
        self.fs.create(path, mode, uid=uid, gid=gid)

    def mknod(self, path: bytes, mode: int, rdev: tuple[int, int], uid: int, gid: int) -> None:
        self.fs.mknod(path, mode, rdev, uid, gid)

    mkdev = mknod

    def symlink(self, target: bytes, path: bytes, uid: int, gid: int) -> None:
        self.fs.symlink(target, path, uid, gid)

    def link(self, existing: bytes, path: bytes) -> None:
        self.fs.link(existing, path)

    def unlink(self, path: bytes) -> None:
        self.fs.unlink(path)

    def orphan(self, path: bytes, closed: int) -> None:
        """Remove a file that stays open, and write to it; where many are, close the one at ``closed``."""
        if len(self.held) > MOST_HELD:
            self.held.pop(closed % len(self.held)).close()
        if not self.fs.stat(path, follow=False).is_file:
            raise ext3.PathError(path, "no file")
        file = self.fs.open_file(path, "r+")
        try:
            self.fs.unlink(path)
        except OSError:
            file.close()
            raise
        self.held.append(file)
        if self.fs.stat(file.ino).links:
            return
        with suppress(*NO_ROOM):
            file.write_at(file.size, LEFT_BEHIND)

    def rmdir(self, path: bytes) -> None:
        self.fs.rmdir(path)

    def remove_tree(self, path: bytes) -> None:
        self.fs.remove_tree(path)

    def rename(self, old: bytes, new: bytes) -> None:
        self.fs.rename(old, new)

    def rename_noreplace(self, old: bytes, new: bytes) -> None:
        self.fs.rename(old, new, replace=False)

    def rename_whiteout(self, old: bytes, new: bytes) -> None:
        self.fs.rename(old, new, whiteout=True)

    def rename_exchange(self, old: bytes, new: bytes) -> None:
        self.fs.rename(old, new, exchange=True)

    def write_bytes(self, path: bytes, data: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        ino = self.fs.find_name(self.fs.lookup(above or b"/"), name)
        if ino is not None and self.fs.stat(ino).is_symlink:
            raise ext3.PathError(path, "a symbolic link")
        self.fs.write_bytes(path, data)

    def write(self, path: bytes, offset: int, data: bytes) -> None:
        self._check_not_symlink(path)
        with self.fs.open_file(path, "r+") as file:
            file.write_at(offset, data)

    def append(self, path: bytes, data: bytes) -> None:
        self._check_not_symlink(path)
        with self.fs.open_file(path, "r+") as file:
            file.write_at(file.size, data)

    def truncate(self, path: bytes, size: int) -> None:
        self._check_not_symlink(path)
        with self.fs.open_file(path, "r+") as file:
            file.truncate(size)

    def punch(self, path: bytes, offset: int, length: int) -> None:
        self._check_not_symlink(path)
        with self.fs.open_file(path, "r+") as file:
            file.punch_hole(offset, length)

    def chmod(self, path: bytes, mode: int) -> None:
        self._check_not_symlink(path)
        self.fs.chmod(path, mode, follow=False)

    def lchmod(self, path: bytes, mode: int) -> None:
        self.fs.chmod(path, mode, follow=False)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        self.fs.chown(path, uid, gid, follow=False)

    def utimens(self, path: bytes, atime: int, mtime: int) -> None:
        self.fs.utimens(path, atime, mtime, follow=False)

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        self.fs.set_xattr(path, name, value, follow=False)

    def remove_xattr(self, path: bytes, name: bytes) -> None:
        self.fs.remove_xattr(path, name, follow=False)


AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE_PUNCH_HOLE = 3


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    """The kernel's call of this name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags):
        raise OSError(ctypes.get_errno(), "renameat2")


class HostTree:
    """A directory of the host, which may be the root of a mounted image. ``held`` are descriptors of files without names."""

    def __init__(self, top: Path) -> None:
        self.path = top
        self.top = os.fsencode(top)
        self.held: list[int] = []

    def apply(self, operation: Operation) -> Outcome:
        """Do one operation; how it went."""
        verb, *arguments = operation
        umask = os.umask(0)
        try:
            getattr(self, verb)(*arguments)
        except OSError as error:
            no_room = verb == "set_xattr" and error.errno in (errno.ENOSPC, errno.EFBIG)
            return Outcome.NO_ROOM if no_room else Outcome.FAILED
        finally:
            os.umask(umask)
        return Outcome.DONE

    def close(self) -> None:
        """Close the files that have lost their names."""
        while self.held:
            os.close(self.held.pop())

    def _at(self, path: bytes) -> bytes:
        return self.top + path

    def _change_file(self, path: bytes, change: Callable[[int], object], flags: int = 0) -> None:
        """Open a regular file, change it, close it."""
        fd = os.open(self._at(path), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "no file")
            change(fd)
        finally:
            os.close(fd)

    def _own(self, path: bytes, uid: int, gid: int) -> None:
        """Give an owner; a group is kept where it came from the directory."""
        above = os.stat(os.path.dirname(self._at(path)))
        os.lchown(self._at(path), uid, -1 if above.st_mode & stat.S_ISGID else gid)

    def mkdir(self, path: bytes, mode: int, uid: int, gid: int) -> None:
        os.mkdir(self._at(path), mode)
        self._own(path, uid, gid)

    def create(self, path: bytes, mode: int, uid: int, gid: int) -> None:
        os.close(os.open(self._at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        self._own(path, uid, gid)

    def mknod(self, path: bytes, mode: int, rdev: tuple[int, int], uid: int, gid: int) -> None:
        os.mknod(self._at(path), mode, os.makedev(*rdev))
        self._own(path, uid, gid)

    mkdev = mknod

    def symlink(self, target: bytes, path: bytes, uid: int, gid: int) -> None:
        os.symlink(target, self._at(path))
        self._own(path, uid, gid)

    def link(self, existing: bytes, path: bytes) -> None:
        os.link(self._at(existing), self._at(path), follow_symlinks=False)

    def unlink(self, path: bytes) -> None:
        os.unlink(self._at(path))

    def orphan(self, path: bytes, closed: int) -> None:
        """Remove a file that stays open, and write to it; where many are, close the one at ``closed``."""
        if len(self.held) > MOST_HELD:
            os.close(self.held.pop(closed % len(self.held)))

        def remove(fd: int) -> None:
            os.unlink(self._at(path))
            self.held.append(os.dup(fd))
            if not os.fstat(fd).st_nlink:
                os.pwrite(fd, LEFT_BEHIND, os.fstat(fd).st_size)

        self._change_file(path, remove)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._at(path))

    def remove_tree(self, path: bytes) -> None:
        if stat.S_ISDIR(os.lstat(self._at(path)).st_mode):
            shutil.rmtree(self._at(path))
        else:
            os.unlink(self._at(path))

    def rename(self, old: bytes, new: bytes) -> None:
        os.rename(self._at(old), self._at(new))

    def rename_noreplace(self, old: bytes, new: bytes) -> None:
        renameat2(self._at(old), self._at(new), RENAME_NOREPLACE)

    def rename_whiteout(self, old: bytes, new: bytes) -> None:
        renameat2(self._at(old), self._at(new), RENAME_WHITEOUT)

    def rename_exchange(self, old: bytes, new: bytes) -> None:
        renameat2(self._at(old), self._at(new), RENAME_EXCHANGE)

    def write_bytes(self, path: bytes, data: bytes) -> None:
        self._change_file(path, lambda fd: _all_written(os.write(fd, data), data), os.O_CREAT | os.O_TRUNC)

    def write(self, path: bytes, offset: int, data: bytes) -> None:
        self._change_file(path, lambda fd: _all_written(os.pwrite(fd, data, offset), data))

    def append(self, path: bytes, data: bytes) -> None:
        self._change_file(path, lambda fd: _all_written(os.write(fd, data), data), os.O_APPEND)

    def truncate(self, path: bytes, size: int) -> None:
        self._change_file(path, lambda fd: os.ftruncate(fd, size))

    def punch(self, path: bytes, offset: int, length: int) -> None:
        self._change_file(path, lambda fd: _punch(fd, offset, length))

    def chmod(self, path: bytes, mode: int) -> None:
        if os.path.islink(self._at(path)):
            raise OSError(errno.EOPNOTSUPP, "a symbolic link")
        os.chmod(self._at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        os.lchown(self._at(path), uid, gid)

    def utimens(self, path: bytes, atime: int, mtime: int) -> None:
        os.utime(self._at(path), ns=(atime, mtime), follow_symlinks=False)

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        os.setxattr(self._at(path), name, value, follow_symlinks=False)

    def remove_xattr(self, path: bytes, name: bytes) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=False)


def _all_written(count: int, data: bytes) -> None:
    assert count == len(data)


def _punch(fd: int, offset: int, length: int) -> None:
    """A hole up to the end of the file at most; a filesystem that has none gets zeros."""
    end = min(offset + length, os.fstat(fd).st_size)
    if end <= offset:
        return
    start, size = ctypes.c_int64(offset), ctypes.c_int64(end - offset)
    if ctypes.CDLL(None).fallocate(fd, FALLOC_KEEP_SIZE_PUNCH_HOLE, start, size):
        for low, high in list(data_ranges(fd)):
            if max(low, offset) < min(high, end):
                os.pwrite(fd, bytes(min(high, end) - max(low, offset)), max(low, offset))
