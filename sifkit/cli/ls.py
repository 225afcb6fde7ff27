"""``sifkit ls``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import show
from .support.console import Console, Fields
from .support.frame import verb
from .support.image_path import group_by_image, several_paths
from .support.options import HumanReadable, ReadArguments, ReadFlags, ZeroTerminated
from .support.reading import entry_fields, lookup, open_for_reading
from .support.render import display_name, local_time, mode_text, short_size

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ..overlay.listing import Row
    from ..overlay.resolve import DirectoryEntry
    from ..overlay.view import View

__all__ = ["command"]

DIRECTORY = 2
MINUTE = 60_000_000_000
FORMAT, SYMLINK = 0o170000, 0o120000

Line = tuple[bytes, "Stat | None", bytes | None]
"""Name to show, stat if needed, target of a symbolic link."""


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

    def stat(self, ino: int) -> tuple[Stat, bytes | None]:
        found = self.view.filesystem.stat(ino)
        return found, self.view.filesystem.readlink(ino) if found.is_symlink else None

    def lines(self, path: bytes, entries: list[Row]) -> list[Line]:
        """Return the lines for entries with their stats; damaged inodes are reported and skipped."""
        from ext3.errors import Ext3Error

        lines: list[Line] = []
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
            lines.append((name, found, target))
        return lines

    def print_lines(self, lines: list[Line], heading: bytes = b"") -> None:
        """Print lines; with -l in aligned columns."""
        if not lines:
            self.console.write(heading)
            return
        self.count += len(lines)
        names, stats, targets = zip(*lines, strict=True)
        if self.escape:
            names = tuple(map(self.name, names))
        if not self.long:
            self.console.write(heading + self.end.join(names) + self.end)
            return
        if any(targets):
            names = tuple(
                name if to is None else name + b" -> " + self.name(to) for name, to in zip(names, targets, strict=True)
            )
        self.console.write(heading + self._columns(names, stats))

    def name(self, name: bytes) -> bytes:
        return display_name(name, self.console) if self.escape else name

    def _columns(self, names: tuple[bytes, ...], stats: tuple[Stat, ...]) -> bytes:
        _, modes, uids, gids, sizes, links, _, _, mtimes, *_ = zip(*stats, strict=True)
        times = [_minute(time // MINUTE) for time in mtimes]
        widths = _digits(links), _digits(uids), _digits(gids), max(map(len, times))
        if self.human or any(map(_is_device, set(modes))):
            sizes = tuple(map(self._size, stats))
            size = f"%{max(map(len, sizes))}s"
        else:
            size = f"%{_digits(sizes)}d"
        template = _template(*widths, size) + self.end
        return b"".join(map(template.__mod__, zip(map(_mode, modes), links, uids, gids, sizes, times, names, strict=True)))

    def _size(self, found: Stat) -> bytes:
        if _is_device(found.mode):
            return b"%d, %d" % (found.major, found.minor)
        return (short_size(found.size) if self.human else str(found.size)).encode()


def _digits(numbers: Iterable[int]) -> int:
    """Number of digits of the largest; none is negative."""
    return len(str(max(numbers)))


@lru_cache
def _template(links: int, uid: int, gid: int, time: int, size: str) -> bytes:
    """Format of a line without its end: mode, links, uid, gid, size, time, name."""
    return f"%s %{links}d %{uid}d %{gid}d {size} %{time}s %s".encode()


@cache
def _is_device(mode: int) -> bool:
    return mode & FORMAT in (0o020000, 0o060000)


@cache
def _mode(mode: int) -> bytes:
    return mode_text(mode).encode()  # 65,536 at most


@lru_cache(maxsize=65_536)
def _minute(number: int) -> bytes:
    return local_time(number * MINUTE).encode()


@verb(
    help_names=["--help"],
    examples=[
        "sifkit ls overlay.img",
        "sifkit ls -l overlay.img /upper/etc",
        "sifkit ls -lR overlay.img:/upper",
        "sifkit ls -R0 overlay.img /upper | xargs -0 -n1 echo",
        "sifkit ls --partition overlay image.sif /upper",
    ],
    own_letters="d",
)
def command(
    console: Console,
    *,
    arguments: ReadArguments,
    flags: ReadFlags,
    long: Annotated[bool, typer.Option("-l", "--long", help="print mode, links, UID, GID, size, time and name")] = False,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="list subdirectories recursively")] = False,
    itself: Annotated[bool, typer.Option("-d", "--directory", help="list directories themselves, not their content")] = False,
    human: HumanReadable = False,
    every: Annotated[bool, typer.Option("-a", "--all", help="list entries that begin with a dot too (the default)")] = False,
    single: Annotated[bool, typer.Option("-1", help="print one entry per line (the default)")] = False,
    zero: ZeroTerminated = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object; with -R one per entry, and a summary")] = False,
) -> int:
    """List files in an image, in byte order, including those that begin with a dot.

    Paths are relative to the root of the image's filesystem, which has upper/ and work/. The image is not modified.
    """
    groups = group_by_image(arguments, default=["/"])

    errors = 0
    several = several_paths(groups)
    for image, paths in groups:
        with open_for_reading(console, image, flags.partition, upper=flags.upper) as view:
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
        ino = _inode_to_list(lister, path, itself=itself)
        if itself or not lister.view.filesystem.stat(ino).is_dir:
            line = (path, *lister.stat(ino))
            if console.json:
                _emit(lister, [(path, line)], recursive=recursive)
            else:
                lister.print_lines([line])
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
    for directory, lines in _directories(lister, path, ino, recursive):
        if console.json:
            base = directory.rstrip(b"/") + b"/"
            _emit(lister, [(base + line[0], line) for line in lines], recursive=recursive)
        elif whole_paths:
            base = directory.rstrip(b"/") + b"/"
            lister.print_lines([(base + name, found, target) for name, found, target in lines])
        else:
            lister.print_lines(lines, between + lister.name(directory) + b":" + lister.end if headed else b"")
            between = b"\n"


def _inode_to_list(lister: _Lister, path: bytes, *, itself: bool) -> int:
    """Look up the inode to list for an argument. As ls: without -l and -d links to directories are followed, no others."""
    from ext3.errors import PathError

    here = lookup(lister.view, path, follow=False)
    if itself or lister.long or not lister.view.filesystem.stat(here).is_symlink:
        return here
    try:
        target = lister.view.lookup(path)
    except PathError:
        return here
    return target if lister.view.filesystem.stat(target).is_dir else here


def _emit(lister: _Lister, lines: list[tuple[bytes, Line]], *, recursive: bool) -> None:
    """Emit each entry as JSON, under its path."""
    lister.count += len(lines)
    for path, (_, found, target) in lines:
        assert found is not None
        fields = entry_fields(path, found, target)
        if recursive:
            lister.console.emit_raw(fields)
        else:
            lister.entries.append(fields)


def _directories(lister: _Lister, path: bytes, ino: int, recursive: bool) -> Iterator[tuple[bytes, list[Line]]]:
    """Yield a directory and its lines, with ``recursive`` all directories below it too, parents first.

    A directory met twice (a loop) is reported and skipped.
    """
    from ext3.errors import Ext3Error

    view, with_stats = lister.view, lister.long or lister.console.json
    listings = view.lister() if recursive else view.lister(levels=1)
    seen = {ino}
    pending = [(path, ino)]
    while pending:
        directory, inode = pending.pop()
        try:
            if with_stats:
                found = listings.all_rows(inode)
                below, lines = _subdirectories(found), lister.lines(directory, found)
            else:
                entries = view.entries(inode)
                below, lines = _subdirectories(entries), [(entry.name, None, None) for entry in entries]
        except Ext3Error as error:
            if not recursive:
                raise
            lister.problem(directory, error)
            continue
        yield directory, lines
        if not recursive:
            return
        base = directory.rstrip(b"/") + b"/"
        for name, number in reversed(below):
            if number in seen:
                lister.problem(base + name, "the image is damaged: directory has more than one name")
            else:
                seen.add(number)
                pending.append((base + name, number))


def _subdirectories(entries: Iterable[DirectoryEntry]) -> list[tuple[bytes, int]]:
    return [(entry.name, entry.ino) for entry in entries if entry.file_type == DIRECTORY]
