"""What belongs into a layer, by name: the files of upper/ in byte order, and the marks for what is removed and hidden.

Both kinds of marks are understood, the kernel's and those of fuse-overlayfs (see ``marks``). Sources: OCI image specification,
``layer.md``; Linux ``Documentation/filesystems/overlayfs.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ext3.constants import NAME_MAX, FileType
from ext3.errors import Ext3Error, PathNotDirectoryError
from ext3.read.filesystem import Entry, Filesystem
from sifkit.overlay.selection import Directories
from sifkit.tar.writer import PATH_LIMIT

from .whiteouts import OPAQUE_WHITEOUT, REDIRECT_XATTRS, WHITEOUT_PREFIX, has_whiteout_prefix, is_opaque

__all__ = ["LayerName", "layer_names"]

RESERVED = b".wh..wh."
"""Names of aufs that mean something else; one of them is the mark of an opaque directory."""

Trouble = Callable[[bytes, str], None]
"""Told of a path (from the top of the layer on, with a slash in front) and why it is left out."""


class LayerName(NamedTuple):
    """An entry of the layer: its path without a slash at either end, the top's is empty.

    A ``mark`` is an empty file with the times of inode ``ino``. ``is_dir``: what the name in the directory says it is.
    """

    path: bytes
    ino: int
    is_dir: bool
    mark: bool


def layer_names(filesystem: Filesystem, root: int, trouble: Trouble) -> Iterator[LayerName]:
    """Everything below the directory inode ``root``, itself first, each directory's mark and content behind it.

    What cannot be in a layer or cannot be read is told to ``trouble`` and left out.
    """
    directories = Directories(filesystem)
    seen = {root}
    yield LayerName(b"", root, True, False)
    pending = [iter(_inside(filesystem, directories, b"", root, trouble))]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        if found.is_dir and found.ino in seen:
            trouble(b"/" + found.path, "the image is damaged: this directory is in it twice")
            continue
        yield found
        if found.is_dir:
            seen.add(found.ino)
            pending.append(iter(_inside(filesystem, directories, found.path + b"/", found.ino, trouble)))


def _inside(
    filesystem: Filesystem, directories: Directories, prefix: bytes, directory: int, trouble: Trouble
) -> list[LayerName]:
    """What is in a directory, in order; the mark of an opaque one first."""
    where = b"/" + prefix.rstrip(b"/")
    entries: list[Entry] = []
    xattrs: dict[bytes, bytes] = {}
    try:
        directories.read(directory, entries)
    except PathNotDirectoryError:
        return []  # told where its inode is looked at
    except Ext3Error as error:
        trouble(where, str(error))
    with suppress(Ext3Error):  # told there, too
        xattrs = filesystem.xattrs(directory)
    if any(name in xattrs for name in REDIRECT_XATTRS):
        trouble(where, "the directory was renamed: what lower layers hold of it is not in the layer")
    entries.sort()
    named = [entry for entry in entries if has_whiteout_prefix(entry.name)]
    found = []
    if is_opaque(xattrs) or any(entry.name == OPAQUE_WHITEOUT for entry in named):
        found.append(LayerName(prefix + OPAQUE_WHITEOUT, directory, False, True))
    if named or len(prefix) + NAME_MAX >= PATH_LIMIT:
        return found + _chosen(filesystem, prefix, entries, trouble)
    found += [LayerName(prefix + name, ino, kind is FileType.DIRECTORY, False) for name, ino, kind in entries]
    return found


def _chosen(filesystem: Filesystem, prefix: bytes, entries: list[Entry], trouble: Trouble) -> list[LayerName]:
    """The entries of a directory where not all are as they seem: marks of fuse-overlayfs, what they hide, and long paths."""
    marks = {
        entry.name
        for entry in entries
        if has_whiteout_prefix(entry.name)
        and entry.name != OPAQUE_WHITEOUT
        and _is_whiteout(filesystem, prefix, entry, trouble)
    }
    found = []
    for entry in entries:
        path = prefix + entry.name
        is_dir = entry.file_type is FileType.DIRECTORY
        if len(path) + is_dir >= PATH_LIMIT:
            trouble(b"/" + path[:200] + b"...", f"a path of {len(path)} bytes is longer than any program takes")
        elif entry.name in marks:
            found.append(LayerName(path, entry.ino, False, True))
        elif not has_whiteout_prefix(entry.name) and WHITEOUT_PREFIX + entry.name not in marks:
            found.append(LayerName(path, entry.ino, is_dir, False))
    return found


def _is_whiteout(filesystem: Filesystem, prefix: bytes, entry: Entry, trouble: Trouble) -> bool:
    """Whether a name like that of a whiteout of fuse-overlayfs is one; other files of such names are told."""
    try:
        facts = filesystem.stat(entry.ino)
    except Ext3Error as error:
        trouble(b"/" + prefix + entry.name, str(error))
        return False
    if facts.is_file and not facts.size and entry.name != WHITEOUT_PREFIX and not entry.name.startswith(RESERVED):
        return True
    trouble(b"/" + prefix + entry.name, "a name that begins with .wh. would remove a file where the layer is used")
    return False
