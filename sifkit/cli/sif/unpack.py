"""``sifkit sif unpack``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import counted, human, show
from ..support.console import Console, named
from ..support.frame import verb
from ..support.progress import MODES, reporter
from ..support.render import shell_word
from ..support.values import choice
from .session import Progress, reading, result

__all__ = ["command"]


@verb(examples=["sifkit sif unpack image.sif image.d", "sifkit sif unpack image.sif image.d --force"])
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a SIF image")],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="the directory to make")],
    force: Annotated[bool, typer.Option("--force", "-F", help="write into a directory that is not empty")] = False,
    progress: Progress = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Write every object to a file of its own, and a manifest from which sifkit sif pack makes the same image, byte for byte.
    Names in an image never lead out of the directory.
    """
    choice("--progress", progress, MODES)

    from ...sif.pack.unpacking import unpack

    with reading(console, image) as sif:
        total = sum(descriptor.size for descriptor in sif)
        with reporter(progress, console) as bar:
            bar.phase("copy", total, "bytes")
            manifest = unpack(sif, directory, force=force, advance=bar.advance)
        count = len(sif)
    fields = {**named("manifest", manifest), "objects": count, "content_bytes": total}
    result(console, image, f"{counted(count, 'object')}, {human(total)}, and {show(manifest)}", fields)
    if console.err_is_terminal and not console.json:
        console.note(f"the same image again: sifkit sif pack {shell_word(directory)} NEW.sif")
