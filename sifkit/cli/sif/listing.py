"""``sifkit sif list``."""

from __future__ import annotations

from ...errors import human, shell_quote, show
from ..support.console import Console
from ..support.frame import verb
from ..support.options import JSONTable, SIFImage
from .describe import group_text, link_text, object_fields, print_table, warning_fields
from .session import open_sif

__all__ = ["command"]

HEAD = ("ID", "GROUP", "LINK", "START-END", "SIZE", "TYPE", "NAME")


@verb(examples=["sifkit sif list image.sif", "sifkit sif list --json image.sif | python3 -m json.tool"])
def command(
    console: Console,
    image: SIFImage,
    json: JSONTable = False,
) -> None:
    """List the objects in an image: ID, group, linked object or group (G), offset and end in bytes, size, type and name."""
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
        if not rows:
            console.note(f"{show(image)}: no objects; add one with: sifkit sif add {shell_quote(image)} FILE --datatype TYPE")
