"""``sifkit cat``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import show
from .console import Console
from .embedding import Partition
from .frame import verb
from .places import places
from .render import described

__all__ = ["command"]

COPY_BYTES = 4 << 20


@verb(
    examples=[
        "sifkit cat overlay.img /upper/etc/motd",
        "sifkit cat overlay.img:/upper/etc/motd",
        "sifkit cat overlay.img /upper/data.tar | tar -tf -",
        "sifkit cat --partition overlay image.sif /upper/etc/motd",
    ]
)
def command(
    console: Console,
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE PATH...", help="an ext3 image and files in it; or IMAGE:/PATH")
    ],
    partition: Partition = None,
) -> None:
    """Write files in an image to standard output, unchanged.

    Paths start at the root of the image's own filesystem, which holds upper/ and work/. Symbolic links are followed inside
    the image. Holes come out as zeros. The image is only read.
    """
    wanted = places(arguments)

    from ..overlay.image import open_image

    for image, paths in wanted:
        console.image = image
        with open_image(image, partition) as filesystem:
            console.detail(described(image, filesystem))
            if filesystem.needs_recovery:
                console.warn(f"{show(image)}: the journal is not empty; what is read may be older than the last use")
            for path in paths:
                with filesystem.open_file(path) as file:
                    while piece := file.read(COPY_BYTES):
                        console.write(piece)
