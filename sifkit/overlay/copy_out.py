"""Copies out of an image: one file to a name on the host, or a directory with all below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ext3 import hostio
from ext3.read.filesystem import Filesystem, Stat
from sifkit.overlay.extracting import Extracted, extract
from sifkit.overlay.host_writer import Counts, Facts, apply_facts

from .copy_in import CopyOptions

if TYPE_CHECKING:
    from .options import Progress

__all__ = ["copy_file_out", "copy_tree_out"]

PIECE_BYTES = 4 << 20


def copy_tree_out(
    filesystem: Filesystem, ino: int, target: bytes, options: CopyOptions, *, keep: tuple[int, int], progress: Progress
) -> Extracted:
    """A directory's content to the directory ``target``, which is made or merged into. Modes, times and attributes are kept,
    owners where ``options`` preserve them and the caller may; nothing leaves ``target``. ``keep``: device and inode of the
    image, which is not replaced. Raises as ``sifkit.overlay.extracting``."""
    owners = "owner" in options.preserve and hasattr(os, "geteuid") and os.geteuid() == 0
    return extract(filesystem, target, top=ino, force=True, owners=owners, keep=keep, progress=progress)


def copy_file_out(
    filesystem: Filesystem, ino: int, target: bytes, options: CopyOptions, *, advance: Callable[[int], None]
) -> Counts:
    """What is no directory to the name ``target`` on the host; what is there gets its content, or is replaced if it is of
    another type. Holes stay holes. Raises OSError, and Ext3Error where the image cannot be read."""
    found = filesystem.stat(ino)
    counts = Counts()
    if stat.S_ISREG(found.mode):
        _regular(filesystem, found, target, options, counts, advance)
        return counts
    with suppress(FileNotFoundError):
        os.unlink(target)
    if found.is_symlink:
        os.symlink(filesystem.readlink(ino), target)
    else:
        os.mknod(target, stat.S_IFMT(found.mode) | found.mode & 0o777 & ~options.umask, os.makedev(found.major, found.minor))
    if options.preserve:
        _dress(filesystem, found, os.path.basename(target), options, counts, os.path.dirname(target) or b".")
    return counts


def _regular(
    filesystem: Filesystem,
    found: Stat,
    target: bytes,
    options: CopyOptions,
    counts: Counts,
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
                    data = source.read(min(PIECE_BYTES, end - at))
                    if not data:
                        break
                    if plain:
                        hostio.write_at(fd, at, data)
                    else:
                        hostio.write_all(fd, data)
                    at += len(data)
                    counts.written_bytes += len(data)
                    advance(len(data))
            if options.preserve and plain and hasattr(os, "fchmod"):
                _dress(filesystem, found, fd, options, counts, None)
        finally:
            os.close(fd)


def _dress(
    filesystem: Filesystem, found: Stat, where: int | bytes, options: CopyOptions, counts: Counts, directory: bytes | None
) -> None:
    owners = "owner" in options.preserve and os.geteuid() == 0
    xattrs = filesystem.xattrs(found.ino) if "xattrs" in options.preserve else None
    facts = Facts(found.mode, found.uid, found.gid, found.atime, found.mtime, xattrs)
    if directory is None:
        apply_facts(where, facts, counts, owners=owners)
        return
    fd = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | hostio.OPEN)
    try:
        apply_facts(where, facts, counts, owners=owners, directory=fd)
    finally:
        os.close(fd)
