"""Files created on the host below one directory, never outside it.

Names come from an image and may be anything a directory entry can hold, so every directory is opened relative to its parent
and no symlink is followed. Where others may write, a directory is known by its inode: another one that took its name gets
neither files nor attributes. Needs system calls that take a directory as a descriptor, see ``supported``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ext3 import hostio

from ..errors import ImageInUseError, NotReplaceableError
from ..in_use import LoopFiles
from ..replacing import ANY_FILE

__all__ = [
    "FATAL_ERRNOS",
    "MAX_PROBLEMS",
    "REPLACED",
    "ExtractResult",
    "HostWriter",
    "create_over",
    "supported",
]

MAX_OPEN_DIRECTORIES = 64
_DIRECTORY = getattr(os, "O_DIRECTORY", 0) | hostio.NO_FOLLOW
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | hostio.NO_FOLLOW

FATAL_ERRNOS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Errors that end an extraction, because every other file would fail the same way."""
MAX_PROBLEMS = 100
REPLACED = "another process replaced it while it was created"
"""Reason of a file that is not the one created under its name."""


def supported() -> bool:
    """Return True if this system has the calls that keep an extraction inside its directory."""
    needed = (os.open, os.mkdir, os.unlink, os.stat, os.symlink, os.link)
    return all(call in os.supports_dir_fd for call in needed) and hasattr(os, "O_NOFOLLOW")


def create_over(name: bytes, create: Callable[[bytes], None], *, directory: int | None = None) -> None:
    """Call ``create`` with a temporary name beside ``name``, then rename that file to ``name``, whatever has it now.

    ``directory``: descriptor that names are relative to. Raises OSError; nothing is removed unless the new file exists.
    """
    above, leaf = os.path.split(name)
    temporary = os.path.join(above, b".%s.%s.tmp" % (leaf[:200], os.urandom(3).hex().encode()))
    create(temporary)
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        with suppress(FileNotFoundError):  # it stays if both names are one file
            os.unlink(temporary, dir_fd=directory)


@dataclass(slots=True)
class ExtractResult:
    """Numbers of files created and skipped.

    ``owners_left``, ``xattrs_left``: files whose owner, and xattrs that could not be set. ``specials_left``: devices, fifos and
    sockets not created for lack of permission. ``problems``: (path in the image, reason), the first hundred of ``failed``.
    """

    directories: int = 0
    files: int = 0
    symlinks: int = 0
    specials: int = 0
    links: int = 0
    written_bytes: int = 0
    owners_left: int = 0
    xattrs_left: int = 0
    specials_left: int = 0
    failed: int = 0
    problems: list[tuple[bytes, str]] = field(default_factory=list)

    def add(self, other: ExtractResult) -> None:
        for name in self.__slots__:
            if name != "problems":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems[: MAX_PROBLEMS - len(self.problems)]

    def add_problem(self, path: bytes, reason: str) -> None:
        self.failed += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append((path, reason))


class HostWriter:
    """Writer of files below the open directory ``top``.

    Directories are numbered: i is ``names[i]`` in directory ``parents[i]``, 0 is the top. With ``force`` existing files are
    replaced, except the images read (``image_ids``, their devices and inodes), devices and FIFOs, and images in use. A device
    or FIFO that is as it should be is kept.
    """

    def __init__(
        self,
        top: int,
        names: Sequence[bytes],
        parents: Sequence[int],
        *,
        force: bool,
        image_ids: Collection[tuple[int, int]] = (),
    ) -> None:
        self.top = top
        self.names = names
        self.parents = parents
        self.force = force
        self.image_ids = image_ids
        self._loops = LoopFiles()
        self._open: OrderedDict[int, int] = OrderedDict()
        self._last = 0
        self._existing = {0}
        """Directories that were there before, so that others may be able to write to them."""
        self._identities: dict[int, tuple[int, int]] = {}
        """Device and inode of these, and of the directories in them."""
        self._known: set[tuple[int, int]] = set()

    def for_process(self) -> HostWriter:
        """Return a writer of the same directories for a process that was forked: descriptors are not shared."""
        writer = HostWriter(self.top, self.names, self.parents, force=self.force, image_ids=self.image_ids)
        writer._existing, writer._identities = self._existing, self._identities
        return writer

    def close(self) -> None:
        """Close the cached directories; the caller closes the top."""
        while self._open:
            os.close(self._open.popitem()[1])

    def directory(self, index: int) -> int:
        """Return a descriptor of directory ``index``, valid until the next call."""
        if index == 0:
            return self.top
        cached = self._open.get(index)
        if cached is not None:
            if index != self._last:
                self._open.move_to_end(index)
                self._last = index
            return cached
        self._last = index
        chain = [index]
        while (above := self.parents[chain[-1]]) and above not in self._open:
            chain.append(above)
        fd = self.top
        if above:
            self._open.move_to_end(above)
            fd = self._open[above]
        for step in reversed(chain):
            fd = self._open[step] = self._open_directory(fd, step)
            while len(self._open) > MAX_OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
        return fd

    def _open_directory(self, parent: int, index: int) -> int:
        """Open a directory in the open directory ``parent``. Raises OSError, also if another one has its name by now."""
        fd = os.open(self.names[index], os.O_RDONLY | _DIRECTORY, dir_fd=parent)
        try:
            expected = self._identities.get(index)
            if expected is not None and _identity(fd) != expected:
                raise OSError(errno.EEXIST, REPLACED)
        except OSError:
            os.close(fd)
            raise
        return fd

    def make_directory(self, index: int) -> None:
        """Create directory ``index`` with mode 0700. With ``force`` an existing one is used, and an existing file replaced."""
        parent, name = self.parents[index], self.names[index]
        fd = self.directory(parent)
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            if not self.force:
                raise
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                self._existing.add(index)
            else:
                self._unlink_existing(fd, name)
                os.mkdir(name, 0o700, dir_fd=fd)
        if parent in self._existing:
            self._remember(fd, index)

    def _remember(self, parent: int, index: int) -> None:
        """Remember the identity of a directory in one where others may write. Raises OSError if it is not the one created."""
        fd = os.open(self.names[index], os.O_RDONLY | _DIRECTORY, dir_fd=parent)
        try:
            identity = _identity(fd)
            is_other = index not in self._existing and bool(os.listdir(fd))
        finally:
            os.close(fd)
        if is_other or (index not in self._existing and identity in self._known):
            raise OSError(errno.EEXIST, REPLACED)
        self._identities[index] = identity
        self._known.add(identity)

    def create(self, directory: int, name: bytes, mode: int = 0o600) -> int:
        """Create a regular file with at most the permissions ``mode``; return its descriptor, open for writing."""
        fd = self.directory(directory)
        try:
            return os.open(name, _WRITE, mode, dir_fd=fd)
        except FileExistsError:
            self._unlink_existing(fd, name)
            return os.open(name, _WRITE, mode, dir_fd=fd)

    def symlink(self, directory: int, name: bytes, target: bytes) -> None:
        fd = self.directory(directory)

        def create(name: bytes) -> None:
            os.symlink(target, name, dir_fd=fd)

        try:
            create(name)
        except FileExistsError:
            self._check_existing(fd, name)
            create_over(name, create, directory=fd)

    def mknod(self, directory: int, name: bytes, mode: int, major: int, minor: int) -> bool:
        """Create a device, fifo or socket; return False if there is such a one, which is kept. Raises OSError (EPERM)."""
        fd = self.directory(directory)

        def create(name: bytes) -> None:
            os.mknod(name, stat.S_IFMT(mode) | 0o600, _device(mode, major, minor), dir_fd=fd)

        try:
            create(name)
        except FileExistsError:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            there = stat.S_IFMT(found.st_mode), found.st_rdev
            if self.force and there == (stat.S_IFMT(mode), _device(mode, major, minor)):
                return False
            self._check_existing(fd, name)
            create_over(name, create, directory=fd)
        return True

    def link(self, old: tuple[int, bytes], new: tuple[int, bytes]) -> None:
        """Create a hard link ``new`` to a file created before. Both are (directory, name)."""
        source = os.dup(self.directory(old[0]))
        try:
            fd = self.directory(new[0])

            def create(name: bytes) -> None:
                os.link(old[1], name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)

            try:
                create(new[1])
            except FileExistsError:
                if self._same(source, old[1], fd, new[1]):
                    return
                self._check_existing(fd, new[1])
                create_over(new[1], create, directory=fd)
        finally:
            os.close(source)

    def _same(self, one: int, old: bytes, other: int, new: bytes) -> bool:
        """Return True if two names are one file already, which happens with ``force`` only."""
        found = os.stat(new, dir_fd=other, follow_symlinks=False)
        return self.force and os.path.samestat(os.stat(old, dir_fd=one, follow_symlinks=False), found)

    def _unlink_existing(self, fd: int, name: bytes) -> None:
        self._check_existing(fd, name)
        os.unlink(name, dir_fd=fd)

    def _check_existing(self, fd: int, name: bytes) -> None:
        """Raise OSError if the file ``name`` may not be replaced."""
        if not self.force:
            raise FileExistsError(errno.EEXIST, "a file of this name exists")
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory of this name exists")
        if (found.st_dev, found.st_ino) in self.image_ids:
            raise FileExistsError(errno.EEXIST, "the file is the image itself")
        if not _is_whiteout(found):
            path = b"/proc/self/fd/%d/%s" % (fd, name)
            try:
                ANY_FILE.check_name(path, found, shown="the existing file", loops=self._loops)
            except (NotReplaceableError, ImageInUseError) as error:
                raise FileExistsError(errno.EEXIST, error.message) from error


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _device(mode: int, major: int, minor: int) -> int:
    """Return the device number of a new special file: only devices have one."""
    return os.makedev(major, minor) if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK) else 0


def _is_whiteout(found: os.stat_result) -> bool:
    """Return True for the device 0/0, with which overlayfs marks removed files: no device, and replaced as a file is."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
