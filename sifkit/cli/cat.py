"""``sifkit cat``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .support.console import Console
from .support.frame import verb
from .support.image_path import group_by_image, several_paths
from .support.options import ReadFlags
from .support.reading import open_for_reading

if TYPE_CHECKING:
    from ..vfs.file_tree import FileTree, OpenFile

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
        list[str], typer.Argument(metavar="IMAGE PATH...", help="image or directory, and files in it; or IMAGE:/PATH")
    ],
    flags: ReadFlags,
) -> int:
    """Print files in an image.

    Paths are relative to the root of the image's filesystem, which has upper/ and work/. Symbolic links are followed within
    the image. Holes are written as zeros. The image is not modified.
    """
    from ..vfs.errors import TreePathError

    groups = group_by_image(arguments)
    several = several_paths(groups)
    failed = 0
    for image, paths in groups:
        with open_for_reading(console, image, flags.partition, upper=flags.upper) as opened:
            for path in paths:
                try:
                    file = _open_file(opened.tree, path)
                except TreePathError as error:
                    if not several:
                        raise
                    failed += 1
                    console.error(str(error))
                    continue
                with file:
                    at = 0
                    while piece := file.read_at(at, COPY_BYTES):
                        console.write(piece)
                        at += len(piece)
    return 1 if failed else 0


def _open_file(tree: FileTree[Any], path: bytes) -> OpenFile:
    """Open a regular file. Raises TreePathError."""
    from ..vfs.errors import TreePathError, path_error
    from ..vfs.file_tree import REGULAR, file_type_of
    from ..vfs.resolve import Resolver, is_dir

    node = Resolver(tree).lookup(path)
    found = tree.stat(node)
    if is_dir(found):
        raise path_error(path, errno.EISDIR)
    if file_type_of(found.mode) != REGULAR:
        raise TreePathError(path, errno.EINVAL, "not a regular file")
    return tree.open_file(node)
