"""``sifkit sif unpack``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import counted, human, shell_quote, show
from ..support.console import Console, name_fields
from ..support.frame import verb
from ..support.options import JSONResult, ProgressMode, SIFImage
from ..support.progress import MODES, reporter
from ..support.results import print_result
from ..support.values import choice
from .session import open_sif

__all__ = ["command"]


@verb(locks=True, examples=["sifkit sif unpack image.sif image.d", "sifkit sif unpack image.sif image.d --force"])
def command(
    console: Console,
    image: SIFImage,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="directory to create")],
    force: Annotated[bool, typer.Option("--force", "-F", help="write into a directory that is not empty")] = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> None:
    """Write each object to a file, and a manifest from which sifkit sif pack creates the same image, byte for byte. Nothing is
    ever written outside DIR.
    """
    choice("--progress", progress, MODES)

    from ...sif.pack.unpacking import unpack

    with open_sif(console, image) as sif:
        total = sum(descriptor.size for descriptor in sif)
        with reporter(progress, console) as bar:
            bar.phase("copy", total, "bytes")
            manifest = unpack(sif, directory, force=force, advance=bar.advance)
        count = len(sif)
    fields = {**name_fields("manifest", manifest), "objects": count, "content_bytes": total}
    print_result(console, image, f"{counted(count, 'object')}, {human(total)}, manifest {show(manifest)}", fields)
    if console.err_is_terminal and not console.json:
        console.note(f"repack it with: sifkit sif pack {shell_quote(directory)} NEW.sif")
