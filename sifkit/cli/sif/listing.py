"""``sifkit sif list``."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ...errors import human, shell_quote, show
from ..support.console import Console
from ..support.frame import verb
from ..support.options import JSONTable, SIFImage
from ..support.render import stacked_bar
from .describe import group_text, link_text, object_fields, print_table, warning_fields
from .session import open_sif

if TYPE_CHECKING:
    from ...sif import SIF

__all__ = ["command"]

HEAD = ("ID", "GROUP", "LINK", "START-END", "SIZE", "TYPE", "NAME")


def _print_map(sif: SIF, console: Console) -> None:
    """Print the places of the objects in the file to scale, with the last digits of their IDs."""
    from ...sif.format.header import HEADER_BYTES

    gap = "\u00b7" if console.out_is_unicode else "."
    header = sif.header
    used = [(0, HEADER_BYTES, "h"), (header.descriptors_offset, header.table_end, "h")]
    used += [(descriptor.offset, descriptor.end, str(descriptor.id % 10)) for descriptor in sif]
    parts: list[tuple[int, str]] = []
    position = 0
    for begin, end, mark in sorted(used):
        if begin > position:
            parts.append((begin - position, gap))
        if end > max(begin, position):
            parts.append((end - max(begin, position), mark))
        position = max(position, end)
    size = human(position)
    width = min(shutil.get_terminal_size().columns, 120) - len(f"0 || {size}")
    if len(parts) <= width:
        console.line(f"0 |{stacked_bar([length for length, _ in parts], [mark for _, mark in parts], width=width)}| {size}")


@verb(examples=["sifkit sif list image.sif", "sifkit sif list --json image.sif | python3 -m json.tool"])
def command(
    console: Console,
    image: SIFImage,
    json: JSONTable = False,
) -> None:
    """List the objects in an image: ID, group, linked object or group (G), offset and end in bytes, size, type and name.

    On a terminal a map follows, to scale: h is the header and the table, a digit the end of an ID, a dot what is unused.
    """
    with open_sif(console, image) as sif:
        if json:
            objects = [object_fields(descriptor) for descriptor in sif]
            console.emit({"objects": objects} | warning_fields(sif.warnings), image=image)
            return
        rows = [
            (
                str(descriptor.id),
                group_text(descriptor),
                link_text(descriptor),
                f"{descriptor.offset}-{descriptor.end}",
                human(descriptor.size),
                descriptor.type_text,
                show(descriptor.name),
            )
            for descriptor in sif
        ]
        print_table(HEAD, rows, console, right=(0, 3, 4))
        if console.out_is_terminal and rows:
            _print_map(sif, console)
        if not rows:
            console.note(f"{show(image)}: no objects; add one with: sifkit sif add {shell_quote(image)} FILE --datatype TYPE")
