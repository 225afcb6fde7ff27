"""``sifkit ls``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .support import values
from .support.console import Console, Fields
from .support.frame import VerbCommand, verb
from .support.options import HumanReadable, ReadArguments, ReadFlags, ZeroTerminated
from .support.reading import ReadBatch, entry_fields, lookup
from .support.render import display_name, local_time, mode_text, short_size

if TYPE_CHECKING:
    from ..vfs.file_tree import FileTree, Row, Stat

__all__ = ["command"]

MINUTE = 60_000_000_000
FORMAT, SYMLINK = 0o170000, 0o120000

Line = tuple[bytes, "Stat | None", bytes | None]
"""Name to show, stat if needed, target of a symbolic link."""


COLORS = {
    0o040000: b"01;34",
    0o120000: b"01;36",
    0o010000: b"33",
    0o140000: b"01;35",
    0o060000: b"01;33",
    0o020000: b"01;33",
}
"""Colours of file types, as ls has them without LS_COLORS."""


@dataclass(frozen=True, slots=True)
class _Style:
    """Style of the lines. ``order``: the Stat's field to sort by, largest first; "": by name."""

    long: bool
    human: bool
    end: bytes
    order: str
    reverse: bool
    color: str


_long_fields = attrgetter("mode", "uid", "gid", "size", "links", "mtime")


class _Lister:
    def __init__(self, batch: ReadBatch, tree: FileTree[Any], style: _Style) -> None:
        long, human, end = style.long, style.human, style.end
        self.batch = batch
        self.console = console = batch.console
        self.tree = tree
        self.long = long
        self.human = human
        self.end = end
        self.entries: list[Fields] = []
        self.count = 0
        self.escape = console.out_is_terminal and end != b"\0"
        self.order = style.order
        self.reverse = style.reverse
        self.colored = style.color == "always" or (style.color == "auto" and console.out_is_terminal and console.color)
        self.stats = long or console.json or bool(style.order) or self.colored

    def line(self, path: bytes, node: Any) -> Line:
        """Return the line for a file itself."""
        found = self.tree.stat(node)
        return path, found, self.tree.readlink(node) if found.mode & FORMAT == SYMLINK else None

    def lines(self, path: bytes, rows: Sequence[Row[Any]]) -> list[Line]:
        """Return the lines for the entries of a directory; damaged inodes are reported and skipped."""
        rows = self.ordered(rows)
        if not self.stats:
            return [(row.name, None, None) for row in rows]
        lines: list[Line] = []
        for row in rows:
            found, target = row.stat, None
            try:
                if isinstance(found, OSError):
                    raise found
                if found is not None and found.mode & FORMAT == SYMLINK:
                    target = self.tree.readlink(row.node)
            except OSError as error:
                self.batch.problem(path.rstrip(b"/") + b"/" + row.name, error)
                continue
            lines.append((row.name, found, target))
        return lines

    def ordered(self, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """Return the rows in the order of the options; names of the same time or size stay in byte order."""
        if self.order:
            rows = sorted(rows, key=lambda row: -getattr(row.stat, self.order, 0))
        return rows[::-1] if self.reverse else rows

    def print_lines(self, lines: list[Line], heading: bytes = b"") -> None:
        """Print lines; with -l in aligned columns."""
        if not lines:
            self.console.write(heading)
            return
        self.count += len(lines)
        names, stats, targets = zip(*lines, strict=True)
        if self.escape:
            names = tuple(map(self.name, names))
        if self.colored:
            names = tuple(map(_colored, names, stats))
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
        modes, uids, gids, sizes, links, mtimes = zip(*map(_long_fields, stats), strict=True)
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


def _colored(name: bytes, found: Stat | None) -> bytes:
    """Return a name in the colour of its type, with the defaults of ls."""
    if found is None:
        return name
    code = COLORS.get(found.mode & FORMAT, b"")
    if found.mode & FORMAT == 0o100000 and found.mode & 0o111:
        code = b"01;32"
    return b"\x1b[%bm%b\x1b[0m" % (code, name) if code else name


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


class _LsCommand(VerbCommand):
    """Command whose ``--color`` needs no value, as that of ls(1); a value follows an equals sign."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        words = ["--color=always" if word == "--color" else word for word in args[:end]]
        return super().parse_args(ctx, [*words, *args[end:]])


@verb(
    help_names=["--help"],
    kind=_LsCommand,
    examples=[
        "sifkit ls overlay.img",
        "sifkit ls -l overlay.img /upper/etc",
        "sifkit ls -lR overlay.img:/upper",
        "sifkit ls -dt 'overlay.img:/upper/*'",
        "sifkit ls -R0 overlay.img /upper | xargs -0 -n1 echo",
        "sifkit ls image.sif /opt",
        "sifkit ls root.sif --overlay overlay.img /etc",
        "sifkit ls --partition overlay image.sif /upper",
    ],
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
    by_time: Annotated[bool, typer.Option("-t", help="sort by modification time, newest first")] = False,
    by_size: Annotated[bool, typer.Option("-S", help="sort by size, largest first")] = False,
    reverse: Annotated[bool, typer.Option("-r", "--reverse", help="reverse the order")] = False,
    color: Annotated[
        str, typer.Option("--color", metavar="[=WHEN]", help="colour names by file type: always, auto or never")
    ] = "never",
    every: Annotated[
        bool, typer.Option("-a", "-A", "--all", help="list entries that begin with a dot too (the default)")
    ] = False,
    single: Annotated[bool, typer.Option("-1", help="print one entry per line (the default)")] = False,
    zero: ZeroTerminated = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object; with -R one per entry, and a summary")] = False,
) -> int:
    """List files in an image, in byte order, including those that begin with a dot.

    Paths are relative to the root of the image: of a SIF image what a container sees, of an overlay its filesystem, which has
    upper/ and work/. The image is not modified.
    """
    values.choice("--color", color, ("auto", "always", "never"))
    order = "mtime" if by_time else "size" if by_size else ""
    style = _Style(long, human, b"\0" if zero else b"\n", order, reverse, color)
    batch = ReadBatch(console, arguments, flags, default=["/"])
    for image, paths, opened in batch.images():
        lister = _Lister(batch, opened.tree, style)
        for path in paths:
            with batch.attempt(path):
                _list(lister, path, recursive=recursive and not itself, itself=itself, heading=batch.several or recursive)
        if json and recursive and not itself:
            console.emit({"entries": lister.count, "errors": batch.errors}, image=image)
        elif json:
            console.emit({"entries": lister.entries}, image=image)
    return batch.exit_code


def _list(lister: _Lister, path: bytes, *, recursive: bool, itself: bool, heading: bool) -> None:
    from ..vfs.resolve import is_dir

    console = lister.console
    node = _node_to_list(lister, path, itself=itself)
    alone = itself or not is_dir(lister.tree.stat(node))
    line = lister.line(path, node) if alone else None
    directories = iter(()) if alone else _directories(lister, path, node, recursive=recursive, several=heading)
    if line is not None:
        if console.json:
            _emit(lister, [(path, line)], recursive=recursive)
        else:
            lister.print_lines([line])
        return
    headed = heading and not console.json and not (lister.end == b"\0" and not lister.long)
    whole_paths = lister.end == b"\0" and recursive and not lister.long  # one path an item, for xargs -0
    between = b""
    for directory, lines in directories:
        if console.json:
            base = directory.rstrip(b"/") + b"/"
            _emit(lister, [(base + line[0], line) for line in lines], recursive=recursive)
        elif whole_paths:
            base = directory.rstrip(b"/") + b"/"
            lister.print_lines([(base + name, found, target) for name, found, target in lines])
        else:
            lister.print_lines(lines, between + lister.name(directory) + b":" + lister.end if headed else b"")
            between = b"\n"


def _node_to_list(lister: _Lister, path: bytes, *, itself: bool) -> Any:
    """Look up the file to list for an argument. As ls: without -l and -d links to directories are followed, no others."""
    from ..vfs.errors import TreePathError
    from ..vfs.resolve import Resolver, is_dir, is_symlink

    here = lookup(lister.tree, path, follow=False)
    if itself or lister.long or not is_symlink(lister.tree.stat(here)):
        return here
    try:
        target = Resolver(lister.tree).lookup(path)
    except TreePathError:
        return here
    return target if is_dir(lister.tree.stat(target)) else here


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


def _directories(
    lister: _Lister, path: bytes, node: Any, *, recursive: bool, several: bool
) -> Iterator[tuple[bytes, list[Line]]]:
    """Yield a directory and its lines, with ``recursive`` all directories below it too, parents first."""
    from ..vfs.walk import walk_directories

    if recursive:
        order = lister.ordered if lister.order or lister.reverse else None
        for walked in walk_directories(
            lister.tree, node, path, stats=lister.stats, on_problem=lister.batch.problem, order=order
        ):
            yield walked.path, lister.lines(walked.path, walked.listing.rows)
        return
    for listing in lister.tree.scan_many([node], stats=lister.stats):
        if listing.problem is not None:
            if not several:
                raise listing.problem
            lister.batch.problem(path, listing.problem)
        yield path, lister.lines(path, listing.rows)
