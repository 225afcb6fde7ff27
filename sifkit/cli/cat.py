"""``sifkit cat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .support.console import Console
from .support.frame import verb
from .support.image_path import group_by_image, several_paths
from .support.options import ReadFlags
from .support.reading import open_for_reading, print_problems

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
    arguments: Annotated[list[str], typer.Argument(metavar="IMAGE PATH...", help="ext3 image and files in it, or IMAGE:/PATH")],
    flags: ReadFlags,
) -> int:
    """Print files in an image.

    Paths are relative to the root of the image's filesystem, which has upper/ and work/. Symbolic links are followed within
    the image. Holes are written as zeros. The image is not modified.
    """
    from ext3.errors import PathError

    groups = group_by_image(arguments)
    several = several_paths(groups)
    failed = 0
    for image, paths in groups:
        with open_for_reading(console, image, flags.partition, upper=flags.upper) as view:
            for path in paths:
                try:
                    file = _open_file(view, path)
                except PathError as error:
                    if not several:
                        raise
                    failed += 1
                    print_problems(console, [error])
                    continue
                with file:
                    while piece := file.read(COPY_BYTES):
                        console.write(piece)
    return 1 if failed else 0


def _open_file(view: View, path: bytes) -> FileReader:
    from ext3.errors import PathError, PathIsDirectoryError

    ino = view.lookup(path)
    found = view.filesystem.stat(ino)
    if found.is_dir:
        raise PathIsDirectoryError(path, "Is a directory")
    if found.mode & 0o170000 != 0o100000:
        raise PathError(path, "not a regular file")
    return view.filesystem.open_file(ino)
