"""``sifkit xattr get``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..errors import SifkitError, UsageError, show
from .support.console import Console
from .support.frame import verb
from .support.image_path import group_by_image, several_paths
from .support.options import AttributeName, Dereference, ReadFlags
from .support.reading import open_for_reading, xattrs_of

__all__ = ["command"]


@verb(
    examples=[
        "sifkit xattr get user.comment overlay.img /upper/notes",
        "sifkit xattr get system.posix_acl_access overlay.img:/upper/shared | od -t x1",
    ]
)
def command(
    console: Console,
    *,
    name: AttributeName,
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE PATH", help="image or directory, and a path in it; or IMAGE:/PATH")
    ],
    follow: Dereference = False,
    flags: ReadFlags,
) -> None:
    """Print the value of an extended attribute as raw bytes; ACLs in the format of getxattr(2)."""
    groups = group_by_image(arguments)
    if several_paths(groups):
        raise UsageError("more than one path", hint="for several files use: sifkit xattr list")
    image, (path,) = groups[0]
    from ..vfs.resolve import Resolver

    with open_for_reading(
        console, image, flags.partition, offset=flags.start, upper=flags.upper, overlays=flags.overlay or ()
    ) as opened:
        console.path = path
        value = xattrs_of(opened.tree, Resolver(opened.tree).lookup(path, follow=follow)).get(os.fsencode(name))
    if value is None:
        hint = "list them with: sifkit xattr list"
        raise SifkitError(f"{show(path)} has no attribute {show(name)}", path=path, hint=hint)
    console.write(value)
