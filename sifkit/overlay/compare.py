"""What differs between two trees: images, or an image and a directory of the host.

Compared are type, mode, owner, content, targets of links, device numbers and extended attributes; not times, inode numbers
or where data lies.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal, Protocol

from ext3.bulk import read_facts
from ext3.errors import Ext3Error

from .view import View

__all__ = ["Change", "HostSide", "ImageSide", "Item", "Side", "compare"]

COMPARED_BYTES = 1 << 20
LOST_FOUND = b"lost+found"


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a side. ``device``: major and minor, zeros but for devices; ``handle``: what the side finds it by.
    ``attributed``: it may have extended attributes."""

    mode: int
    uid: int
    gid: int
    size: int
    device: tuple[int, int]
    handle: int | bytes
    attributed: bool = True

    @property
    def form(self) -> int:
        return stat.S_IFMT(self.mode)


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
        walked = [(path.lstrip(b"/"), entry.ino) for path, entry in self.view.walk(b"", self.top, problems)]
        facts, attributed = read_facts(self.view.filesystem, [ino for _, ino in walked])
        found: dict[bytes, Item] = {}
        for (path, ino), one, special in zip(walked, facts, attributed, strict=True):
            if isinstance(one, Ext3Error):
                problems.append(one)
            else:
                found[path] = Item(one.mode, one.uid, one.gid, one.size, (one.major, one.minor), ino, special)
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
    """A directory of the host."""

    def __init__(self, path: bytes) -> None:
        self.top = path

    def items(self, problems: list[Exception]) -> dict[bytes, Item]:
        found: dict[bytes, Item] = {}
        pending = [b""]
        while pending:
            base = pending.pop()
            try:
                with os.scandir(os.path.join(self.top, base)) as entries:
                    for entry in entries:
                        facts = entry.stat(follow_symlinks=False)
                        path = base + entry.name
                        special = stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode)
                        device = (os.major(facts.st_rdev), os.minor(facts.st_rdev)) if special else (0, 0)
                        found[path] = Item(facts.st_mode, facts.st_uid, facts.st_gid, facts.st_size, device, entry.path)
                        if stat.S_ISDIR(facts.st_mode):
                            pending.append(path + b"/")
            except OSError as error:
                problems.append(error)
        return found

    def open(self, item: Item) -> IO[bytes]:
        assert isinstance(item.handle, bytes)
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        return open(os.open(item.handle, flags), "rb", buffering=0)

    def target(self, item: Item) -> bytes:
        assert isinstance(item.handle, bytes)
        return os.readlink(item.handle)

    def xattrs(self, item: Item) -> dict[bytes, bytes] | None:
        if not hasattr(os, "listxattr"):
            return None
        try:
            names = os.listxattr(item.handle, follow_symlinks=False)
            return {os.fsencode(name): os.getxattr(item.handle, name, follow_symlinks=False) for name in names}
        except OSError:
            return None


def compare(old: Side, new: Side, problems: list[Exception], *, owners: bool = True) -> Iterator[Change]:
    """The changes that lead from ``old`` to ``new``, in byte order of the paths; what cannot be read is in ``problems``."""
    before, after = old.items(problems), new.items(problems)
    for items, others in ((before, after), (after, before)):
        if LOST_FOUND in items and LOST_FOUND not in others and not any(p.startswith(LOST_FOUND + b"/") for p in items):
            del items[LOST_FOUND]  # every filesystem has one
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one is None:
            assert other is not None
            yield Change("added", path, other.mode)
        elif other is None:
            yield Change("deleted", path, one.mode)
        else:
            try:
                what = tuple(_differences(old, one, new, other, owners))
            except (Ext3Error, OSError) as error:
                problems.append(error)
                continue
            if what:
                yield Change("modified", path, other.mode, what)


def _differences(old: Side, one: Item, new: Side, other: Item, owners: bool) -> Iterator[str]:
    if one.form != other.form:
        yield "type"
        return
    whiteouts = stat.S_ISCHR(one.mode) and one.device == other.device == (0, 0)  # whose mode means nothing
    if one.mode != other.mode and not stat.S_ISLNK(one.mode) and not whiteouts:
        yield "mode"
    if owners and (one.uid, one.gid) != (other.uid, other.gid):
        yield "owner"
    if one.device != other.device:
        yield "device"
    if stat.S_ISLNK(one.mode) and old.target(one) != new.target(other):
        yield "target"
    if stat.S_ISREG(one.mode) and (one.size != other.size or not _same_content(old, one, new, other)):
        yield "content"
    first, second = old.xattrs(one), new.xattrs(other)
    if first is not None and second is not None and first != second:
        yield "xattrs"


def _same_content(old: Side, one: Item, new: Side, other: Item) -> bool:
    """Of two files of the same length."""
    if not one.size:
        return True
    with old.open(one) as first, new.open(other) as second:
        while piece := first.read(COMPARED_BYTES):
            rest = second.read(len(piece))
            while len(rest) < len(piece) and (more := second.read(len(piece) - len(rest))):
                rest += more
            if piece != rest:
                return False
        return not second.read(1)
