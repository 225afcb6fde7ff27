"""``sifkit sif setprim``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..support.console import Console
from ..support.frame import verb
from .arguments import id_and_image
from .describe import object_fields
from .session import Deterministic, DropSignatures, KeepSignatures, drop_or_refuse, editing, result

__all__ = ["command"]


@verb(examples=["sifkit sif setprim 4 image.sif", "sifkit sif setprim 4 image.sif --drop-signatures"])
def command(
    console: Console,
    arguments: Annotated[
        list[str], typer.Argument(metavar="ID IMAGE", help="a system partition and the SIF image; an image named 4 is ./4")
    ],
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    deterministic: Deterministic = False,
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Make a system partition the primary one, the container's root; the one that was becomes a system partition."""
    id, image = id_and_image(arguments)
    assert id is not None
    with editing(console, image, deterministic=deterministic) as (sif, later):
        before = sif.primary
        dropped = drop_or_refuse(
            later,
            image,
            sif,
            sif.after_primary(id),
            f"making object {id} primary",
            drop=drop_signatures,
            keep=keep_broken_signatures,
        )
        sif.set_primary(id, drop=dropped)
        same = before is not None and before.id == id
        fields = object_fields(sif.get(id)) | {"previous": None if before is None else before.id, "dropped_signatures": dropped}
    result(console, image, f"object {id} {'is' if same else 'is now'} the primary partition", fields)
