"""``sifkit du``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .support import values
from .support.console import Console, name_fields
from .support.frame import verb
from .support.options import ZERO_HELP, HumanReadable, ReadArguments, ReadFlags
from .support.reading import ReadBatch, lookup
from .support.render import bar, display_name, short_size

if TYPE_CHECKING:
    from ..vfs.usage import Usage

__all__ = ["command"]


@verb(
    help_names=["--help"],
    examples=[
        "sifkit du overlay.img /upper",
        "sifkit du -sh overlay.img /upper",
        "sifkit du -h -d 1 overlay.img /upper",
        "sifkit du --top 15 overlay.img",
        "sifkit du -sh image.sif",
    ],
)
def command(
    console: Console,
    *,
    arguments: ReadArguments,
    summary: Annotated[bool, typer.Option("-s", "--summarize", help="print only a total for each path")] = False,
    every: Annotated[bool, typer.Option("-a", "--all", help="print files too, not just directories")] = False,
    depth: Annotated[
        str | None, typer.Option("-d", "--max-depth", metavar="N", help="print directories at most N levels down; 0 is -s")
    ] = None,
    top: Annotated[str, typer.Option("--top", metavar="N", help="print only the N largest, with bytes, inodes and bars")] = "",
    human: HumanReadable = False,
    inodes: Annotated[bool, typer.Option("--inodes", help="print numbers of inodes instead of KiB")] = False,
    flags: ReadFlags,
    zero: Annotated[bool, typer.Option("-0", "--null", help=ZERO_HELP)] = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per line, and a summary")] = False,
) -> int:
    """Show the disk usage of directories in an image, in KiB, including everything below them. Hard links count once."""
    from ..vfs.usage import directory_usage

    levels = values.levels_below("-d", depth)
    if summary and depth is not None and levels:
        raise UsageError("-s is -d 0, and contradicts another depth", hint="give one of them")
    if summary and every:
        raise UsageError("-s and -a contradict each other", hint="give one of them")
    largest = values.count("--top", top) if top else 0
    batch = ReadBatch(console, arguments, flags, default=["/"])
    for image, paths, opened in batch.images():
        seen: set[tuple[int, int]] = set()
        candidates: list[Usage] = []
        total = count = entries = 0
        for path in paths:
            try:
                node = lookup(opened.tree, path, follow=False)
                rows = directory_usage(
                    opened.tree, path, node, all_files=every and not summary, on_problem=batch.problem, seen=seen
                )
            except OSError as error:
                batch.problem(path, error)
                continue
            if not rows:
                continue
            total, count = total + rows[-1][1], count + rows[-1][2]
            if largest:
                candidates += rows
                continue
            for where, size, number, is_directory in _shown(rows, 0 if summary else levels):
                entries += 1
                if json:
                    kind = {"directory": is_directory, "allocated_bytes": size, "inodes": number}
                    console.emit_raw({**name_fields("path", where), **kind})
                    continue
                text = str(number) if inodes else short_size(size) if human else str(-(-size // 1024))
                name = where if zero else display_name(where, console)
                console.write(text.encode() + b"\t" + name + (b"\0" if zero else b"\n"))
        if largest:
            entries = _print_largest(console, candidates, largest, inodes=inodes, end=b"\0" if zero else b"\n")
        if json:
            sums = {"entries": entries, "errors": batch.errors, "allocated_bytes": total, "inodes": count}
            console.emit(sums, image=image)
    return batch.exit_code


def _shown(rows: Sequence[Usage], levels: int) -> Iterable[Usage]:
    """Return the rows at most so many levels below the last one, which is the top."""
    depth = rows[-1].path.rstrip(b"/").count(b"/") + levels
    return [row for row in rows if row.path.rstrip(b"/").count(b"/") <= depth]


def _print_largest(console: Console, rows: Sequence[Usage], most: int, *, inodes: bool, end: bytes) -> int:
    """Print the largest rows, by bytes or ``inodes``, and return their number."""
    weight = attrgetter("inodes" if inodes else "allocated_bytes")
    chosen = sorted(rows, key=lambda row: (-weight(row), row.path))[:most]
    if console.json:
        for row in chosen:
            kind = {"directory": row.is_directory, "allocated_bytes": row.allocated_bytes, "inodes": row.inodes}
            console.emit_raw({**name_fields("path", row.path), **kind})
        return len(chosen)
    if not chosen:
        return 0
    whole = max(1, *map(weight, chosen))
    sizes = [short_size(row.allocated_bytes) for row in chosen]
    counts = [f"{row.inodes:,}" for row in chosen]
    widths = max(map(len, sizes)), max(map(len, counts))
    for row, size, count in zip(chosen, sizes, counts, strict=True):
        noun = "inode " if row.inodes == 1 else "inodes"
        share = f"{bar(weight(row), whole, console)}  " if console.out_is_terminal else ""
        head = f"{size:>{widths[0]}}  {count:>{widths[1]}} {noun}  {share}"
        console.write(head.encode() + display_name(row.path, console) + end)
    return len(chosen)
