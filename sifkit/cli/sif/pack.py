"""``sifkit sif pack``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import counted, human
from ..support.console import Console
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import Deterministic, ForceReplace, JSONResult, ProgressMode
from ..support.progress import MODES, reporter
from ..support.results import print_result
from ..support.values import choice
from .describe import warning_fields
from .session import print_warnings

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit sif pack image.d image.sif",
        "SOURCE_DATE_EPOCH=0 sifkit sif pack image.d image.sif --force",
    ],
)
def command(
    console: Console,
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="directory with manifest.json and files, as unpack writes them")
    ],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="image to create")],
    force: ForceReplace = False,
    deterministic: Deterministic = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> None:
    """Create an image from a directory with a manifest. The output of sifkit sif unpack gives the same image, byte for byte. If
    the size of a file has changed, or the layout is removed from the manifest, objects are placed anew.

    A manifest written by hand needs a list of objects, each with a type and a file, and for partitions fs, part and arch; see
    the output of unpack and docs/json.md for other keys. Only files in DIR are used.
    """
    choice("--progress", progress, MODES)

    from ...sif.pack.packing import pack

    console.image = image
    with errors_about(image), reporter(progress, console) as bar:
        bar.phase("copy", None, "bytes")
        made = pack(directory, image, force=force, stamp=sif_stamp(deterministic), advance=bar.advance)
    print_warnings(console, image, made.warnings)
    how = "layout as in the manifest" if made.exact else "new layout"
    text = f"{counted(made.objects, 'object')}, {human(made.size_bytes)}, {how}"
    fields = {"file_bytes": made.size_bytes, "objects": made.objects, "exact": made.exact}
    print_result(console, image, text, fields | warning_fields(made.warnings))
