"""``sifkit xattr get``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..errors import SifkitError, UsageError, show
from .support.console import Console
from .support.embedding import Partition
from .support.frame import verb
from .support.image_path import places
from .support.reading import Upper, looking

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
    name: Annotated[str, typer.Argument(metavar="NAME", help="the attribute, for example user.comment")],
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE PATH", help="an ext3 image and a path in it; or IMAGE:/PATH")
    ],
    follow: Annotated[bool, typer.Option("-L", "--dereference", help="of a link, take the file it leads to")] = False,
    partition: Partition = None,
    upper: Upper = False,
) -> None:
    """Write the value of an extended attribute to standard output, unchanged; ACLs in the form the kernel's calls use."""
    wanted = places(arguments)
    if len(wanted) != 1 or len(wanted[0][1]) != 1:
        raise UsageError("one path at a time", hint="sifkit xattr list shows the attributes of several files")
    image, (path,) = wanted[0]
    with looking(console, image, partition, upper=upper) as view:
        value = view.filesystem.xattrs(view.lookup(path, follow=follow)).get(os.fsencode(name))
    if value is None:
        hint = "sifkit xattr list shows which there are"
        raise SifkitError(f"{show(path)} has no attribute {show(name)}", path=path, hint=hint)
    console.write(value)
