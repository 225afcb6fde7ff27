"""``sifkit sif header``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..support.console import Console
from ..support.frame import verb
from ..support.render import pairs
from .describe import header_fields, header_rows, warning_fields
from .session import reading

__all__ = ["command"]


@verb(examples=["sifkit sif header image.sif", "sifkit sif header --json image.sif | python3 -m json.tool"])
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a SIF image")],
    json: Annotated[bool, typer.Option("--json", help="one JSON object instead of the table")] = False,
) -> None:
    """Show an image's global header: launch script, architecture, identity, times, and how full its table of objects is."""
    with reading(console, image) as sif:
        if json:
            console.emit(header_fields(sif) | warning_fields(sif.warnings), image=image)
        else:
            pairs(header_rows(sif), console)
