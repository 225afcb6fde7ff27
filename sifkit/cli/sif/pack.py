"""``sifkit sif pack``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import counted, human
from ..console import Console
from ..frame import verb
from ..progress import MODES, reporter
from ..values import choice
from .images import Deterministic, Progress, result, stamp

__all__ = ["command"]


@verb(examples=["sifkit sif pack image.d image.sif", "SOURCE_DATE_EPOCH=0 sifkit sif pack image.d image.sif --force"])
def command(
    console: Console,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="files and manifest.json, as unpack writes them")],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="the image to make")],
    force: Annotated[bool, typer.Option("--force", "-F", help="replace a SIF image or an empty file")] = False,
    deterministic: Deterministic = False,
    progress: Progress = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Make an image from a directory with a manifest: what sifkit sif unpack wrote gives the same image, byte for byte; in one
    written by hand a list of objects, each with a type and a file, is enough.
    """
    choice("--progress", progress, MODES)

    from ...sif.packing import pack

    console.image = image
    with reporter(progress, console) as bar:
        bar.phase("copy", None, "bytes")
        made = pack(directory, image, force=force, stamp=stamp(deterministic), advance=bar.advance)
    how = "every byte where the manifest says" if made.exact else "the objects placed anew"
    text = f"{counted(made.objects, 'object')}, {human(made.size_bytes)}, {how}"
    result(console, image, text, {"file_bytes": made.size_bytes, "objects": made.objects, "exact": made.exact})
