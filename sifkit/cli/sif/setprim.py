"""``sifkit sif setprim``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..support.console import Console
from ..support.frame import verb
from ..support.options import SIFEditFlags
from ..support.results import print_result
from .arguments import id_and_image
from .describe import object_fields
from .session import edit_sif, signatures_to_drop

__all__ = ["command"]


@verb(locks=True, examples=["sifkit sif setprim 4 image.sif", "sifkit sif setprim 4 image.sif --drop-signatures"])
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="ID IMAGE", help="ID of a system partition, and SIF image; write ./4 for an image named 4"),
    ],
    flags: SIFEditFlags,
) -> None:
    """Make a system partition the primary one, the container's root. The previous one becomes a system partition."""
    id, image = id_and_image(arguments)
    assert id is not None
    with edit_sif(console, image, deterministic=flags.deterministic) as (sif, notes):
        before = sif.primary
        dropped = signatures_to_drop(notes, image, sif, sif.after_primary(id), f"making object {id} primary", flags)
        sif.set_primary(id, drop=dropped)
        same = before is not None and before.id == id
        fields = object_fields(sif.get(id)) | {"previous": None if before is None else before.id, "dropped_signatures": dropped}
    print_result(console, image, f"object {id} is {'already' if same else 'now'} the primary partition", fields)
