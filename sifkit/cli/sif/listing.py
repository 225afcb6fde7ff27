"""``sifkit sif list``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import human, show
from ..support.console import Console
from ..support.frame import verb
from .describe import group_text, link_text, object_fields, table, warning_fields
from .session import reading

__all__ = ["command"]

HEAD = ("ID", "GROUP", "LINK", "START-END", "SIZE", "TYPE", "NAME")


@verb(examples=["sifkit sif list image.sif", "sifkit sif list --json image.sif | python3 -m json.tool"])
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a SIF image")],
    json: Annotated[bool, typer.Option("--json", help="one JSON object instead of the table")] = False,
) -> None:
    """List an image's objects: id, group, the object or group (G) it is linked to, first byte and the byte behind the last,
    size, type, name.
    """
    with reading(console, image) as sif:
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
        table(HEAD, rows, console, right=(0, 3, 4))
        if not rows:
            console.note(f"{show(image)}: no objects; put one in: sifkit sif add -h")
