"""``sifkit df``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import SifkitError
from .support.console import Console
from .support.failures import report
from .support.frame import verb
from .support.options import HumanReadable, Offset, Partition, byte_offset
from .support.reading import offset_of, open_for_reading
from .support.render import bar, escape, percent, short_size

__all__ = ["command"]


@verb(
    help_names=["--help"],
    examples=["sifkit df overlay.img", "sifkit df -h overlay.img job-1.img", "sifkit df --json overlay.img"],
)
def command(
    console: Console,
    *,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="images or directories")],
    human: HumanReadable = False,
    inodes_only: Annotated[bool, typer.Option("-i", "--inodes", help="show only inodes")] = False,
    partition: Partition = None,
    offset: Offset = None,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per image")] = False,
) -> int:
    """Show the space and inode usage of images, in KiB. An image may run out of inodes long before space.

    Meta is what the filesystem itself takes (inode tables, bitmaps, journal), Used what files and directories take.
    """
    from ext3.errors import Ext3Error

    start = byte_offset(offset)
    code = 0
    rows: list[tuple[str, ...]] = [("Image", "", "Size", "Meta", "Used", "Avail", "Use%")]
    for image in images:
        try:
            with open_for_reading(console, image, partition, offset=offset_of(image, start, images)) as opened:
                usage = opened.statfs()
        except (SifkitError, Ext3Error, OSError) as error:
            if len(images) == 1:
                raise
            code = max(code, report(error, console))
            continue
        used, inodes_used = usage.total_bytes - usage.free_bytes, usage.inodes - usage.free_inodes
        own = min(usage.metadata_bytes + usage.journal_bytes, used)
        if json:
            console.emit(
                {
                    "size_bytes": usage.total_bytes,
                    "used_bytes": used,
                    "metadata_bytes": usage.metadata_bytes,
                    "journal_bytes": usage.journal_bytes,
                    "free_bytes": usage.free_bytes,
                    "available_bytes": usage.available_bytes,
                    "inodes": usage.inodes,
                    "inodes_used": inodes_used,
                    "inodes_free": usage.free_inodes,
                },
                image=image,
            )
            continue

        def size(number: int) -> str:
            return short_size(number) if human else str(-(-number // 1024))

        def full(used: int, total: int) -> str:
            share = percent(used, total).replace(" ", "")
            return f"{share:>4} {bar(used, total, console)}" if console.out_is_terminal else share

        name = escape(image.encode("utf-8", "surrogateescape"))
        available = usage.available_bytes
        space = "bytes" if human else "KiB"
        if not inodes_only:
            content = used - own
            columns = map(size, (usage.total_bytes, own, content, available))
            rows.append((name, space, *columns, full(content, content + available)))
        inodes = (usage.inodes, inodes_used, usage.free_inodes)
        rows.append((name, "inodes", str(inodes[0]), "", *map(str, inodes[1:]), full(inodes_used, usage.inodes)))
    if json or len(rows) == 1:
        return code
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        left = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}"
        console.line("  ".join([left, *(f"{row[column]:>{widths[column]}}" for column in (2, 3, 4, 5)), row[6]]))
    return code
