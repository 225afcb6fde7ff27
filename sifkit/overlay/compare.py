"""Differences between two trees: images, or an image and a directory of the host.

Compared are type, mode, owner, content, symlink target, device number and xattrs, but not times, inode numbers or data
placement.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal, NamedTuple, Protocol

from ext3 import hostio
from ext3.errors import Ext3Error

from .view import View
from .whiteouts import without_overlay_xattrs

__all__ = ["Difference", "HostSide", "ImageSide", "ComparedFile", "Side", "compare_trees"]

CHUNK_BYTES = 1 << 20
LOST_FOUND = b"lost+found"


class ComparedStat(Protocol):
    """Compared attributes of a file. ``major`` and ``minor`` are 0 except for devices."""

    @property
    def mode(self) -> int: ...

    @property
    def uid(self) -> int: ...

    @property
    def gid(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def major(self) -> int: ...

    @property
    def minor(self) -> int: ...


class HostStat(NamedTuple):
    """Compared attributes of a file of the host."""

    mode: int
    uid: int
    gid: int
    size: int
    major: int
    minor: int


class ComparedFile(NamedTuple):
    """File of one side; ``node`` identifies it there."""

    stat: ComparedStat
    node: int | bytes
    may_have_xattrs: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of one file. ``what``, if modified: any of type mode owner content target device xattrs."""

    kind: Literal["added", "deleted", "modified"]
    path: bytes
    mode: int
    what: tuple[str, ...] = ()


class Side(Protocol):
    """Tree to compare. Paths have no leading slash."""

    def files(self, problems: list[Exception]) -> dict[bytes, ComparedFile]: ...

    def open(self, file: ComparedFile) -> IO[bytes]: ...

    def readlink(self, file: ComparedFile) -> bytes: ...

    def xattrs(self, file: ComparedFile) -> dict[bytes, bytes] | None: ...


class ImageSide:
    """Directory ``path`` of an image."""

    def __init__(self, view: View, path: bytes = b"/") -> None:
        self.view = view
        self.top = view.lookup(path)

    def files(self, problems: list[Exception]) -> dict[bytes, ComparedFile]:
        found: dict[bytes, ComparedFile] = {}
        for path, (_, ino, _, st, may_have_xattrs) in self.view.walk(b"", self.top, problems):
            if isinstance(st, Ext3Error):
                problems.append(st)
            else:
                found[path[1:]] = ComparedFile(st, ino, may_have_xattrs)
        return found

    def open(self, file: ComparedFile) -> IO[bytes]:
        assert isinstance(file.node, int)
        return self.view.filesystem.open_file(file.node)  # type: ignore[return-value]

    def readlink(self, file: ComparedFile) -> bytes:
        assert isinstance(file.node, int)
        return self.view.filesystem.readlink(file.node)

    def xattrs(self, file: ComparedFile) -> dict[bytes, bytes] | None:
        assert isinstance(file.node, int)
        return self.view.filesystem.xattrs(file.node) if file.may_have_xattrs else {}


class HostSide:
    """Directory of the host. Without ``overlay_xattrs`` the xattrs reserved by overlay filesystems are left out."""

    def __init__(self, path: bytes, *, overlay_xattrs: bool = True) -> None:
        self.top = path
        self.overlay_xattrs = overlay_xattrs

    def files(self, problems: list[Exception]) -> dict[bytes, ComparedFile]:
        found: dict[bytes, ComparedFile] = {}
        pending = [b""]
        while pending:
            base = pending.pop()
            try:
                with os.scandir(os.path.join(self.top, base)) as entries:
                    for entry in entries:
                        st = _host_stat(entry.stat(follow_symlinks=False))
                        path = base + entry.name
                        found[path] = ComparedFile(st, entry.path, may_have_xattrs=True)
                        if stat.S_ISDIR(st.mode):
                            pending.append(path + b"/")
            except OSError as error:
                problems.append(error)
        return found

    def open(self, file: ComparedFile) -> IO[bytes]:
        assert isinstance(file.node, bytes)
        return open(os.open(file.node, hostio.READ_REGULAR), "rb", buffering=0)

    def readlink(self, file: ComparedFile) -> bytes:
        assert isinstance(file.node, bytes)
        return os.readlink(file.node)

    def xattrs(self, file: ComparedFile) -> dict[bytes, bytes] | None:
        if not hasattr(os, "listxattr"):
            return None
        try:
            names = os.listxattr(file.node, follow_symlinks=False)
            found = {os.fsencode(name): os.getxattr(file.node, name, follow_symlinks=False) for name in names}
        except OSError:
            return None
        return found if self.overlay_xattrs else without_overlay_xattrs(found)


def _host_stat(found: os.stat_result) -> HostStat:
    special = stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)
    device = (os.major(found.st_rdev), os.minor(found.st_rdev)) if special else (0, 0)
    return HostStat(found.st_mode, found.st_uid, found.st_gid, found.st_size, *device)


def compare_trees(old: Side, new: Side, problems: list[Exception], *, owners: bool = True) -> Iterator[Difference]:
    """Iterate over the differences from ``old`` to ``new``, in byte order of the paths.

    Errors are appended to ``problems``. Without ``owners`` owners are not compared.
    """
    before, after = old.files(problems), new.files(problems)
    for items, others in ((before, after), (after, before)):
        if LOST_FOUND in items and LOST_FOUND not in others and not any(p.startswith(LOST_FOUND + b"/") for p in items):
            del items[LOST_FOUND]  # every ext3 filesystem has one
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one is None:
            assert other is not None
            yield Difference("added", path, other.stat.mode)
        elif other is None:
            yield Difference("deleted", path, one.stat.mode)
        else:
            try:
                what = _differences(old, one, new, other, owners=owners)
            except (Ext3Error, OSError) as error:
                problems.append(error)
                continue
            if what:
                yield Difference("modified", path, other.stat.mode, tuple(what))


def _differences(old: Side, one: ComparedFile, new: Side, other: ComparedFile, *, owners: bool) -> list[str]:
    """Return the attributes that differ, in order of output."""
    first, second = one.stat, other.stat
    kind = stat.S_IFMT(first.mode)
    if kind != stat.S_IFMT(second.mode):
        return ["type"]
    found = []
    if first.mode != second.mode and kind != stat.S_IFLNK and not (_is_whiteout(first) and _is_whiteout(second)):
        found.append("mode")
    if owners and (first.uid != second.uid or first.gid != second.gid):
        found.append("owner")
    if first.major != second.major or first.minor != second.minor:
        found.append("device")
    if kind == stat.S_IFLNK and old.readlink(one) != new.readlink(other):
        found.append("target")
    if kind == stat.S_IFREG and (first.size != second.size or not _same_content(old, one, new, other)):
        found.append("content")
    if (one.may_have_xattrs or other.may_have_xattrs) and not _same_xattrs(old.xattrs(one), new.xattrs(other)):
        found.append("xattrs")
    return found


def _is_whiteout(st: ComparedStat) -> bool:
    """Return True for a whiteout, whose mode has no meaning."""
    return stat.S_ISCHR(st.mode) and st.major == st.minor == 0


def _same_xattrs(first: dict[bytes, bytes] | None, second: dict[bytes, bytes] | None) -> bool:
    """Return True if xattrs are equal, or one side is unknown (None)."""
    return first is None or second is None or first == second


def _same_content(old: Side, one: ComparedFile, new: Side, other: ComparedFile) -> bool:
    """Return True if two files of the same size have the same content."""
    if not one.stat.size:
        return True
    with old.open(one) as first, new.open(other) as second:
        while chunk := first.read(CHUNK_BYTES):
            rest = second.read(len(chunk))
            while len(rest) < len(chunk) and (more := second.read(len(chunk) - len(rest))):
                rest += more
            if chunk != rest:
                return False
        return not second.read(1)
