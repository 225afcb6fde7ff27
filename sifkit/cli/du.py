"""``sifkit du``."""

from __future__ import annotations

from typing import Annotated

import typer

from .support.console import Console, named
from .support.embedding import Partition
from .support.frame import verb
from .support.image_path import places
from .support.reading import Upper, locate, looking, tell
from .support.render import short_size, shown_name

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
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE [PATH]...", help="an ext3 image and paths in it (default: /); or IMAGE:/PATH")
    ],
    summary: Annotated[bool, typer.Option("-s", "--summarize", help="only a total for each path")] = False,
    every: Annotated[bool, typer.Option("-a", "--all", help="files, too, not only directories")] = False,
    human: Annotated[bool, typer.Option("-h", "--human-readable", help="sizes as 1.5G, in powers of 1024")] = False,
    inodes: Annotated[bool, typer.Option("--inodes", help="count inodes, not KiB")] = False,
    partition: Partition = None,
    upper: Upper = False,
    zero: Annotated[bool, typer.Option("-0", "--null", help="end each line with NUL, and escape nothing")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each line, and a summary last")] = False,
) -> int:
    """Tell what directories in an image take, in KiB, what is below them included. A file with several names counts once."""
    from ext3.errors import Ext3Error

    from ..overlay.usage import directory_usage

    failed = 0
    for image, paths in places(arguments, default=["/"]):
        problems: list[Exception] = []
        seen: set[int] = set()
        total = count = entries = 0
        with looking(console, image, partition, upper=upper) as view:
            for path in paths:
                try:
                    top = locate(view, path, follow=False)
                    rows = directory_usage(view, path, top, all_files=every and not summary, problems=problems, seen=seen)
                except Ext3Error as error:
                    problems.append(error)
                    continue
                if not rows:
                    continue
                total, count = total + rows[-1][1], count + rows[-1][2]
                for where, size, number, is_directory in rows[-1:] if summary else rows:
                    entries += 1
                    if json:
                        kind = {"directory": is_directory, "allocated_bytes": size, "inodes": number}
                        console.emit_raw({**named("path", where), **kind})
                        continue
                    text = str(number) if inodes else short_size(size) if human else str(-(-size // 1024))
                    name = where if zero else shown_name(where, console)
                    console.write(text.encode() + b"\t" + name + (b"\0" if zero else b"\n"))
        tell(console, problems)
        failed += len(problems)
        if json:
            sums = {"entries": entries, "errors": len(problems), "allocated_bytes": total, "inodes": count}
            console.emit(sums, image=image)
    return 1 if failed else 0
