"""Making files on the host below one directory, which nothing leaves.

Every directory is opened from the one above it, without following links; names come from an image and may be anything a
directory entry can hold. Linux and other systems whose calls take directories as descriptors; see ``supported``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from ext3 import hostio

__all__ = ["FATAL", "PROBLEMS_KEPT", "Counts", "Facts", "HostTree", "NewFiles", "apply_facts", "supported"]

OPEN_DIRECTORIES = 64
_DIRECTORY = getattr(os, "O_DIRECTORY", 0) | hostio.NO_FOLLOW
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | hostio.NO_FOLLOW

FATAL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Failures that concern the host as a whole: no other file would fare better."""
PROBLEMS_KEPT = 100
NOBODY = 0xFFFFFFFF


def supported() -> bool:
    """Whether this system has the calls that keep an extraction inside its directory."""
    needed = (os.open, os.mkdir, os.unlink, os.stat, os.symlink, os.link)
    return all(call in os.supports_dir_fd for call in needed) and hasattr(os, "O_NOFOLLOW")


@dataclass(slots=True)
class Counts:
    """What was made and what was left out. ``problems``: (path in the image, why), the first hundred of ``failed``."""

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

    def add(self, other: Counts) -> None:
        for name in self.__slots__:
            if name != "problems":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems[: PROBLEMS_KEPT - len(self.problems)]

    def problem(self, path: bytes, why: str) -> None:
        self.failed += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append((path, why))


class Facts(NamedTuple):
    """What a made file gets; times in nanoseconds."""

    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    xattrs: dict[bytes, bytes] | None = None


class HostTree:
    """Directories below ``top``, an open directory. ``names[i]`` in directory ``parents[i]`` is directory i; 0 is the top.

    ``force``: what is there is replaced, but for the file ``keep`` (its device and inode)."""

    def __init__(
        self, top: int, names: Sequence[bytes], parents: Sequence[int], *, force: bool, keep: tuple[int, int] | None = None
    ) -> None:
        self.top = top
        self.names = names
        self.parents = parents
        self.force = force
        self.keep = keep
        self._open: OrderedDict[int, int] = OrderedDict()
        self._last = 0

    def close(self) -> None:
        """Close the directories that are open; the top stays the caller's."""
        while self._open:
            os.close(self._open.popitem()[1])

    def directory(self, index: int) -> int:
        """Directory ``index`` as a descriptor, good until the next call."""
        if index == 0:
            return self.top
        known = self._open.get(index)
        if known is not None:
            if index != self._last:
                self._open.move_to_end(index)
                self._last = index
            return known
        self._last = index
        chain = [index]
        while (above := self.parents[chain[-1]]) and above not in self._open:
            chain.append(above)
        fd = self.top
        if above:
            self._open.move_to_end(above)
            fd = self._open[above]
        for step in reversed(chain):
            fd = self._open[step] = os.open(self.names[step], os.O_RDONLY | _DIRECTORY, dir_fd=fd)
            while len(self._open) > OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
        return fd

    def make_directory(self, index: int) -> None:
        """Directory ``index``, for us alone as yet. One that is there is taken with ``force``; anything else there goes."""
        fd, name = self.directory(self.parents[index]), self.names[index]
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            if not self.force:
                raise
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                return
            self._make_way(fd, name)
            os.mkdir(name, 0o700, dir_fd=fd)

    def create(self, directory: int, name: bytes, mode: int = 0o600) -> int:
        """A new regular file, open for writing, with at most the permissions ``mode``."""
        fd = self.directory(directory)
        try:
            return os.open(name, _WRITE, mode, dir_fd=fd)
        except FileExistsError:
            self._make_way(fd, name)
            return os.open(name, _WRITE, mode, dir_fd=fd)

    def symlink(self, directory: int, name: bytes, target: bytes) -> None:
        fd = self.directory(directory)
        try:
            os.symlink(target, name, dir_fd=fd)
        except FileExistsError:
            self._make_way(fd, name)
            os.symlink(target, name, dir_fd=fd)

    def node(self, directory: int, name: bytes, mode: int, major: int, minor: int) -> None:
        """A device, fifo or socket. OSError (EPERM) where the caller may not."""
        fd = self.directory(directory)
        for attempt in (1, 2):
            try:
                os.mknod(name, stat.S_IFMT(mode) | 0o600, os.makedev(major, minor), dir_fd=fd)
                return
            except FileExistsError:
                if attempt == 2:
                    raise
                self._make_way(fd, name)

    def link(self, old: tuple[int, bytes], new: tuple[int, bytes]) -> None:
        """One more name for a file that was made."""
        source = os.dup(self.directory(old[0]))
        try:
            fd = self.directory(new[0])
            try:
                os.link(old[1], new[1], src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
            except FileExistsError:
                self._make_way(fd, new[1])
                os.link(old[1], new[1], src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(source)

    def _make_way(self, fd: int, name: bytes) -> None:
        if not self.force:
            raise FileExistsError(errno.EEXIST, "something of this name is there already")
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory of this name is there already")
        if self.keep == (found.st_dev, found.st_ino):
            raise FileExistsError(errno.EEXIST, "the image itself is there")
        os.unlink(name, dir_fd=fd)


class NewFiles:
    """Gives regular files that were just created their owner, mode and times, with as few calls as will do.

    Of the first file of each mode it is learned what the system made of it (umask, set-group-ID directories, default ACLs,
    servers that change owners); files alike, in directories alike, come out alike, and need no call for what is right already.
    """

    def __init__(self, *, owners: bool, alike: bool) -> None:
        """``owners``: give files away, too. ``alike``: all directories were made by us, below one that was empty."""
        self._owners = owners
        self._alike = alike
        self._own = (0, 0) if owners else (os.geteuid(), os.getegid())
        self._made: dict[int, tuple[int, tuple[int, int]]] = {}

    @staticmethod
    def first_mode(facts: Facts) -> int:
        """The permissions to create a file with: its own, where no attribute (an ACL) changes what they mean."""
        return 0o600 if facts.xattrs else facts.mode & 0o777

    def finish(self, fd: int, facts: Facts, counts: Counts) -> None:
        """``fd``: a file that was created with ``first_mode(facts)``, and written. Raises OSError."""
        mode, uid, gid, atime, mtime, xattrs = facts
        if xattrs:
            apply_facts(fd, facts, counts, owners=self._owners)
            return
        mode &= 0o7777
        made = self._made.get(mode & 0o777)
        if made is None:
            found = os.fstat(fd)
            made = (found.st_mode & 0o7777, (found.st_uid, found.st_gid))
            if self._alike:
                self._made[mode & 0o777] = made
        if self._owners:
            if made[1] != (uid, gid):
                mode = _change_owner(fd, facts, counts, None)
        elif self._own != (uid, gid):
            counts.owners_left += 1
            mode &= 0o1777
        if made[0] != mode:
            os.fchmod(fd, mode)
        try:  # noqa: SIM105 - suppress() takes as long as the call, and this is done for very many files
            os.utime(fd, ns=(atime, mtime))
        except (OSError, OverflowError):  # a time the host's filesystem cannot hold
            pass


def apply_facts(where: int | bytes, facts: Facts, counts: Counts, *, owners: bool, directory: int | None = None) -> None:
    """Give a made file its owner, attributes, mode and times; what the caller may not give is counted.

    ``where`` is an open file, or with ``directory`` a name in it, which is not followed.
    """
    follow = directory is None
    link = stat.S_ISLNK(facts.mode)
    mode = stat.S_IMODE(facts.mode)
    if owners:
        mode = _change_owner(where, facts, counts, directory)
    elif (facts.uid, facts.gid) != (os.geteuid(), os.getegid()):
        counts.owners_left += 1
        mode &= 0o1777  # never somebody else's privileges in the caller's name
    if facts.xattrs:
        _apply_xattrs(where, facts.xattrs, counts, directory)
    if not link:
        if isinstance(where, int):
            os.fchmod(where, mode)
        else:
            os.chmod(where, mode, dir_fd=directory)  # only for what we just made, which is no link
    with suppress(OSError, OverflowError):  # a time the host's filesystem cannot hold
        if follow:
            os.utime(where, ns=(facts.atime, facts.mtime))
        else:
            os.utime(where, ns=(facts.atime, facts.mtime), dir_fd=directory, follow_symlinks=False)


def _change_owner(where: int | bytes, facts: Facts, counts: Counts, directory: int | None) -> int:
    """Give a file its owner; the mode that it may then have."""
    try:
        if NOBODY in (facts.uid, facts.gid):
            raise OSError(errno.EINVAL, "the system takes this number for no change")
        if isinstance(where, int):
            os.fchown(where, facts.uid, facts.gid)
        else:
            os.chown(where, facts.uid, facts.gid, dir_fd=directory, follow_symlinks=False)
    except OSError:  # a user namespace may not know this number
        counts.owners_left += 1
        return facts.mode & 0o1777
    return facts.mode & 0o7777


def _apply_xattrs(where: int | bytes, xattrs: dict[bytes, bytes], counts: Counts, directory: int | None) -> None:
    if not hasattr(os, "setxattr"):
        counts.xattrs_left += len(xattrs)
        return
    target: int | bytes = where
    if directory is not None:  # there is no call that takes a directory: its name in /proc does
        target = b"/proc/self/fd/%d/%s" % (directory, where)
    for name, value in xattrs.items():
        try:
            os.setxattr(target, name, value, follow_symlinks=directory is None)
        except OSError:
            counts.xattrs_left += 1
