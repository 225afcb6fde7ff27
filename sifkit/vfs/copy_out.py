"""Copies out of a tree: one file, or a directory, to the host."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ext3 import hostio
from ext3.progress import Progress

from ..replacing import ANY_FILE
from .data_limit import check_data_limit
from .errors import bad_mode_error, unreadable_attributes
from .extracting import extract
from .file_copy import UnreadableError, copy_ranges, ranges_of
from .file_tree import UNKNOWN, FileTree, OpenFile, Stat, file_type_of
from .host_attributes import ACLS, owner_only, set_attributes, set_unopened_attributes
from .host_writer import ExtractResult, create_over
from .resolve import is_symlink
from .subtree import Subtree

__all__ = ["CopyOutOptions", "copy_file_out", "copy_tree_out"]

N = TypeVar("N", bound=Hashable)
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOutOptions:
    """Options of a copy, as cp has them.

    ``preserve``: what of "mode", "owner", "times" and "xattrs" is preserved; mode and times together. ``umask``: for the modes
    of new files.
    """

    preserve: frozenset[str] = frozenset()
    umask: int = 0o022


def copy_tree_out(
    tree: FileTree[N],
    node: N,
    target: bytes,
    options: CopyOutOptions,
    *,
    image_ids: Collection[tuple[int, int]] = (),
    progress: Progress | None = None,
) -> ExtractResult:
    """Copy the content of a directory to the directory ``target``, which is created or merged into.

    Modes, times and xattrs are preserved, owners too if ``options`` say so and the caller is root. ``image_ids``: devices
    and inodes of images, which are not replaced. Raises as ``extract`` does.
    """
    owners = "owner" in options.preserve and _is_root()
    return extract(Subtree(tree, node), target, force=True, owners=owners, image_ids=image_ids, progress=progress)


def copy_file_out(
    tree: FileTree[N], node: N, target: bytes, options: CopyOutOptions, *, advance: Callable[[int], None] | None = None
) -> ExtractResult:
    """Copy a file that is not a directory to the path ``target`` on the host. Holes stay holes.

    An existing file gets the content of a regular file; for a file of another type it is replaced. ``advance`` is called with
    the bytes written since its last call. Xattrs that cannot be read are a problem of the result, with an empty path. Raises
    OSError of the host or the tree, and SharedBlocksError.
    """
    result = ExtractResult()
    found, attributes = _attributes(tree, node, options.preserve, result)
    if file_type_of(found.mode) == UNKNOWN:
        raise bad_mode_error(found.mode)
    mode = found.mode & 0o777 & ~options.umask
    owners = "owner" in options.preserve and _is_root()
    if stat.S_ISREG(found.mode):
        limit = tree.statfs().data_limit
        with tree.open_file(node) as source:
            fd = _open_target(target, mode)
            try:
                regular = hostio.is_regular(fd)
                copy = _copy_ranges if regular else _copy_bytes
                result.written_bytes = copy(source, fd, limit, advance)
                if options.preserve and regular and hasattr(os, "fchmod"):
                    set_attributes(fd, found, attributes, result, owners=owners)
            finally:
                os.close(fd)
        return result
    link = tree.readlink(node) if is_symlink(found) else b""
    above, name = os.path.split(target)
    directory = os.open(above or b".", os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | hostio.OPEN)
    try:

        def create(name: bytes) -> None:
            if link:
                os.symlink(link, name, dir_fd=directory)
            else:
                device = os.makedev(found.major, found.minor)
                os.mknod(name, stat.S_IFMT(found.mode) | mode, device, dir_fd=directory)

        try:
            create(name)
        except FileExistsError:
            ANY_FILE.check_name(target)
            create_over(name, create, directory=directory)
        if options.preserve:
            set_unopened_attributes(name, found, attributes, result, owners=owners, directory=directory)
    finally:
        os.close(directory)
    return result


def _open_target(target: bytes, mode: int) -> int:
    """Open an existing file, or create one; never through a dangling link, nor a block device with a filesystem in use."""
    try:
        kind = stat.S_IFMT(os.stat(target).st_mode)
        exclusive = os.O_EXCL if kind == stat.S_IFBLK else 0
        return os.open(target, os.O_WRONLY | exclusive | hostio.OPEN)
    except FileNotFoundError:
        return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | hostio.OPEN, mode)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _attributes(
    tree: FileTree[N], node: N, preserve: frozenset[str], result: ExtractResult
) -> tuple[Stat, Mapping[bytes, bytes]]:
    """Return the Stat of a file, and the xattrs to preserve: all of them, or ACLs, which belong to the mode. Raises OSError."""
    loaded = next(iter(tree.load_many([node], limit=0)))
    if isinstance(loaded.stat, OSError):
        raise loaded.stat
    if not preserve & {"mode", "xattrs"}:
        return loaded.stat, {}
    if isinstance(loaded.xattrs, OSError):
        result.add_problem(b"", unreadable_attributes(loaded.xattrs))
        return owner_only(loaded.stat), {}
    if "xattrs" in preserve:
        return loaded.stat, loaded.xattrs
    return loaded.stat, {name: value for name, value in loaded.xattrs.items() if name in ACLS}


def _copy_ranges(source: OpenFile, fd: int, limit: int | None, advance: Callable[[int], None] | None) -> int:
    """Replace the content of a regular file; return the bytes written."""
    try:
        ranges = ranges_of(source)
        check_data_limit(limit, sum(one.length for one in ranges))
        if source.size > os.fstat(fd).st_size:
            os.ftruncate(fd, source.size)  # may be refused (EFBIG): then the old content stays
        os.ftruncate(fd, 0)
        os.ftruncate(fd, source.size)
        return copy_ranges(source, ranges, fd, advance)
    except UnreadableError as unreadable:
        raise unreadable.error from None


def _copy_bytes(source: OpenFile, fd: int, _: int | None, advance: Callable[[int], None] | None) -> int:
    """Write the content to a pipe or a device, holes as zeros; return the bytes written."""
    written = 0
    while written < source.size:
        data = source.read_at(written, CHUNK_BYTES)
        if not data:
            break
        hostio.write_all(fd, data)
        written += len(data)
        if advance is not None:
            advance(len(data))
    return written
