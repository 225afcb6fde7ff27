"""``sifkit sif new``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..support.console import Console
from ..support.frame import verb
from ..support.render import shell_word
from . import codes as words
from .describe import header_fields
from .session import Deterministic, result, stamp

__all__ = ["command"]

MOST_DESCRIPTORS = 16384


@verb(
    examples=[
        "sifkit sif new image.sif",
        "sifkit sif new --capacity 200 --launch '#!/usr/bin/env run-singularity' image.sif",
        "SOURCE_DATE_EPOCH=0 sifkit sif new image.sif",
    ]
)
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="the file to make")],
    launch: Annotated[
        str | None, typer.Option("--launch", metavar="TEXT", help="the script an image starts with, at most 31 bytes")
    ] = None,
    id: Annotated[str, typer.Option("--id", metavar="UUID", help="the image's identity")] = "random",
    capacity: Annotated[str, typer.Option("--capacity", metavar="COUNT", help="room for so many objects")] = "48",
    arch: Annotated[
        str | None,
        typer.Option("--arch", metavar="ARCH", help="a primary partition brings its own. " + words.listed("ARCH")),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-F", help="replace a SIF image or an empty file")] = False,
    deterministic: Deterministic = False,
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Make an empty SIF image. It appears whole or not at all; what is there already stays unless --force is given."""
    room = words.number("--capacity", capacity, 1, MOST_DESCRIPTORS, hint="48 is usual")
    script = words.optional(words.launch, "--launch", launch)
    chosen = words.optional(words.arch, "--arch", arch)
    identity = words.identity("--id", id)

    from ...sif import SIF, Arch

    console.image = image
    with SIF.create(
        image,
        launch=script or b"",
        id=identity,
        capacity=room,
        arch=Arch.UNKNOWN if chosen is None else chosen,
        stamp=stamp(deterministic),
        force=force,
    ) as sif:
        fields = header_fields(sif)
    result(console, image, f"an empty image with room for {room} objects", fields)
    if console.err_is_terminal and not console.json:
        console.note(f"next: sifkit sif add {shell_word(image)} FILE --datatype TYPE")
