"""``sifkit df``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SifkitError
from .support.console import Console, Fields, name_fields
from .support.failures import report
from .support.frame import verb
from .support.options import HumanReadable, Offset, Overlays, Partition, byte_offset
from .support.reading import offset_of, open_for_reading, overlays_above
from .support.render import bar, escape, percent, short_size

if TYPE_CHECKING:
    from ..overlay.images.filesystem_opening import OpenedFilesystem
    from ..vfs.file_tree import StatFS

__all__ = ["command"]


@verb(
    help_names=["--help"],
    examples=[
        "sifkit df overlay.img",
        "sifkit df -h overlay.img job-1.img",
        "sifkit df --json overlay.img",
        "sifkit df -h root.sif --overlay overlay.img",
    ],
)
def command(
    console: Console,
    *,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="images or directories")],
    human: HumanReadable = False,
    inodes_only: Annotated[bool, typer.Option("-i", "--inodes", help="show only inodes")] = False,
    partition: Partition = None,
    overlay: Overlays = None,
    offset: Offset = None,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per image")] = False,
) -> int:
    """Show the space and inode usage of images, in KiB. An image may run out of inodes long before space.

    Meta is what the filesystem itself takes (inode tables, bitmaps, journal), Used what files and directories take. Of a
    container the layers are listed, the highest first, which has the space that it may write to.
    """
    from ext3.errors import Ext3Error

    start = byte_offset(offset)
    code = 0
    table = _Table(console, human=human, inodes_only=inodes_only)
    for image in images:
        try:
            with open_for_reading(
                console,
                image,
                partition,
                offset=offset_of(image, start, images),
                overlays=overlays_above(image, overlay, images),
            ) as opened:
                layers = [(found, found.statfs()) for found in reversed(opened.filesystems)]
                is_container = opened.container is not None
        except (SifkitError, Ext3Error, OSError) as error:
            if len(images) == 1:
                raise
            code = max(code, report(error, console))
            continue
        if json:
            listed = [_layer_fields(found, usage) for found, usage in layers] if is_container else []
            console.emit({**_fields(layers[0][1]), "layers": listed}, image=image)
            continue
        for found, usage in layers:
            object_id = found.object_id if is_container else None
            table.add(found.path if is_container else image, usage, object_id)
    if not json:
        table.print()
    return code


def _layer_fields(found: OpenedFilesystem, usage: StatFS) -> Fields:
    """Layer of a container as JSON."""
    return {**name_fields("name", found.name), "kind": found.kind, **_fields(usage)}


def _fields(usage: StatFS) -> Fields:
    """Totals of a filesystem as JSON."""
    return {
        "size_bytes": usage.total_bytes,
        "used_bytes": usage.total_bytes - usage.free_bytes,
        "metadata_bytes": usage.metadata_bytes,
        "journal_bytes": usage.journal_bytes,
        "free_bytes": usage.free_bytes,
        "available_bytes": usage.available_bytes,
        "inodes": usage.inodes,
        "inodes_used": usage.inodes - usage.free_inodes,
        "inodes_free": usage.free_inodes,
    }


class _Table:
    """Table of filesystems: a row for the space and one for the inodes of each."""

    def __init__(self, console: Console, *, human: bool, inodes_only: bool) -> None:
        self._console = console
        self._human = human
        self._inodes_only = inodes_only
        self._rows: list[tuple[str, ...]] = [("Image", "", "Size", "Meta", "Used", "Avail", "Use%")]

    def add(self, image: str, usage: StatFS, object_id: int | None = None) -> None:
        """Add a filesystem: of a file, or of an object of a SIF."""
        name = escape(image.encode("utf-8", "surrogateescape"))
        name += "" if object_id is None else f", object {object_id}"
        used, inodes_used = usage.total_bytes - usage.free_bytes, usage.inodes - usage.free_inodes
        if not self._inodes_only:
            own = min(usage.metadata_bytes + usage.journal_bytes, used)
            content, available = used - own, usage.available_bytes
            columns = map(self._size, (usage.total_bytes, own, content, available))
            share = self._share(content, content + available)
            self._rows.append((name, "bytes" if self._human else "KiB", *columns, share))
        counts = str(usage.inodes), "", str(inodes_used), str(usage.free_inodes)
        self._rows.append((name, "inodes", *counts, self._share(inodes_used, usage.inodes)))

    def _size(self, number: int) -> str:
        return short_size(number) if self._human else str(-(-number // 1024))

    def _share(self, used: int, total: int) -> str:
        share = percent(used, total).replace(" ", "")
        return f"{share:>4} {bar(used, total, self._console)}" if self._console.out_is_terminal else share

    def print(self) -> None:
        """Print the table, if it has rows."""
        rows = self._rows
        if len(rows) == 1:
            return
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        for row in rows:
            left = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}"
            self._console.line("  ".join([left, *(f"{row[column]:>{widths[column]}}" for column in (2, 3, 4, 5)), row[6]]))
