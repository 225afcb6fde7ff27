"""``sifkit sif info``."""

from __future__ import annotations

from ..support.console import Console
from ..support.frame import verb
from ..support.options import IDAndImage, JSONTable, ObjectName
from ..support.render import print_pairs
from . import codes
from .arguments import id_and_image
from .describe import object_fields, object_rows, warning_fields
from .session import open_sif

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
    arguments: IDAndImage,
    name: ObjectName = None,
    json: JSONTable = False,
) -> None:
    """Show the descriptor of an object."""
    id, image = id_and_image(arguments, named=name is not None)
    wanted = codes.optional(codes.name, "--name", name)
    with open_sif(console, image) as sif:
        found = sif.by_name(wanted) if wanted is not None else sif.get(id or 0)
        if json:
            console.emit(object_fields(found) | warning_fields(sif.warnings), image=image)
        else:
            print_pairs(object_rows(found), console)
