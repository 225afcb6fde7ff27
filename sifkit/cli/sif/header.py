"""``sifkit sif header``."""

from __future__ import annotations

from ..support.console import Console
from ..support.frame import verb
from ..support.options import JSONTable, SIFImage
from ..support.render import print_pairs
from .describe import header_fields, header_rows, warning_fields
from .session import open_sif

__all__ = ["command"]


@verb(examples=["sifkit sif header image.sif", "sifkit sif header --json image.sif | python3 -m json.tool"])
def command(
    console: Console,
    image: SIFImage,
    json: JSONTable = False,
) -> None:
    """Show the global header of an image: launch script, architecture, ID, times, and used and free descriptors."""
    with open_sif(console, image) as sif:
        if json:
            console.emit(header_fields(sif) | warning_fields(sif.warnings), image=image)
        else:
            print_pairs(header_rows(sif), console)
