"""``sifkit sif new``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import shell_quote
from ..support.console import Console
from ..support.environment import sif_stamp
from ..support.frame import verb
from ..support.options import Deterministic, ForceReplace, JSONResult
from ..support.results import print_result
from ..support.values import uuid
from . import codes
from .describe import header_fields

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit sif new image.sif",
        "sifkit sif new --capacity 200 --launch '#!/usr/bin/env run-singularity' image.sif",
        "SOURCE_DATE_EPOCH=0 sifkit sif new image.sif",
    ],
)
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="file to create")],
    launch: Annotated[str | None, typer.Option("--launch", metavar="TEXT", help="launch script, at most 31 bytes")] = None,
    id: Annotated[str, typer.Option("--id", metavar="UUID", help="ID of the image")] = "random",
    capacity: Annotated[str, typer.Option("--capacity", metavar="COUNT", help="number of descriptors")] = "48",
    arch: Annotated[
        str | None,
        typer.Option(
            "--arch", metavar="ARCH", help="architecture, until there is a primary partition: " + codes.listed("ARCH")
        ),
    ] = None,
    force: ForceReplace = False,
    deterministic: Deterministic = False,
    json: JSONResult = False,
) -> None:
    """Create an empty SIF image. An existing file is kept unless --force is given."""
    descriptors = codes.capacity("--capacity", capacity, least=1)
    script = codes.optional(codes.launch, "--launch", launch)
    chosen = codes.optional(codes.arch, "--arch", arch)
    image_id = uuid("--id", id)

    from ...sif import SIF, Arch

    console.image = image
    with SIF.create(
        image,
        launch=script or b"",
        id=image_id,
        capacity=descriptors,
        arch=Arch.UNKNOWN if chosen is None else chosen,
        stamp=sif_stamp(deterministic),
        force=force,
    ) as sif:
        fields = header_fields(sif)
    print_result(console, image, f"created, empty, capacity of {descriptors} objects", fields)
    if console.err_is_terminal and not console.json:
        console.note(f"add objects with: sifkit sif add {shell_quote(image)} FILE --datatype TYPE")
