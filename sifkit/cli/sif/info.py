"""``sifkit sif info``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..support.console import Console
from ..support.frame import verb
from ..support.render import pairs
from . import codes as words
from .arguments import id_and_image
from .describe import object_fields, object_rows, warning_fields
from .session import reading

__all__ = ["command"]


@verb(
    examples=[
        "sifkit sif info 3 image.sif",
        "sifkit sif info --name inspect-metadata.json image.sif",
        "sifkit sif info 3 image.sif --json | python3 -m json.tool",
    ]
)
def command(
    console: Console,
    arguments: Annotated[
        list[str], typer.Argument(metavar="ID IMAGE", help="an object and the SIF image; an image named 4 is ./4")
    ],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="the object of this name instead of an ID")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object instead of the table")] = False,
) -> None:
    """Show all that an image tells of one object."""
    id, image = id_and_image(arguments, named=name is not None)
    wanted = words.optional(words.name, "--name", name)
    with reading(console, image) as sif:
        found = sif.by_name(wanted) if wanted is not None else sif.get(id or 0)
        if json:
            console.emit(object_fields(found) | warning_fields(sif.warnings), image=image)
        else:
            pairs(object_rows(found), console)
