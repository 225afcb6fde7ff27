"""Marks in layers that are directories of the host or squashfs images; see ``mark_search`` for those in ext3.

A directory that is written to gets the kernel's marks in the place of those that fuse-overlayfs left, as an image does; a layer
that is only read is served by the view then, which knows all marks.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from ...vfs.whiteouts import (
    FUSE_OPAQUE_XATTR,
    METACOPY_XATTRS,
    OPAQUE_XATTRS,
    REDIRECT_XATTRS,
    WHITEOUT_PREFIX,
    WHITEOUT_XATTRS,
)
from .mark_search import FoundMarks

if TYPE_CHECKING:
    from ...overlay.marks.mark_plan import DirectoryMarks

__all__ = ["replace_directory_marks", "search_directory", "search_squashfs"]

OF_ROOT, OF_USER = OPAQUE_XATTRS
MOVED = (*REDIRECT_XATTRS, *METACOPY_XATTRS, *WHITEOUT_XATTRS)


def search_directory(path: str, *, for_root: bool) -> FoundMarks:
    """Return the marks below a directory. ``for_root``: root's overlayfs reads it, not one in a user namespace.

    What the caller may not read is left out. Metacopies are not looked for: overlayfs refuses them itself.
    """
    found = FoundMarks()
    ignored = False
    raw = os.fsencode(path)
    pending = [raw]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith(WHITEOUT_PREFIX):
                        ignored |= _is_mark(entry)
                    elif entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
            names = os.listxattr(directory, follow_symlinks=False)
        except OSError:
            continue
        if names and directory != raw:
            found |= _meaning_of({os.fsencode(name) for name in names}, for_root=for_root)
    return found | FoundMarks(ignored=ignored)


def _is_mark(entry: os.DirEntry[bytes]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == 0
    return stat.S_ISREG(status.st_mode) and not status.st_size


def replace_directory_marks(path: str) -> bool:
    """Replace the marks of fuse-overlayfs below a directory by the kernel's; return True if there were some.

    Raises OSError and SifkitError.

    Each step leaves all names as they are seen: whiteouts and opaque marks are made before what they replace is removed.
    """
    from ...overlay.marks.mark_plan import MarkPlanner
    from ...vfs.host_tree import HostTree

    tree = HostTree(path)
    planner: MarkPlanner[bytes, bytes] = MarkPlanner(tree, tree.root, None)
    directories = planner.plan().directories
    for directory in directories:
        fd = _open_below(tree.root, directory.node)
        try:
            _write_marks(fd, planner.marks(directory))
        finally:
            os.close(fd)
    return bool(directories)


def _open_below(top: bytes, path: bytes) -> int:
    """Open a directory below ``top``. Another user, who may change it meanwhile, leads root nowhere else by a symlink."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(top, flags)
    for name in path[len(top) :].split(b"/"):
        if name:
            above = fd
            try:
                fd = os.open(name, flags, dir_fd=above)
            finally:
                os.close(above)
    return fd


def _write_marks(directory: int, marks: DirectoryMarks) -> None:
    status = os.fstat(directory)
    for name in marks.hide:
        with suppress(FileExistsError):
            os.mknod(name, stat.S_IFCHR, dir_fd=directory)  # a whiteout needs no privilege (Linux 5.8)
    for name in marks.set_xattrs:
        if name != OF_ROOT or os.geteuid() == 0:
            os.setxattr(directory, name, b"y")
    for name in marks.remove:
        os.unlink(name, dir_fd=directory)
    for name in marks.remove_xattrs:
        os.removexattr(directory, name)
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))


def search_squashfs(path: str, offset: int, size: int | None) -> FoundMarks:
    """Return the marks in a squashfs image that root's overlayfs reads. Raises SifkitError and OSError.

    Names are searched as bytes, so that it may find a mark where there is none: that makes the layer slower, and no more.
    """
    from ...squashfs.reader import Reader

    found = FoundMarks()
    ignored = False
    with Reader.open(path, offset=offset, size=size) as reader:
        end = b""
        for piece, _ in reader.directories.pieces(0):
            ignored |= WHITEOUT_PREFIX in end + piece
            end = piece[1 - len(WHITEOUT_PREFIX) :]
        table = reader.xattr_table
        for index in range(0 if table is None else table.count):
            assert table is not None
            found |= _meaning_of(set(table.read(index)), for_root=True)
    return found | FoundMarks(ignored=ignored)


def _meaning_of(names: set[bytes], *, for_root: bool) -> FoundMarks:
    """Return what the xattrs of a directory mean."""
    known, other = (OF_ROOT, OF_USER) if for_root else (OF_USER, OF_ROOT)
    ignored = FUSE_OPAQUE_XATTR in names or (other in names and known not in names)
    return FoundMarks(ignored=ignored, moved=not names.isdisjoint(MOVED))
