"""What differs between two trees: images, or an image and a directory of the host.

Compared are type, mode, owner, content, targets of links, device numbers and extended attributes; not times, inode numbers
or where data lies.
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

__all__ = ["Change", "HostSide", "ImageSide", "Item", "Side", "compare"]

COMPARED_BYTES = 1 << 20
LOST_FOUND = b"lost+found"


class Facts(Protocol):
    """What is compared of any file. ``major`` and ``minor`` are zero but for devices."""

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


class HostFacts(NamedTuple):
    """The facts of a file of the host."""

    mode: int
    uid: int
    gid: int
    size: int
    major: int
    minor: int


class Item(NamedTuple):
    """One file of a side. ``handle``: what the side finds it by; ``attributed``: it may have extended attributes."""

    facts: Facts
    handle: int | bytes
    attributed: bool


@dataclass(frozen=True, slots=True)
class Change:
    """``what`` differs where it is modified: type mode owner content target device xattrs."""

    kind: Literal["added", "deleted", "modified"]
    path: bytes
    mode: int
    what: tuple[str, ...] = ()


class Side(Protocol):
    def items(self, problems: list[Exception]) -> dict[bytes, Item]: ...

    def open(self, item: Item) -> IO[bytes]: ...

    def target(self, item: Item) -> bytes: ...

    def xattrs(self, item: Item) -> dict[bytes, bytes] | None: ...


class ImageSide:
    """The directory ``path`` of an image."""

    def __init__(self, view: View, path: bytes = b"/") -> None:
        self.view = view
        self.top = view.lookup(path)

    def items(self, problems: list[Exception]) -> dict[bytes, Item]:
        found: dict[bytes, Item] = {}
        for path, (_, ino, _, facts, attributed) in self.view.walk(b"", self.top, problems):
            if isinstance(facts, Ext3Error):
                problems.append(facts)
            else:
                found[path[1:]] = Item(facts, ino, attributed)
        return found

    def open(self, item: Item) -> IO[bytes]:
        assert isinstance(item.handle, int)
        return self.view.filesystem.open_file(item.handle)  # type: ignore[return-value]

    def target(self, item: Item) -> bytes:
        assert isinstance(item.handle, int)
        return self.view.filesystem.readlink(item.handle)

    def xattrs(self, item: Item) -> dict[bytes, bytes] | None:
        assert isinstance(item.handle, int)
        return self.view.filesystem.xattrs(item.handle) if item.attributed else {}


class HostSide:
    """A directory of the host. Without ``marks`` files do not have the attributes overlay filesystems keep for themselves."""

    def __init__(self, path: bytes, *, marks: bool = True) -> None:
        self.top = path
        self.marks = marks

    def items(self, problems: list[Exception]) -> dict[bytes, Item]:
        found: dict[bytes, Item] = {}
        pending = [b""]
        while pending:
            base = pending.pop()
            try:
                with os.scandir(os.path.join(self.top, base)) as entries:
                    for entry in entries:
                        facts = _host_facts(entry.stat(follow_symlinks=False))
                        path = base + entry.name
                        found[path] = Item(facts, entry.path, attributed=True)
                        if stat.S_ISDIR(facts.mode):
                            pending.append(path + b"/")
            except OSError as error:
                problems.append(error)
        return found

    def open(self, item: Item) -> IO[bytes]:
        assert isinstance(item.handle, bytes)
        return open(os.open(item.handle, hostio.READ_REGULAR), "rb", buffering=0)

    def target(self, item: Item) -> bytes:
        assert isinstance(item.handle, bytes)
        return os.readlink(item.handle)

    def xattrs(self, item: Item) -> dict[bytes, bytes] | None:
        if not hasattr(os, "listxattr"):
            return None
        try:
            names = os.listxattr(item.handle, follow_symlinks=False)
            found = {os.fsencode(name): os.getxattr(item.handle, name, follow_symlinks=False) for name in names}
        except OSError:
            return None
        return found if self.marks else without_overlay_xattrs(found)


def _host_facts(found: os.stat_result) -> HostFacts:
    special = stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)
    device = (os.major(found.st_rdev), os.minor(found.st_rdev)) if special else (0, 0)
    return HostFacts(found.st_mode, found.st_uid, found.st_gid, found.st_size, *device)


def compare(old: Side, new: Side, problems: list[Exception], *, owners: bool = True) -> Iterator[Change]:
    """The changes that lead from ``old`` to ``new``, in byte order of the paths; what cannot be read is in ``problems``.

    Without ``owners`` they are not compared.
    """
    before, after = old.items(problems), new.items(problems)
    for items, others in ((before, after), (after, before)):
        if LOST_FOUND in items and LOST_FOUND not in others and not any(p.startswith(LOST_FOUND + b"/") for p in items):
            del items[LOST_FOUND]  # every filesystem has one
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one is None:
            assert other is not None
            yield Change("added", path, other.facts.mode)
        elif other is None:
            yield Change("deleted", path, one.facts.mode)
        else:
            try:
                what = _differences(old, one, new, other, owners=owners)
            except (Ext3Error, OSError) as error:
                problems.append(error)
                continue
            if what:
                yield Change("modified", path, other.facts.mode, tuple(what))


def _differences(old: Side, one: Item, new: Side, other: Item, *, owners: bool) -> list[str]:
    """What differs, in the order in which it is told."""
    first, second = one.facts, other.facts
    form = stat.S_IFMT(first.mode)
    if form != stat.S_IFMT(second.mode):
        return ["type"]
    found = []
    if first.mode != second.mode and form != stat.S_IFLNK and not (_is_whiteout(first) and _is_whiteout(second)):
        found.append("mode")
    if owners and (first.uid != second.uid or first.gid != second.gid):
        found.append("owner")
    if first.major != second.major or first.minor != second.minor:
        found.append("device")
    if form == stat.S_IFLNK and old.target(one) != new.target(other):
        found.append("target")
    if form == stat.S_IFREG and (first.size != second.size or not _same_content(old, one, new, other)):
        found.append("content")
    if (one.attributed or other.attributed) and not _same_xattrs(old.xattrs(one), new.xattrs(other)):
        found.append("xattrs")
    return found


def _is_whiteout(facts: Facts) -> bool:
    """Whose mode means nothing."""
    return stat.S_ISCHR(facts.mode) and facts.major == facts.minor == 0


def _same_xattrs(first: dict[bytes, bytes] | None, second: dict[bytes, bytes] | None) -> bool:
    """True also where one of them cannot be known."""
    return first is None or second is None or first == second


def _same_content(old: Side, one: Item, new: Side, other: Item) -> bool:
    """Of two files of the same length."""
    if not one.facts.size:
        return True
    with old.open(one) as first, new.open(other) as second:
        while piece := first.read(COMPARED_BYTES):
            rest = second.read(len(piece))
            while len(rest) < len(piece) and (more := second.read(len(piece) - len(rest))):
                rest += more
            if piece != rest:
                return False
        return not second.read(1)
