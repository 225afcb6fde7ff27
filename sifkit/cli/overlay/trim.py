"""``sifkit overlay trim``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ...errors import human, show
from ..support.console import Console, Fields
from ..support.editing import open_filesystem_for_editing
from ..support.frame import verb
from ..support.options import FilesystemEditFlags

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay trim overlay.img",
        "sifkit overlay trim image.sif",
        "sifkit overlay trim --partition 4 image.sif",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image, or SIF image with one")],
    flags: FilesystemEditFlags,
) -> None:
    """Give the space of deleted files back to the host, as fstrim does: free blocks become holes of the image file.

    The image keeps its size and its content. Fails while a container uses it.
    """
    from ext3 import hostio

    with open_filesystem_for_editing(console, image, flags) as editor:
        before = hostio.allocated_bytes(os.stat(image))
        freed = editor.filesystem.trim()
    found = os.stat(image)
    after = hostio.allocated_bytes(found)
    if flags.json:
        fields: Fields = {
            "freed_bytes": freed,
            "file_bytes": found.st_size,
            "allocated_before_bytes": before,
            "allocated_after_bytes": after,
        }
        console.emit(fields, image=image)
    else:
        text = f"freed {human(freed)}" if freed else "nothing to free"
        console.result(f"{show(image)}: {text}; {human(found.st_size)}, {human(after)} on disk")
