"""``sifkit ls``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import show
from .console import Console, Fields, named
from .embedding import Partition
from .frame import verb
from .places import places
from .render import described, mode_text, short_size, shown_name, stamp, utc

if TYPE_CHECKING:
    from ext3.filesystem import Filesystem, Stat

__all__ = ["command"]

TYPES = ("unknown", "file", "directory", "character", "block", "fifo", "socket", "symlink")
"""JSON's word for each file type of a directory entry."""

Row = tuple[bytes, "Stat | None", bytes | None]
"""Name to show, facts where they are asked for, target of a symbolic link."""


class _Lister:
    def __init__(self, console: Console, filesystem: Filesystem, image: str, *, long: bool, human: bool, end: bytes) -> None:
        self.console = console
        self.filesystem = filesystem
        self.image = image
        self.long = long
        self.human = human
        self.end = end
        self.entries: list[Fields] = []
        self.errors = 0
        self.count = 0

    def rows(self, path: bytes, ino: int) -> list[Row]:
        found = sorted(self.filesystem.scandir(ino))
        if not self.long and not self.console.json:
            return [(entry.name, None, None) for entry in found]
        return [(entry.name, *self.facts(entry.ino)) for entry in found]

    def facts(self, ino: int) -> tuple[Stat, bytes | None]:
        found = self.filesystem.stat(ino)
        return found, self.filesystem.readlink(ino) if found.is_symlink else None

    def show(self, rows: list[Row]) -> None:
        """Lines of text, columns aligned where they are long ones."""
        self.count += len(rows)
        if not self.long:
            for name, _, _ in rows:
                self.console.write(shown_name(name, self.console) + self.end)
            return
        table = [self._columns(found) for _, found, _ in rows if found is not None]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for cells, (name, _, target) in zip(table, rows, strict=True):
            mode, links, uid, gid, size, when = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            line = f"{mode} {links} {uid} {gid} {size} {when} ".encode() + shown_name(name, self.console)
            if target is not None:
                line += b" -> " + shown_name(target, self.console)
            self.console.write(line + self.end)

    def _columns(self, found: Stat) -> tuple[str, ...]:
        if TYPES[found.file_type] in ("character", "block"):
            size = f"{found.major}, {found.minor}"
        else:
            size = short_size(found.size) if self.human else str(found.size)
        return mode_text(found.mode), str(found.links), str(found.uid), str(found.gid), size, stamp(found.mtime)


def _fields(path: bytes, row: Row) -> Fields:
    name, found, target = row
    assert found is not None
    fields: Fields = {
        **named("path", path),
        **named("name", name.rpartition(b"/")[2] or name),
        "type": TYPES[found.file_type],
        "ino": found.ino,
    }
    fields |= {"mode": f"{found.mode & 0o7777:04o}", "uid": found.uid, "gid": found.gid, "links": found.links}
    fields |= {"size_bytes": found.size, "allocated_bytes": found.blocks * 512}
    fields |= {"mtime": utc(found.mtime), "ctime": utc(found.ctime), "atime": utc(found.atime)}
    if TYPES[found.file_type] in ("character", "block"):
        fields |= {"major": found.major, "minor": found.minor}
    if target is not None:
        fields |= named("target", target)
    return fields


@verb(
    help_names=["--help"],
    examples=[
        "sifkit ls overlay.img",
        "sifkit ls -l overlay.img /upper/etc",
        "sifkit ls -lR overlay.img:/upper",
        "sifkit ls -R0 overlay.img /upper | xargs -0 -n1 echo",
        "sifkit ls --partition overlay image.sif /upper",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE [PATH]...", help="an ext3 image and paths in it (default: /); or IMAGE:/PATH")
    ],
    partition: Partition = None,
    long: Annotated[bool, typer.Option("-l", "--long", help="mode, links, owner and group numbers, size, time, name")] = False,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="directories below, too")] = False,
    human: Annotated[bool, typer.Option("-h", "--human-readable", help="with -l: sizes as 1.5G, in powers of 1024")] = False,
    every: Annotated[bool, typer.Option("-a", "--all", help="names that begin with a dot, too: as without it")] = False,
    zero: Annotated[bool, typer.Option("-0", "--zero", help="end each line with NUL, and escape nothing")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="one JSON object; with -R one for each entry, and a summary last")
    ] = False,
) -> int:
    """List files in an image. All entries are shown, those that begin with a dot too, in byte order.

    Paths start at the root of the image's own filesystem, which holds upper/ and work/. The image is only read.
    """
    wanted = places(arguments, default=["/"])

    from ..overlay.image import open_image

    errors = 0
    several = sum(len(paths) for _, paths in wanted) > 1
    for image, paths in wanted:
        console.image = image
        with open_image(image, partition) as filesystem:
            console.detail(described(image, filesystem))
            if filesystem.needs_recovery:
                console.warn(f"{show(image)}: the journal is not empty; what is shown may be older than the last use")
            lister = _Lister(console, filesystem, image, long=long, human=human, end=b"\0" if zero else b"\n")
            for path in paths:
                _list(lister, path, recursive=recursive, heading=several or recursive)
            errors += lister.errors
            if json and recursive:
                console.emit({"entries": lister.count, "errors": lister.errors}, image=image)
            elif json:
                console.emit({"entries": lister.entries}, image=image)
    return 1 if errors else 0


def _list(lister: _Lister, path: bytes, *, recursive: bool, heading: bool) -> None:
    from ext3.errors import Ext3Error

    filesystem, console = lister.filesystem, lister.console
    try:
        ino = filesystem.lookup(path)
        found = filesystem.stat(ino)
    except Ext3Error as error:
        if not heading:
            raise
        lister.errors += 1
        console.error(str(error))
        return
    if not found.is_dir:
        _give(lister, [(path, (path, *lister.facts(filesystem.lookup(path, follow=not lister.long))))], recursive=recursive)
        return
    seen = {ino}
    first = True
    for directory, inode in _directories(lister, path, ino, seen, recursive):
        try:
            rows = lister.rows(directory, inode)
        except Ext3Error as error:
            if not recursive:
                raise
            lister.errors += 1
            console.error(f"{show(directory)}: {error}")
            continue
        if heading and not console.json and not (lister.end == b"\0" and not lister.long):
            console.write((b"" if first else b"\n") + shown_name(directory, console) + b":" + lister.end)
        first = False
        base = directory.rstrip(b"/") + b"/"
        if lister.end == b"\0" and recursive and not lister.long:  # one path an item, for xargs -0
            rows = [(base + name, facts, target) for name, facts, target in rows]
        _give(lister, [(base + row[0], row) for row in rows], recursive=recursive)


def _give(lister: _Lister, rows: list[tuple[bytes, Row]], *, recursive: bool) -> None:
    if not lister.console.json:
        lister.show([row for _, row in rows])
        return
    lister.count += len(rows)
    for path, row in rows:
        if recursive:
            lister.console.emit_raw(_fields(path, row))
        else:
            lister.entries.append(_fields(path, row))


def _directories(lister: _Lister, path: bytes, ino: int, seen: set[int], recursive: bool) -> Iterator[tuple[bytes, int]]:
    """The directory, and with ``recursive`` all below it, parents first. One that is met twice (a loop) is told and skipped."""
    from ext3.constants import FileType
    from ext3.errors import Ext3Error

    pending = [(path, ino)]
    while pending:
        directory, inode = pending.pop()
        yield directory, inode
        if not recursive:
            return
        base = directory.rstrip(b"/") + b"/"
        try:
            below = sorted(entry for entry in lister.filesystem.scandir(inode) if entry.file_type is FileType.DIRECTORY)
        except Ext3Error:
            continue  # told where its rows are read
        for entry in reversed(below):
            if entry.ino in seen:
                lister.errors += 1
                lister.console.error(f"{show(base + entry.name)}: the image is damaged: this directory is in it twice")
            else:
                seen.add(entry.ino)
                pending.append((base + entry.name, entry.ino))
