"""``sifkit cat``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .support.console import Console
from .support.frame import verb
from .support.options import ReadFlags
from .support.reading import ReadBatch

if TYPE_CHECKING:
    from ..vfs.file_tree import FileTree, OpenFile

__all__ = ["command"]

COPY_BYTES = 4 << 20


@verb(
    examples=[
        "sifkit cat overlay.img /upper/etc/motd",
        "sifkit cat overlay.img:/upper/etc/motd",
        "sifkit cat overlay.img /upper/data.tar | tar -tf -",
        "sifkit cat image.sif /etc/motd",
        "sifkit cat root.sif --overlay overlay.img /etc/motd",
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

    Paths are relative to the root of the image: of a SIF image what a container sees, of an overlay its filesystem, which has
    upper/ and work/. Symbolic links are followed within the image. Holes are written as zeros. The image is not modified.
    """
    batch = ReadBatch(console, arguments, flags)
    for _, paths, opened in batch.images():
        for path in paths:
            with batch.attempt(path), _open_file(opened.tree, path) as file:
                at = 0
                while piece := file.read_at(at, COPY_BYTES):
                    console.write(piece)
                    at += len(piece)
    return batch.exit_code


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
