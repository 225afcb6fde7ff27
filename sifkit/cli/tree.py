"""``sifkit tree``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted
from .support.console import Console
from .support.frame import verb
from .support.image_path import group_by_image, several_paths
from .support.options import ReadArguments, ReadFlags
from .support.reading import entry_fields, lookup, open_for_reading, print_problems
from .support.render import display_name, escape

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ..overlay.view import View

__all__ = ["command"]

MAX_LEVELS = 4096


class _TreePrinter:
    def __init__(self, console: Console, view: View, levels: int) -> None:
        self.console = console
        self.view = view
        self.levels = levels
        self.directories = self.files = 0
        self.problems: list[Exception] = []
        unicode = console.out_is_unicode
        self.branches = ("├── ", "└── ", "│   ", "    ") if unicode else ("|-- ", "`-- ", "|   ", "    ")

    def print_tree(self, path: bytes, top: int) -> None:
        """Print the entries below ``top``, parents first; a directory met twice is a problem and not entered."""
        from ext3.errors import CorruptError, Ext3Error

        from ..overlay.whiteouts import has_whiteout_prefix

        seen = {top}
        listings = self.view.lister(levels=self.levels)
        pending = [(path.rstrip(b"/") + b"/", "", listings.rows(top, self.problems)[::-1])]
        while pending:
            base, indent, rows = pending[-1]
            if not rows:
                pending.pop()
                continue
            name, ino, _, found, _ = rows.pop()
            try:
                if isinstance(found, Ext3Error):
                    raise found
                target = self.view.filesystem.readlink(ino) if found.is_symlink else None
            except Ext3Error as error:
                self.problems.append(error)
                continue
            is_dir = found.is_dir
            self.directories += is_dir
            self.files += not is_dir
            if self.console.json:
                self.console.emit_raw(entry_fields(base + name, found, target))
            else:
                plain = found.is_file and not has_whiteout_prefix(name)
                self._line(indent + self.branches[not rows], name, target, note="" if plain else self._note(name, found))
            if is_dir and len(pending) < self.levels:
                if ino in seen:
                    self.problems.append(CorruptError(f"directory inode {ino}", "entries that lead to it", "two or more", 1))
                    continue
                seen.add(ino)
                below = listings.rows(ino, self.problems)[::-1]
                pending.append((base + name + b"/", indent + self.branches[3 if not rows else 2], below))

    def _note(self, name: bytes, found: Stat) -> str:
        """Meaning of a file to overlay filesystems."""
        from ext3.errors import Ext3Error

        from ..overlay.whiteouts import is_opaque_directory, is_whiteout, whited_out_name

        if is_whiteout(found):
            return "  (whiteout)"
        if hidden := whited_out_name(name):
            return f"  (whiteout of {escape(hidden)})"
        try:
            return "  (opaque)" if found.is_dir and is_opaque_directory(self.view.filesystem, found.ino) else ""
        except Ext3Error as error:
            self.problems.append(error)
            return ""

    def _line(self, head: str, name: bytes, target: bytes | None, *, note: str = "") -> None:
        line = head.encode() + display_name(name, self.console)
        if target is not None:
            line += b" -> " + display_name(target, self.console)
        self.console.write(b"%b%b\n" % (line, note.encode()))


@verb(
    examples=[
        "sifkit tree overlay.img",
        "sifkit tree -L 2 overlay.img /upper",
        "sifkit tree --upper overlay.img /etc",
    ]
)
def command(
    console: Console,
    *,
    arguments: ReadArguments,
    level: Annotated[str | None, typer.Option("-L", "--level", metavar="N", help="descend at most N levels")] = None,
    flags: ReadFlags,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per entry, and a summary")] = False,
) -> int:
    """Show the files in an image as a tree.

    Whiteouts (removed files) and opaque directories (which hide their content in lower layers) are marked. With --upper
    whiteouts are not shown. The image is not modified.
    """
    from ext3.errors import PathError

    if level is not None and (not level.isascii() or not level.isdigit() or not 0 < int(level[:5]) <= MAX_LEVELS):
        raise UsageError(f"-L {level}: not a number of levels", hint="write -L 2")
    levels = MAX_LEVELS if level is None else int(level[:5])
    failed = 0
    groups = group_by_image(arguments, default=["/"])
    several = several_paths(groups)
    for image, paths in groups:
        with open_for_reading(console, image, flags.partition, upper=flags.upper) as view:
            printer = _TreePrinter(console, view, levels)
            for path in paths:
                try:
                    ino = lookup(view, path)
                except PathError as error:
                    if not several:
                        raise
                    printer.problems.append(error)
                    continue
                if not json:
                    console.write(display_name(path, console) + b"\n")
                if view.filesystem.stat(ino).is_dir:
                    printer.print_tree(path, ino)
                else:
                    printer.files += 1
            print_problems(console, printer.problems)
            failed += len(printer.problems)
            if json:
                counts = {"directories": printer.directories, "files": printer.files, "errors": len(printer.problems)}
                console.emit(counts, image=image)
            else:
                directories = counted(printer.directories, "directory", "directories")
                console.write(f"\n{directories}, {counted(printer.files, 'file')}\n".encode())
    return 1 if failed else 0
