"""``sifkit sif pack``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import counted, human
from ..support.console import Console
from ..support.frame import verb
from ..support.progress import MODES, reporter
from ..support.values import choice
from .describe import warning_fields
from .session import Deterministic, Progress, concerning, result, stamp, tell_warnings

__all__ = ["command"]


@verb(
    examples=[
        "sifkit sif pack image.d image.sif",
        "SOURCE_DATE_EPOCH=0 sifkit sif pack image.d image.sif --force",
    ]
)
def command(
    console: Console,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="files and manifest.json, as unpack writes them")],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="the image to make")],
    force: Annotated[bool, typer.Option("--force", "-F", help="replace a SIF image or an empty file")] = False,
    deterministic: Deterministic = False,
    progress: Progress = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Make an image from a directory with a manifest: what sifkit sif unpack wrote gives the same image, byte for byte. Where a
    file or a size in it was changed, or the layout taken out, the objects are placed anew.

    A manifest written by hand needs a list of objects, each with a type and a file, and a partition its fs, part and arch; what
    unpack writes shows the other keys, and docs/json.md tells of them. Only files in DIR go in.
    """
    choice("--progress", progress, MODES)

    from ...sif.pack.packing import pack

    console.image = image
    with concerning(image), reporter(progress, console) as bar:
        bar.phase("copy", None, "bytes")
        made = pack(directory, image, force=force, stamp=stamp(deterministic), advance=bar.advance)
    tell_warnings(console, image, made.warnings)
    how = "every byte where the manifest says" if made.exact else "the objects placed anew"
    text = f"{counted(made.objects, 'object')}, {human(made.size_bytes)}, {how}"
    fields = {"file_bytes": made.size_bytes, "objects": made.objects, "exact": made.exact}
    result(console, image, text, fields | warning_fields(made.warnings))
