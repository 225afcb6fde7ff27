"""``sifkit tree``."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError, counted
from .support.console import Console
from .support.frame import verb
from .support.options import ReadArguments, ReadFlags
from .support.reading import ReadBatch, entry_fields, lookup
from .support.render import display_name, escape

if TYPE_CHECKING:
    from ..vfs.file_tree import FileTree, Stat
    from ..vfs.walk import WalkedFile

__all__ = ["command"]

MAX_LEVELS = 4096


class _TreePrinter:
    def __init__(self, batch: ReadBatch, tree: FileTree[Any], levels: int) -> None:
        self.batch = batch
        self.console = console = batch.console
        self.tree = tree
        self.levels = levels
        self.directories = self.files = 0
        unicode = console.out_is_unicode
        self.branches = ("├── ", "└── ", "│   ", "    ") if unicode else ("|-- ", "`-- ", "|   ", "    ")

    def print_tree(self, path: bytes, top: Any) -> None:
        """Print the entries below ``top``, parents first."""
        from ..vfs.file_tree import stat_of
        from ..vfs.walk import walk

        indents = [""]
        for walked in walk(self.tree, top, path, levels=self.levels, on_problem=self.batch.problem):
            del indents[walked.depth + 1 :]
            indents.append(indents[-1] + self.branches[3 if walked.is_last else 2])
            try:
                found = stat_of(walked.row)
                target = self.tree.readlink(walked.row.node) if stat.S_ISLNK(found.mode) else None
            except OSError as error:
                self.batch.problem(walked.path, error)
                continue
            self._print_file(walked, found, target, indents[walked.depth])

    def _print_file(self, walked: WalkedFile[Any], found: Stat, target: bytes | None, indent: str) -> None:
        row = walked.row
        is_dir = stat.S_ISDIR(found.mode)
        self.directories += is_dir
        self.files += not is_dir
        if self.console.json:
            self.console.emit_raw(entry_fields(walked.path, found, target))
        else:
            plain = stat.S_ISREG(found.mode) and not row.name.startswith(b".wh.")
            note = "" if plain else self._note(walked, found)
            self._line(indent + self.branches[walked.is_last], row.name, target, note=note)

    def _note(self, walked: WalkedFile[Any], found: Stat) -> str:
        """Meaning of a file to overlay filesystems."""
        from ..vfs.upper_view import is_opaque_directory
        from ..vfs.whiteouts import is_whiteout, whited_out_name

        if is_whiteout(found):
            return "  (whiteout)"
        if hidden := whited_out_name(walked.row.name):
            return f"  (whiteout of {escape(hidden)})"
        try:
            return "  (opaque)" if stat.S_ISDIR(found.mode) and is_opaque_directory(self.tree, walked.row.node) else ""
        except OSError as error:
            self.batch.problem(walked.path, error)
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
        "sifkit tree image.sif /etc",
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
    from ..vfs.resolve import is_dir

    if level is not None and (not level.isascii() or not level.isdigit() or not 0 < int(level[:5]) <= MAX_LEVELS):
        raise UsageError(f"-L {level}: not a number of levels", hint="write -L 2")
    levels = MAX_LEVELS if level is None else int(level[:5])
    batch = ReadBatch(console, arguments, flags, default=["/"])
    for image, paths, opened in batch.images():
        printer = _TreePrinter(batch, opened.tree, levels)
        for path in paths:
            with batch.attempt(path):
                node = lookup(opened.tree, path)
                is_directory = is_dir(opened.tree.stat(node))
                if not json:
                    console.write(display_name(path, console) + b"\n")
                if is_directory:
                    printer.print_tree(path, node)
                else:
                    printer.files += 1
        if json:
            console.emit(
                {"directories": printer.directories, "files": printer.files, "errors": batch.errors},
                image=image,
            )
        else:
            directories = counted(printer.directories, "directory", "directories")
            console.write(f"\n{directories}, {counted(printer.files, 'file')}\n".encode())
    return batch.exit_code
