"""``sifkit tree``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted
from .support.console import Console
from .support.embedding import Partition
from .support.frame import verb
from .support.image_path import places
from .support.reading import Upper, entry_fields, locate, looking, tell
from .support.render import escaped, shown_name

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ..overlay.view import View

__all__ = ["command"]

MOST_LEVELS = 4096


class _Drawer:
    def __init__(self, console: Console, view: View, levels: int) -> None:
        self.console = console
        self.view = view
        self.levels = levels
        self.directories = self.files = 0
        self.problems: list[Exception] = []
        unicode = console.out_is_unicode
        self.marks = ("├── ", "└── ", "│   ", "    ") if unicode else ("|-- ", "`-- ", "|   ", "    ")

    def draw(self, path: bytes, top: int) -> None:
        """The entries below ``top``, parents first; a directory that is met twice is told and not entered."""
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
                self._line(indent + self.marks[not rows], name, target, note="" if plain else self._note(name, found))
            if is_dir and len(pending) < self.levels:
                if ino in seen:
                    self.problems.append(CorruptError(f"directory inode {ino}", "entries that lead to it", "two or more", 1))
                    continue
                seen.add(ino)
                below = listings.rows(ino, self.problems)[::-1]
                pending.append((base + name + b"/", indent + self.marks[3 if not rows else 2], below))

    def _note(self, name: bytes, found: Stat) -> str:
        """What overlay filesystems mean by a file."""
        from ext3.errors import Ext3Error

        from ..overlay.whiteouts import is_opaque_directory, is_whiteout, whited_out_name

        if is_whiteout(found):
            return "  (whiteout)"
        if hidden := whited_out_name(name):
            return f"  (whiteout of {escaped(hidden)})"
        try:
            return "  (opaque)" if found.is_dir and is_opaque_directory(self.view.filesystem, found.ino) else ""
        except Ext3Error as error:
            self.problems.append(error)
            return ""

    def _line(self, head: str, name: bytes, target: bytes | None, *, note: str = "") -> None:
        line = head.encode() + shown_name(name, self.console)
        if target is not None:
            line += b" -> " + shown_name(target, self.console)
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
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE [PATH]...", help="an ext3 image and paths in it (default: /); or IMAGE:/PATH")
    ],
    level: Annotated[str | None, typer.Option("-L", "--level", metavar="N", help="go down N levels at most")] = None,
    partition: Partition = None,
    upper: Upper = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each entry, and a summary last")] = False,
) -> int:
    """Show the directories of an image as a tree. What overlayfs keeps in upper/ is named: whiteouts, for files that were
    removed, and opaque directories, which hide those below. With --upper whiteouts are not shown. The image is only read.
    """
    from ext3.errors import PathError

    if level is not None and (not level.isascii() or not level.isdigit() or not 0 < int(level[:5]) <= MOST_LEVELS):
        raise UsageError(f"-L {level}: not a number of levels", hint="write for example -L 2")
    levels = MOST_LEVELS if level is None else int(level[:5])
    failed = 0
    wanted = places(arguments, default=["/"])
    several = sum(len(paths) for _, paths in wanted) > 1
    for image, paths in wanted:
        with looking(console, image, partition, upper=upper) as view:
            drawer = _Drawer(console, view, levels)
            for path in paths:
                try:
                    ino = locate(view, path)
                except PathError as error:
                    if not several:
                        raise
                    drawer.problems.append(error)
                    continue
                if not json:
                    console.write(shown_name(path, console) + b"\n")
                if view.filesystem.stat(ino).is_dir:
                    drawer.draw(path, ino)
                else:
                    drawer.files += 1
            tell(console, drawer.problems)
            failed += len(drawer.problems)
            if json:
                counts = {"directories": drawer.directories, "files": drawer.files, "errors": len(drawer.problems)}
                console.emit(counts, image=image)
            else:
                directories = counted(drawer.directories, "directory", "directories")
                console.write(f"\n{directories}, {counted(drawer.files, 'file')}\n".encode())
    return 1 if failed else 0
