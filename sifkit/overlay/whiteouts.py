"""What overlay filesystems leave in upper/ beside files: whiteouts, for what was removed, and opaque directories.

The kernel makes a whiteout a character device 0, 0, and a directory opaque by an attribute. fuse-overlayfs does the same
where it may; else it leaves a file ``.wh.NAME``, which hides NAME beside it, too, and ``.wh..wh..opq`` in an opaque directory.
It shows nothing whose name begins with ``.wh.``; to the kernel these are files like any other. Sources: Linux
``Documentation/filesystems/overlayfs.rst``; fuse-overlayfs ``main.c`` (load_dir, is_directory_opaque), tried with 1.13.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ext3.constants import NAME_MAX, ROOT_INO, FileType
from ext3.errors import Ext3Error
from ext3.read.directory_scan import Listing
from ext3.read.filesystem import Entry, Filesystem, PathOrIno, Stat

__all__ = [
    "OPAQUE_MARK",
    "OPAQUE_NAMES",
    "OWN_XATTRS",
    "PREFIX",
    "SeenFilesystem",
    "hidden_by",
    "is_mark",
    "is_opaque",
    "is_opaque_directory",
    "is_whiteout",
    "mark_of",
    "seen_xattrs",
    "visible",
]

PREFIX = b".wh."
OPAQUE_MARK = b".wh..wh..opq"
OPAQUE_NAMES = (b"trusted.overlay.opaque", b"user.overlay.opaque")
"""The attributes that make a directory opaque: of mounts by root, and by users."""
_OPAQUE_ANYWHERE = (*OPAQUE_NAMES, b"user.fuseoverlayfs.opaque")
OWN_XATTRS = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")
"""How the names of attributes begin that overlay filesystems keep for themselves: they mean something in upper/ only."""
_MAY_BE_DEVICE = (FileType.UNKNOWN, FileType.CHARACTER)


def is_whiteout(found: Stat) -> bool:
    """What the kernel leaves in upper/ for a file that was removed: a character device 0, 0."""
    return found.mode & 0o170000 == 0o020000 and found.major == found.minor == 0


def is_mark(name: bytes) -> bool:
    """Whether fuse-overlayfs takes a file of this name for a mark, and shows it to nobody."""
    return name.startswith(PREFIX)


def mark_of(name: bytes) -> bytes | None:
    """The name of fuse-overlayfs's whiteout for ``name``; None where it would be too long."""
    return PREFIX + name if len(name) + len(PREFIX) <= NAME_MAX else None


def hidden_by(name: bytes) -> bytes | None:
    """The name that fuse-overlayfs hides where there is a file of this name, if that is a whiteout."""
    return name[len(PREFIX) :] if name.startswith(PREFIX) and name not in (PREFIX, OPAQUE_MARK) else None


def seen_xattrs(xattrs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Those of a file's attributes that a container sees."""
    return {name: value for name, value in xattrs.items() if not name.startswith(OWN_XATTRS)}


def is_opaque(xattrs: dict[bytes, bytes]) -> bool:
    """Whether a directory with these attributes hides what lower layers have in it."""
    return any(xattrs.get(name) == b"y" for name in _OPAQUE_ANYWHERE)


def is_opaque_directory(filesystem: Filesystem, ino: int) -> bool:
    """Whether a directory hides what lower layers have in it, by its attributes or the mark in it."""
    reads = filesystem.whole if isinstance(filesystem, SeenFilesystem) else filesystem
    return is_opaque(reads.xattrs(ino)) or reads.find_name(ino, OPAQUE_MARK) is not None


def visible(filesystem: Filesystem, entries: Iterable[Entry]) -> list[Entry]:
    """Those of a directory's entries that a container sees."""
    found = list(entries)
    hidden = {entry.name[len(PREFIX) :] for entry in found if is_mark(entry.name)}
    return [
        entry
        for entry in found
        if not is_mark(entry.name)
        and entry.name not in hidden
        and not (entry.file_type in _MAY_BE_DEVICE and _is_whiteout_at(filesystem, entry.ino))
    ]


class SeenFilesystem(Filesystem):
    """An open filesystem, read as a container sees it: what is hidden is in no directory, and files do not have the attributes
    that overlay filesystems keep for themselves. It is closed by whoever opened it, as ``whole``."""

    def __init__(self, filesystem: Filesystem) -> None:
        vars(self).update(vars(filesystem))
        self.whole = filesystem

    def scandir(self, path_or_ino: bytes | str | int = ROOT_INO) -> Iterator[Entry]:
        return iter(visible(self, super().scandir(path_or_ino)))

    def scandirs(self, inos: Sequence[int], most_names: int = 1 << 16) -> list[Listing | None]:
        found = super().scandirs(inos, most_names)
        return [one and Listing(visible(self, one.entries), one.blocks) for one in found]

    def xattrs(self, path_or_ino: PathOrIno, *, follow: bool = True) -> dict[bytes, bytes]:
        return seen_xattrs(super().xattrs(path_or_ino, follow=follow))

    def find_name(self, directory: int, name: bytes) -> int | None:
        ino = super().find_name(directory, name)
        if ino is None or is_mark(name) or is_whiteout(self.stat(ino)):
            return None
        mark = mark_of(name)
        return ino if mark is None or super().find_name(directory, mark) is None else None


def _is_whiteout_at(filesystem: Filesystem, ino: int) -> bool:
    try:
        return is_whiteout(filesystem.stat(ino))
    except Ext3Error:  # told by whoever looks at the file itself
        return False
