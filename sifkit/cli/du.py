"""``sifkit du``."""

from __future__ import annotations

from typing import Annotated

import typer

from .support.console import Console, name_fields
from .support.frame import verb
from .support.options import ZERO_HELP, HumanReadable, ReadArguments, ReadFlags
from .support.reading import ReadBatch, lookup
from .support.render import display_name, short_size

__all__ = ["command"]


@verb(
    help_names=["--help"],
    examples=[
        "sifkit du overlay.img /upper",
        "sifkit du -sh overlay.img /upper",
        "sifkit du --inodes overlay.img /upper | sort -n | tail",
    ],
)
def command(
    console: Console,
    *,
    arguments: ReadArguments,
    summary: Annotated[bool, typer.Option("-s", "--summarize", help="print only a total for each path")] = False,
    every: Annotated[bool, typer.Option("-a", "--all", help="print files too, not just directories")] = False,
    human: HumanReadable = False,
    inodes: Annotated[bool, typer.Option("--inodes", help="print numbers of inodes instead of KiB")] = False,
    flags: ReadFlags,
    zero: Annotated[bool, typer.Option("-0", "--null", help=ZERO_HELP)] = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per line, and a summary")] = False,
) -> int:
    """Show the disk usage of directories in an image, in KiB, including everything below them. Hard links count once."""
    from ..vfs.usage import directory_usage

    batch = ReadBatch(console, arguments, flags, default=["/"])
    for image, paths, opened in batch.images():
        seen: set[tuple[int, int]] = set()
        total = count = entries = 0
        for path in paths:
            try:
                top = lookup(opened.tree, path, follow=False)
                rows = directory_usage(
                    opened.tree, path, top, all_files=every and not summary, on_problem=batch.problem, seen=seen
                )
            except OSError as error:
                batch.problem(path, error)
                continue
            if not rows:
                continue
            total, count = total + rows[-1][1], count + rows[-1][2]
            for where, size, number, is_directory in rows[-1:] if summary else rows:
                entries += 1
                if json:
                    kind = {"directory": is_directory, "allocated_bytes": size, "inodes": number}
                    console.emit_raw({**name_fields("path", where), **kind})
                    continue
                text = str(number) if inodes else short_size(size) if human else str(-(-size // 1024))
                name = where if zero else display_name(where, console)
                console.write(text.encode() + b"\t" + name + (b"\0" if zero else b"\n"))
        if json:
            sums = {"entries": entries, "errors": batch.errors, "allocated_bytes": total, "inodes": count}
            console.emit(sums, image=image)
    return batch.exit_code
