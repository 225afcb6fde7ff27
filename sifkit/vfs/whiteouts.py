"""Whiteouts, opaque directories and the overlay xattrs of upper/: how the kernel and fuse-overlayfs mark removed files.

The kernel makes a whiteout a character device 0, 0 and a directory opaque by an xattr. fuse-overlayfs does the same if it may;
otherwise it creates a file ``.wh.NAME``, which hides a NAME beside it too, and ``.wh..wh..opq`` in an opaque directory, always
with a device 0, 0 ``.wh..opq`` beside it, which it never looks at. It hides every name that begins with ``.wh.``; to the kernel
these are ordinary files. The kernel ignores that the top of upper/ is opaque, which fuse-overlayfs does not. Sources: Linux
``Documentation/filesystems/overlayfs.rst``; fuse-overlayfs ``main.c`` (load_dir, is_directory_opaque), tried with 1.13.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from operator import attrgetter
from typing import TypeVar

from .file_tree import CHARACTER_DEVICE, UNKNOWN, FileTree, Row, Stat

__all__ = [
    "AUFS_PREFIX",
    "FUSE_LEFTOVER",
    "FUSE_OPAQUE_XATTR",
    "METACOPY_XATTRS",
    "OPAQUE_WHITEOUT",
    "OPAQUE_XATTRS",
    "OVERLAY_XATTR_PREFIXES",
    "REDIRECT_XATTRS",
    "WHITEOUT_PREFIX",
    "WHITEOUT_XATTRS",
    "find_visible",
    "has_whiteout_prefix",
    "has_whiteout_xattr",
    "is_metacopy",
    "is_opaque",
    "is_redirected",
    "is_whiteout",
    "marks_removed_file",
    "redirect_of",
    "visible_rows",
    "whited_out_name",
    "whiteout_name",
    "without_overlay_xattrs",
]

WHITEOUT_PREFIX = b".wh."
OPAQUE_WHITEOUT = b".wh..wh..opq"
FUSE_LEFTOVER = b".wh..opq"
"""Name of a device 0, 0 that fuse-overlayfs leaves in opaque directories, and that means nothing."""
AUFS_PREFIX = b".wh..wh."
"""Prefix of names that aufs reserves; one of them is the opaque whiteout."""
OPAQUE_XATTRS = (b"trusted.overlay.opaque", b"user.overlay.opaque")
"""Xattrs that make a directory opaque: of mounts by root, and by users."""
FUSE_OPAQUE_XATTR = b"user.fuseoverlayfs.opaque"
_ALL_OPAQUE_XATTRS = (*OPAQUE_XATTRS, FUSE_OPAQUE_XATTR)
WHITEOUT_XATTRS = (b"trusted.overlay.whiteout", b"user.overlay.whiteout")
"""An empty file with one of these is a whiteout, too (Linux 6.7)."""
METACOPY_XATTRS = (b"trusted.overlay.metacopy", b"user.overlay.metacopy")
"""A regular file with one of these has its content in a lower layer; only its attributes are in this one."""
REDIRECT_XATTRS = (b"trusted.overlay.redirect", b"user.overlay.redirect")
"""A directory with one of these was renamed: lower layers have it under its old name. A file may have one as well, for the name
of its content; if it is no metacopy, that means nothing."""
OVERLAY_XATTR_PREFIXES = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")
"""Prefixes of the xattrs that overlay filesystems reserve. They have a meaning in upper/ only."""
NAME_MAX = 255
_AFTER_PREFIX = b".wh/"
"""First name behind all that begin with .wh. in the order of bytes."""
_MAY_BE_WHITEOUT = {CHARACTER_DEVICE, UNKNOWN}
_name, _file_type = attrgetter("name"), attrgetter("file_type")

N = TypeVar("N", bound=Hashable)


def is_whiteout(stat: Stat) -> bool:
    """Return True for the kernel's whiteout, a character device 0, 0."""
    return stat.mode & 0o170000 == 0o020000 and stat.major == stat.minor == 0


def has_whiteout_prefix(name: bytes) -> bool:
    """Return True for a ``.wh.`` name, which fuse-overlayfs never shows."""
    return name.startswith(WHITEOUT_PREFIX)


def marks_removed_file(name: bytes) -> bool:
    """Return True for the ``.wh.NAME`` of a removed file; not for the marks of an opaque directory and aufs's names."""
    return has_whiteout_prefix(name) and name not in (WHITEOUT_PREFIX, FUSE_LEFTOVER) and not name.startswith(AUFS_PREFIX)


def whiteout_name(name: bytes) -> bytes | None:
    """Return the name of fuse-overlayfs's whiteout for ``name``; None if it would be too long."""
    return WHITEOUT_PREFIX + name if len(name) + len(WHITEOUT_PREFIX) <= NAME_MAX else None


def whited_out_name(name: bytes) -> bytes | None:
    """Return the name that a fuse-overlayfs whiteout ``name`` hides; None if it is no whiteout's name."""
    is_name = name.startswith(WHITEOUT_PREFIX) and name not in (WHITEOUT_PREFIX, OPAQUE_WHITEOUT)
    return name[len(WHITEOUT_PREFIX) :] if is_name else None


def without_overlay_xattrs(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the xattrs that a container sees: all but those reserved by overlay filesystems."""
    return {name: value for name, value in xattrs.items() if not name.startswith(OVERLAY_XATTR_PREFIXES)}


def is_metacopy(xattrs: Mapping[bytes, bytes]) -> bool:
    """Return True if the content of a regular file with these xattrs is in a lower layer."""
    return any(name in xattrs for name in METACOPY_XATTRS)


def is_redirected(xattrs: Mapping[bytes, bytes]) -> bool:
    """Return True if lower layers have a directory with these xattrs, or the content of a metacopy, under another name."""
    return any(name in xattrs for name in REDIRECT_XATTRS)


def is_opaque(xattrs: Mapping[bytes, bytes]) -> bool:
    """Return True if a directory with these xattrs is opaque: it hides the same directory of lower layers."""
    return any(xattrs.get(name) == b"y" for name in _ALL_OPAQUE_XATTRS)


def has_whiteout_xattr(xattrs: Mapping[bytes, bytes]) -> bool:
    """Return True if an empty regular file with these xattrs is a whiteout."""
    return any(name in xattrs for name in WHITEOUT_XATTRS)


def redirect_of(xattrs: Mapping[bytes, bytes]) -> bytes | None:
    """Return the path that lower layers have a file with these xattrs under: from their top, or a name beside it."""
    return next((xattrs[name] for name in REDIRECT_XATTRS if name in xattrs), None)


def visible_rows(tree: FileTree[N], rows: Sequence[Row[N]]) -> tuple[Sequence[Row[N]], set[bytes]]:
    """Return the rows of a layer's directory that are neither whiteouts nor hidden by one, and the names with a whiteout."""
    from bisect import bisect_left

    start = bisect_left(rows, WHITEOUT_PREFIX, key=_name)
    end = bisect_left(rows, _AFTER_PREFIX, start, key=_name)
    if start == end and _MAY_BE_WHITEOUT.isdisjoint(map(_file_type, rows)):
        return rows, set()
    hidden = {row.name[len(WHITEOUT_PREFIX) :] for row in rows[start:end]}
    hidden |= {row.name for row in rows if row.file_type in _MAY_BE_WHITEOUT and _is_whiteout_row(tree, row)}
    return [row for row in (*rows[:start], *rows[end:]) if row.name not in hidden], hidden


def find_visible(tree: FileTree[N], directory: N, name: bytes) -> tuple[N | None, bool]:
    """Return the node of a name in a layer's directory (None: none, or a hidden one), and whether it has a whiteout."""
    if has_whiteout_prefix(name):
        return None, False
    whiteout = whiteout_name(name)
    if whiteout is not None and tree.find_name(directory, whiteout) is not None:
        return None, True
    node = tree.find_name(directory, name)
    is_hidden = node is not None and is_whiteout(tree.stat(node))
    return (None if is_hidden else node), is_hidden


def _is_whiteout_row(tree: FileTree[N], row: Row[N]) -> bool:
    try:
        found = tree.stat(row.node) if row.stat is None or isinstance(row.stat, OSError) else row.stat
    except OSError:  # reported by whoever reads the file itself
        return False
    return is_whiteout(found)
