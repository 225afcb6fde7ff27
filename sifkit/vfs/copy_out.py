"""Copies out of an image: one file, or a directory tree, to the host."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ext3 import hostio
from ext3.read.filesystem import Filesystem, Stat

from .copy_in import CopyOptions
from .extracting import extract
from .host_writer import ExtractResult, FileAttributes, set_attributes

if TYPE_CHECKING:
    from .options import Progress

__all__ = ["copy_file_out", "copy_tree_out"]

CHUNK_BYTES = 4 << 20


def copy_tree_out(
    filesystem: Filesystem,
    ino: int,
    target: bytes,
    options: CopyOptions,
    *,
    image_id: tuple[int, int],
    progress: Progress,
) -> ExtractResult:
    """Copy the content of a directory to the directory ``target``, which is created or merged into.

    Modes, times and xattrs are preserved, owners too if ``options`` say so and the caller is root. ``image_id``: device
    and inode of the image, which is not replaced. Raises as ``extract`` does.
    """
    owners = "owner" in options.preserve and hasattr(os, "geteuid") and os.geteuid() == 0
    return extract(filesystem, target, top=ino, force=True, owners=owners, image_id=image_id, progress=progress)


def copy_file_out(
    filesystem: Filesystem, ino: int, target: bytes, options: CopyOptions, *, advance: Callable[[int], None]
) -> ExtractResult:
    """Copy a file that is not a directory to the path ``target`` on the host. Holes stay holes.

    An existing regular file gets the content; one of another type is replaced. Raises OSError, and Ext3Error if the image
    cannot be read.
    """
    found = filesystem.stat(ino)
    result = ExtractResult()
    if stat.S_ISREG(found.mode):
        _copy_regular(filesystem, found, target, options, result, advance)
        return result
    with suppress(FileNotFoundError):
        os.unlink(target)
    if found.is_symlink:
        os.symlink(filesystem.readlink(ino), target)
    else:
        os.mknod(target, stat.S_IFMT(found.mode) | found.mode & 0o777 & ~options.umask, os.makedev(found.major, found.minor))
    if options.preserve:
        _set_attributes(filesystem, found, os.path.basename(target), options, result, os.path.dirname(target) or b".")
    return result


def _copy_regular(
    filesystem: Filesystem,
    found: Stat,
    target: bytes,
    options: CopyOptions,
    result: ExtractResult,
    advance: Callable[[int], None],
) -> None:
    block_size = filesystem.superblock.block_size
    with filesystem.open_file(found.ino) as source:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | hostio.OPEN, found.mode & 0o777 & ~options.umask)
        try:
            plain = hostio.is_regular(fd)
            if plain:
                os.ftruncate(fd, 0)
                os.ftruncate(fd, found.size)
            extents = filesystem.data_extents(found.ino) if plain else [(0, 0, -(-found.size // block_size))]
            for logical, _, blocks in extents:
                at, end = logical * block_size, min(found.size, (logical + blocks) * block_size)
                while at < end:
                    source.seek(at)
                    data = source.read(min(CHUNK_BYTES, end - at))
                    if not data:
                        break
                    if plain:
                        hostio.write_at(fd, at, data)
                    else:
                        hostio.write_all(fd, data)
                    at += len(data)
                    result.written_bytes += len(data)
                    advance(len(data))
            if options.preserve and plain and hasattr(os, "fchmod"):
                _set_attributes(filesystem, found, fd, options, result, None)
        finally:
            os.close(fd)


def _set_attributes(
    filesystem: Filesystem, found: Stat, file: int | bytes, options: CopyOptions, result: ExtractResult, directory: bytes | None
) -> None:
    owners = "owner" in options.preserve and os.geteuid() == 0
    xattrs = filesystem.xattrs(found.ino) if "xattrs" in options.preserve else None
    attributes = FileAttributes(found.mode, found.uid, found.gid, found.atime, found.mtime, xattrs)
    if directory is None:
        set_attributes(file, attributes, result, owners=owners)
        return
    fd = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | hostio.OPEN)
    try:
        set_attributes(file, attributes, result, owners=owners, directory=fd)
    finally:
        os.close(fd)
