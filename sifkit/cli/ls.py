"""``sifkit ls``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import show
from .support.console import Console, Fields
from .support.embedding import Partition
from .support.frame import verb
from .support.image_path import places
from .support.reading import Upper, entry_fields, locate, looking
from .support.render import mode_text, short_size, shown_name, stamp

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ..overlay.listing import Row as FoundRow
    from ..overlay.resolve import DirectoryEntry
    from ..overlay.view import View

__all__ = ["command"]

DIRECTORY = 2
MINUTE = 60_000_000_000
FORMAT, SYMLINK = 0o170000, 0o120000

Row = tuple[bytes, "Stat | None", bytes | None]
"""Name to show, facts where they are asked for, target of a symbolic link."""


class _Lister:
    def __init__(self, console: Console, view: View, *, long: bool, human: bool, end: bytes) -> None:
        self.console = console
        self.view = view
        self.long = long
        self.human = human
        self.end = end
        self.entries: list[Fields] = []
        self.errors = 0
        self.count = 0
        self.escape = console.out_is_terminal and end != b"\0"

    def problem(self, path: bytes, error: object) -> None:
        self.errors += 1
        self.console.error(f"{show(path)}: {error}")

    def facts(self, ino: int) -> tuple[Stat, bytes | None]:
        found = self.view.filesystem.stat(ino)
        return found, self.view.filesystem.readlink(ino) if found.is_symlink else None

    def rows(self, path: bytes, entries: list[FoundRow]) -> list[Row]:
        """What is shown of these entries with their facts; those of damaged inodes are told and left out."""
        from ext3.errors import Ext3Error

        rows: list[Row] = []
        for name, ino, _, found, _ in entries:
            target = None
            try:
                if isinstance(found, Ext3Error):
                    raise found
                if found.mode & FORMAT == SYMLINK:
                    target = self.view.filesystem.readlink(ino)
            except Ext3Error as error:
                self.problem(path.rstrip(b"/") + b"/" + name, error)
                continue
            rows.append((name, found, target))
        return rows

    def show(self, rows: list[Row], heading: bytes = b"") -> None:
        """Lines of text, columns aligned where they are long ones."""
        if not rows:
            self.console.write(heading)
            return
        self.count += len(rows)
        names, facts, targets = zip(*rows, strict=True)
        if self.escape:
            names = tuple(map(self.name, names))
        if not self.long:
            self.console.write(heading + self.end.join(names) + self.end)
            return
        if any(targets):
            names = tuple(
                name if to is None else name + b" -> " + self.name(to) for name, to in zip(names, targets, strict=True)
            )
        self.console.write(heading + self._lines(names, facts))

    def name(self, name: bytes) -> bytes:
        return shown_name(name, self.console) if self.escape else name

    def _lines(self, names: tuple[bytes, ...], facts: tuple[Stat, ...]) -> bytes:
        _, modes, uids, gids, sizes, links, _, _, mtimes, *_ = zip(*facts, strict=True)
        times = [_minute(time // MINUTE) for time in mtimes]
        widths = _digits(links), _digits(uids), _digits(gids), max(map(len, times))
        if self.human or any(map(_is_device, set(modes))):
            sizes = tuple(map(self._size, facts))
            size = f"%{max(map(len, sizes))}s"
        else:
            size = f"%{_digits(sizes)}d"
        layout = _layout(*widths, size) + self.end
        return b"".join(map(layout.__mod__, zip(map(_mode, modes), links, uids, gids, sizes, times, names, strict=True)))

    def _size(self, found: Stat) -> bytes:
        if _is_device(found.mode):
            return b"%d, %d" % (found.major, found.minor)
        return (short_size(found.size) if self.human else str(found.size)).encode()


def _digits(numbers: Iterable[int]) -> int:
    """As many as the longest has; none is negative."""
    return len(str(max(numbers)))


@lru_cache
def _layout(links: int, uid: int, gid: int, time: int, size: str) -> bytes:
    """Of a line but its end: mode, links, uid, gid, size, time, name."""
    return f"%s %{links}d %{uid}d %{gid}d {size} %{time}s %s".encode()


@cache
def _is_device(mode: int) -> bool:
    return mode & FORMAT in (0o020000, 0o060000)


@cache
def _mode(mode: int) -> bytes:
    return mode_text(mode).encode()  # of at most 65,536


@lru_cache(maxsize=65_536)
def _minute(number: int) -> bytes:
    return stamp(number * MINUTE).encode()


@verb(
    help_names=["--help"],
    examples=[
        "sifkit ls overlay.img",
        "sifkit ls -l overlay.img /upper/etc",
        "sifkit ls -lR overlay.img:/upper",
        "sifkit ls -R0 overlay.img /upper | xargs -0 -n1 echo",
        "sifkit ls --partition overlay image.sif /upper",
    ],
    taken="d",
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE [PATH]...", help="an ext3 image and paths in it (default: /); or IMAGE:/PATH")
    ],
    partition: Partition = None,
    upper: Upper = False,
    long: Annotated[bool, typer.Option("-l", "--long", help="mode, links, owner and group numbers, size, time, name")] = False,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="directories below, too")] = False,
    itself: Annotated[bool, typer.Option("-d", "--directory", help="directories themselves, not what is in them")] = False,
    human: Annotated[bool, typer.Option("-h", "--human-readable", help="with -l: sizes as 1.5G, in powers of 1024")] = False,
    every: Annotated[bool, typer.Option("-a", "--all", help="names that begin with a dot, too: as without it")] = False,
    single: Annotated[bool, typer.Option("-1", help="one name a line: as without it")] = False,
    zero: Annotated[bool, typer.Option("-0", "--zero", help="end each line with NUL, and escape nothing")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="one JSON object; with -R one for each entry, and a summary last")
    ] = False,
) -> int:
    """List files in an image. All entries are shown, those that begin with a dot too, in byte order.

    Paths start at the root of the image's own filesystem, which holds upper/ and work/. The image is only read.
    """
    wanted = places(arguments, default=["/"])

    errors = 0
    several = sum(len(paths) for _, paths in wanted) > 1
    for image, paths in wanted:
        with looking(console, image, partition, upper=upper) as view:
            lister = _Lister(console, view, long=long, human=human, end=b"\0" if zero else b"\n")
            for path in paths:
                _list(lister, path, recursive=recursive and not itself, itself=itself, heading=several or recursive)
            errors += lister.errors
            if json and recursive and not itself:
                console.emit({"entries": lister.count, "errors": lister.errors}, image=image)
            elif json:
                console.emit({"entries": lister.entries}, image=image)
    return 1 if errors else 0


def _list(lister: _Lister, path: bytes, *, recursive: bool, itself: bool, heading: bool) -> None:
    from ext3.errors import Ext3Error

    console = lister.console
    try:
        ino = _named(lister, path, itself=itself)
        if itself or not lister.view.filesystem.stat(ino).is_dir:
            row = (path, *lister.facts(ino))
            if console.json:
                _give(lister, [(path, row)], recursive=recursive)
            else:
                lister.show([row])
            return
    except Ext3Error as error:
        if not heading:
            raise
        lister.errors += 1
        console.error(str(error))
        return
    headed = heading and not console.json and not (lister.end == b"\0" and not lister.long)
    whole_paths = lister.end == b"\0" and recursive and not lister.long  # one path an item, for xargs -0
    between = b""
    for directory, rows in _directories(lister, path, ino, recursive):
        if console.json:
            base = directory.rstrip(b"/") + b"/"
            _give(lister, [(base + row[0], row) for row in rows], recursive=recursive)
        elif whole_paths:
            base = directory.rstrip(b"/") + b"/"
            lister.show([(base + name, facts, target) for name, facts, target in rows])
        else:
            lister.show(rows, between + lister.name(directory) + b":" + lister.end if headed else b"")
            between = b"\n"


def _named(lister: _Lister, path: bytes, *, itself: bool) -> int:
    """The inode to list for an argument. As ls has it: a link that leads to a directory is that directory, unless the lines are
    long or it is wanted ``itself``; any other link is listed itself."""
    from ext3.errors import PathError

    here = locate(lister.view, path, follow=False)
    if itself or lister.long or not lister.view.filesystem.stat(here).is_symlink:
        return here
    try:
        led_to = lister.view.lookup(path)
    except PathError:
        return here
    return led_to if lister.view.filesystem.stat(led_to).is_dir else here


def _give(lister: _Lister, rows: list[tuple[bytes, Row]], *, recursive: bool) -> None:
    """Each entry as JSON, under its path."""
    lister.count += len(rows)
    for path, (_, facts, target) in rows:
        assert facts is not None
        fields = entry_fields(path, facts, target)
        if recursive:
            lister.console.emit_raw(fields)
        else:
            lister.entries.append(fields)


def _directories(lister: _Lister, path: bytes, ino: int, recursive: bool) -> Iterator[tuple[bytes, list[Row]]]:
    """The directory with what is shown of it, and with ``recursive`` all below it, parents first. One that is met twice (a
    loop) is told and skipped."""
    from ext3.errors import Ext3Error

    view, with_facts = lister.view, lister.long or lister.console.json
    listings = view.lister() if recursive else view.lister(levels=1)
    seen = {ino}
    pending = [(path, ino)]
    while pending:
        directory, inode = pending.pop()
        try:
            if with_facts:
                found = listings.all_rows(inode)
                below, rows = _subdirectories(found), lister.rows(directory, found)
            else:
                entries = view.entries(inode)
                below, rows = _subdirectories(entries), [(entry.name, None, None) for entry in entries]
        except Ext3Error as error:
            if not recursive:
                raise
            lister.problem(directory, error)
            continue
        yield directory, rows
        if not recursive:
            return
        base = directory.rstrip(b"/") + b"/"
        for name, number in reversed(below):
            if number in seen:
                lister.problem(base + name, "the image is damaged: this directory is in it twice")
            else:
                seen.add(number)
                pending.append((base + name, number))


def _subdirectories(entries: Iterable[DirectoryEntry]) -> list[tuple[bytes, int]]:
    return [(entry.name, entry.ino) for entry in entries if entry.file_type == DIRECTORY]
