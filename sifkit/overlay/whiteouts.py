"""Whiteouts, opaque directories and the overlay xattrs of upper/: how the kernel and fuse-overlayfs mark removed files.

The kernel makes a whiteout a character device 0, 0 and a directory opaque by an xattr. fuse-overlayfs does the same if it may;
otherwise it creates a file ``.wh.NAME``, which hides a NAME beside it too, and ``.wh..wh..opq`` in an opaque directory. It
hides every name that begins with ``.wh.``; to the kernel these are ordinary files. Sources: Linux
``Documentation/filesystems/overlayfs.rst``; fuse-overlayfs ``main.c`` (load_dir, is_directory_opaque), tried with 1.13.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ext3.constants import NAME_MAX, ROOT_INO, FileType
from ext3.errors import Ext3Error
from ext3.read.directory_scan import Listing
from ext3.read.filesystem import Entry, Filesystem, PathOrIno, Stat

__all__ = [
    "AUFS_PREFIX",
    "METACOPY_XATTRS",
    "OPAQUE_WHITEOUT",
    "OPAQUE_XATTRS",
    "OVERLAY_XATTR_PREFIXES",
    "REDIRECT_XATTRS",
    "WHITEOUT_PREFIX",
    "WHITEOUT_XATTRS",
    "UpperView",
    "has_whiteout_prefix",
    "is_opaque",
    "is_opaque_directory",
    "is_whiteout",
    "whited_out_name",
    "whiteout_name",
    "without_overlay_xattrs",
    "without_whiteouts",
]

WHITEOUT_PREFIX = b".wh."
OPAQUE_WHITEOUT = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
"""Prefix of names that aufs reserves; one of them is the opaque whiteout."""
OPAQUE_XATTRS = (b"trusted.overlay.opaque", b"user.overlay.opaque")
"""Xattrs that make a directory opaque: of mounts by root, and by users."""
_ALL_OPAQUE_XATTRS = (*OPAQUE_XATTRS, b"user.fuseoverlayfs.opaque")
WHITEOUT_XATTRS = (b"trusted.overlay.whiteout", b"user.overlay.whiteout")
"""An empty file with one of these is a whiteout, too (Linux 6.7)."""
METACOPY_XATTRS = (b"trusted.overlay.metacopy", b"user.overlay.metacopy")
"""A file with one of these has its content in a lower layer."""
REDIRECT_XATTRS = (b"trusted.overlay.redirect", b"user.overlay.redirect")
"""A directory with one of these was renamed: lower layers have it under its old name."""
OVERLAY_XATTR_PREFIXES = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")
"""Prefixes of the xattrs that overlay filesystems reserve. They have a meaning in upper/ only."""
_MAY_BE_WHITEOUT = (FileType.UNKNOWN, FileType.CHARACTER)


def is_whiteout(stat: Stat) -> bool:
    """Return True for the kernel's whiteout, a character device 0, 0."""
    return stat.mode & 0o170000 == 0o020000 and stat.major == stat.minor == 0


def has_whiteout_prefix(name: bytes) -> bool:
    """Return True for a ``.wh.`` name, which fuse-overlayfs never shows."""
    return name.startswith(WHITEOUT_PREFIX)


def whiteout_name(name: bytes) -> bytes | None:
    """Return the name of fuse-overlayfs's whiteout for ``name``; None if it would be too long."""
    return WHITEOUT_PREFIX + name if len(name) + len(WHITEOUT_PREFIX) <= NAME_MAX else None


def whited_out_name(name: bytes) -> bytes | None:
    """Return the name that a fuse-overlayfs whiteout ``name`` hides; None if it is no whiteout's name."""
    is_name = name.startswith(WHITEOUT_PREFIX) and name not in (WHITEOUT_PREFIX, OPAQUE_WHITEOUT)
    return name[len(WHITEOUT_PREFIX) :] if is_name else None


def without_overlay_xattrs(xattrs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the xattrs that a container sees: all but those reserved by overlay filesystems."""
    return {name: value for name, value in xattrs.items() if not name.startswith(OVERLAY_XATTR_PREFIXES)}


def is_opaque(xattrs: dict[bytes, bytes]) -> bool:
    """Return True if a directory with these xattrs is opaque: it hides the same directory of lower layers."""
    return any(xattrs.get(name) == b"y" for name in _ALL_OPAQUE_XATTRS)


def is_opaque_directory(filesystem: Filesystem, ino: int) -> bool:
    """Return True if a directory is opaque, by its xattrs or an opaque whiteout in it."""
    raw = filesystem.unfiltered if isinstance(filesystem, UpperView) else filesystem
    return is_opaque(raw.xattrs(ino)) or raw.find_name(ino, OPAQUE_WHITEOUT) is not None


def without_whiteouts(filesystem: Filesystem, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries of a directory that a container sees: neither whiteouts nor the names they hide."""
    found = list(entries)
    hidden = {entry.name[len(WHITEOUT_PREFIX) :] for entry in found if has_whiteout_prefix(entry.name)}
    return [
        entry
        for entry in found
        if not has_whiteout_prefix(entry.name)
        and entry.name not in hidden
        and not (entry.file_type in _MAY_BE_WHITEOUT and _is_whiteout_inode(filesystem, entry.ino))
    ]


class UpperView(Filesystem):
    """View of an open filesystem as a container sees upper/: without whiteouts, hidden names and overlay xattrs.

    ``unfiltered`` is the filesystem itself; whoever opened it closes it.
    """

    def __init__(self, filesystem: Filesystem) -> None:
        vars(self).update(vars(filesystem))
        self.unfiltered = filesystem

    def scandir(self, path_or_ino: bytes | str | int = ROOT_INO) -> Iterator[Entry]:
        return iter(without_whiteouts(self, super().scandir(path_or_ino)))

    def scandirs(self, inos: Sequence[int], most_names: int = 1 << 16) -> list[Listing | None]:
        found = super().scandirs(inos, most_names)
        return [one and Listing(without_whiteouts(self, one.entries), one.blocks) for one in found]

    def xattrs(self, path_or_ino: PathOrIno, *, follow: bool = True) -> dict[bytes, bytes]:
        return without_overlay_xattrs(super().xattrs(path_or_ino, follow=follow))

    def find_name(self, directory: int, name: bytes) -> int | None:
        ino = super().find_name(directory, name)
        if ino is None or has_whiteout_prefix(name) or is_whiteout(self.stat(ino)):
            return None
        whiteout = whiteout_name(name)
        return ino if whiteout is None or super().find_name(directory, whiteout) is None else None


def _is_whiteout_inode(filesystem: Filesystem, ino: int) -> bool:
    try:
        return is_whiteout(filesystem.stat(ino))
    except Ext3Error:  # reported by whoever reads the file itself
        return False
