"""``sifkit cat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .support.console import Console
from .support.embedding import Partition
from .support.frame import verb
from .support.image_path import places
from .support.reading import Upper, looking, tell

if TYPE_CHECKING:
    from ext3.read.filesystem import FileReader

    from ..overlay.view import View

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
    upper: Upper = False,
) -> int:
    """Write files in an image to standard output, unchanged.

    Paths start at the root of the image's own filesystem, which holds upper/ and work/. Symbolic links are followed inside
    the image. Holes come out as zeros. The image is only read.
    """
    from ext3.errors import PathError

    wanted = places(arguments)
    several = sum(len(paths) for _, paths in wanted) > 1
    failed = 0
    for image, paths in wanted:
        with looking(console, image, partition, upper=upper) as view:
            for path in paths:
                try:
                    file = _opened(view, path)
                except PathError as error:
                    if not several:
                        raise
                    failed += 1
                    tell(console, [error])
                    continue
                with file:
                    while piece := file.read(COPY_BYTES):
                        console.write(piece)
    return 1 if failed else 0


def _opened(view: View, path: bytes) -> FileReader:
    from ext3.errors import PathError, PathIsDirectoryError

    ino = view.lookup(path)
    found = view.filesystem.stat(ino)
    if found.is_dir:
        raise PathIsDirectoryError(path, "Is a directory")
    if found.mode & 0o170000 != 0o100000:
        raise PathError(path, "not a regular file")
    return view.filesystem.open_file(ino)
