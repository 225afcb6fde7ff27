"""Entries of an OCI layer: the files of upper/ in byte order, and whiteouts for removed files and opaque directories.

Whiteouts of fuse-overlayfs (``.wh.`` names) are recognised here; those of the kernel need the inode and are left to
``layer_export``. Sources: OCI image specification, ``layer.md``; Linux ``Documentation/filesystems/overlayfs.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ext3.constants import NAME_MAX, FileType
from ext3.errors import Ext3Error, PathNotDirectoryError
from ext3.read.filesystem import Entry, Filesystem

from ..tar.writer import PATH_LIMIT
from .selection import ImageDirectoryReader
from .whiteouts import AUFS_PREFIX, OPAQUE_WHITEOUT, REDIRECT_XATTRS, WHITEOUT_PREFIX, has_whiteout_prefix, is_opaque

__all__ = ["LayerEntry", "walk_layer"]


OnProblem = Callable[[bytes, str], None]
"""Callback for an entry that is left out: its path from the top of the layer, with a leading slash, and the reason."""


class LayerEntry(NamedTuple):
    """Entry of a layer: its path without a leading or trailing slash, b"" for the top.

    A whiteout is an empty file with the times of inode ``ino``. ``is_dir``: the type in the directory entry.
    """

    path: bytes
    ino: int
    is_dir: bool
    is_whiteout: bool


def walk_layer(filesystem: Filesystem, root: int, on_problem: OnProblem) -> Iterator[LayerEntry]:
    """Iterate over the directory inode ``root`` and everything below it, parents first, an opaque whiteout before the rest.

    Files that cannot be read or cannot be in a layer are passed to ``on_problem`` and left out.
    """
    reader = ImageDirectoryReader(filesystem)
    seen = {root}
    yield LayerEntry(b"", root, True, False)
    pending = [iter(_directory_entries(filesystem, reader, b"", root, on_problem))]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        if found.is_dir and found.ino in seen:
            on_problem(b"/" + found.path, "the image is damaged: this directory is in it twice")
            continue
        yield found
        if found.is_dir:
            seen.add(found.ino)
            pending.append(iter(_directory_entries(filesystem, reader, found.path + b"/", found.ino, on_problem)))


def _directory_entries(
    filesystem: Filesystem, reader: ImageDirectoryReader, prefix: bytes, directory: int, on_problem: OnProblem
) -> list[LayerEntry]:
    """Return the layer entries of a directory in order, an opaque whiteout first."""
    path = b"/" + prefix.rstrip(b"/")
    entries: list[Entry] = []
    xattrs: dict[bytes, bytes] = {}
    try:
        reader.read(directory, entries)
    except PathNotDirectoryError:
        return []  # reported when its inode is read
    except Ext3Error as error:
        on_problem(path, str(error))
    with suppress(Ext3Error):  # reported there too
        xattrs = filesystem.xattrs(directory)
    if any(name in xattrs for name in REDIRECT_XATTRS):
        on_problem(path, "the directory was renamed: its content in lower layers is not in the layer")
    entries.sort()
    prefixed = [entry for entry in entries if has_whiteout_prefix(entry.name)]
    found = []
    if is_opaque(xattrs) or any(entry.name == OPAQUE_WHITEOUT for entry in prefixed):
        found.append(LayerEntry(prefix + OPAQUE_WHITEOUT, directory, False, True))
    if prefixed or len(prefix) + NAME_MAX >= PATH_LIMIT:
        return found + _filter_whiteouts(filesystem, prefix, entries, on_problem)
    found += [LayerEntry(prefix + name, ino, kind is FileType.DIRECTORY, False) for name, ino, kind in entries]
    return found


def _filter_whiteouts(filesystem: Filesystem, prefix: bytes, entries: list[Entry], on_problem: OnProblem) -> list[LayerEntry]:
    """Return the layer entries of a directory with whiteouts of fuse-overlayfs or long paths."""
    whiteouts = {
        entry.name
        for entry in entries
        if has_whiteout_prefix(entry.name)
        and entry.name != OPAQUE_WHITEOUT
        and _is_whiteout(filesystem, prefix, entry, on_problem)
    }
    found = []
    for entry in entries:
        path = prefix + entry.name
        is_dir = entry.file_type is FileType.DIRECTORY
        if len(path) + is_dir >= PATH_LIMIT:
            on_problem(b"/" + path[:200] + b"...", f"the path is too long: {len(path)} bytes")
        elif entry.name in whiteouts:
            found.append(LayerEntry(path, entry.ino, False, True))
        elif not has_whiteout_prefix(entry.name) and WHITEOUT_PREFIX + entry.name not in whiteouts:
            found.append(LayerEntry(path, entry.ino, is_dir, False))
    return found


def _is_whiteout(filesystem: Filesystem, prefix: bytes, entry: Entry, on_problem: OnProblem) -> bool:
    """Return True for a whiteout of fuse-overlayfs; other files with such names are problems."""
    try:
        stat = filesystem.stat(entry.ino)
    except Ext3Error as error:
        on_problem(b"/" + prefix + entry.name, str(error))
        return False
    if stat.is_file and not stat.size and entry.name != WHITEOUT_PREFIX and not entry.name.startswith(AUFS_PREFIX):
        return True
    on_problem(b"/" + prefix + entry.name, "a name that begins with .wh. would be a whiteout where the layer is used")
    return False
