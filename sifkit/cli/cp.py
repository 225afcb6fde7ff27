"""``sifkit cp``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..errors import UsageError, show
from .copy_in import copy_in
from .copy_out import copy_out
from .support import values
from .support.console import Console
from .support.copying import CopySettings
from .support.editing import EditBatch, new_owner
from .support.frame import verb
from .support.image_path import parse_image_paths, reject_dot_prefix, split_image_path
from .support.options import EditFlags, Exact, NewOwner, ProgressMode
from .support.progress import MODES, reporter

__all__ = ["command"]


@verb(
    examples=[
        "sifkit cp -a tool/ overlay.img:/upper/opt",
        "sifkit cp motd overlay.img:/upper/etc/motd",
        "sifkit cp -r overlay.img:/upper/opt/results .",
        "sifkit cp -a overlay.img:/upper/a overlay.img:/upper/b",
        "sifkit cp --partition overlay motd image.sif:/upper/etc/motd",
    ],
    own_letters="d",
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... TARGET", help="host paths or IMAGE:/PATH; TARGET is a new name or a directory"),
    ],
    archive: Annotated[
        bool, typer.Option("-a", "--archive", help="-r, and preserve mode, owner, times, extended attributes and hard links")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("-r", "-R", "--recursive", help="copy directories recursively, and symbolic links as such")
    ] = False,
    links: Annotated[bool, typer.Option("-P", "-d", "--no-dereference", help="copy symbolic links as such")] = False,
    preserve: Annotated[bool, typer.Option("-p", "--preserve", help="preserve mode, owner and times")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="remove host files that cannot be opened")] = False,
    keep: Annotated[bool, typer.Option("-n", "--no-clobber", help="do not overwrite existing files")] = False,
    exact: Exact = False,
    owner: NewOwner = "",
    flags: EditFlags,
    progress: ProgressMode = "auto",
) -> int:
    """Copy files into an image, out of an image, or within one. Holes are preserved. If an image lacks room for all files,
    none is copied.

    Paths in images are written IMAGE:/PATH, others are on the host. New files are owned by you, unless -p, -a or --owner is
    given. Directories copied out of an image always keep their mode, times and extended attributes.
    """
    values.choice("--progress", progress, MODES)
    if len(arguments) < 2:
        raise UsageError(f"missing TARGET after {show(arguments[0])}", hint="give a new name or a directory")
    if exact and len(arguments) > 2:
        raise UsageError("-T takes one source and a target", hint="omit -T to copy into a directory")

    from ..atomic import current_umask
    from ..overlay.copy_in import PRESERVE_ALL, PRESERVE_ATTRIBUTES, CopyOptions

    preserved = PRESERVE_ALL if archive else PRESERVE_ATTRIBUTES if preserve else frozenset[str]()
    copy = CopyOptions(
        recursive=recursive or archive,
        links=links or recursive or archive,
        preserve=preserved,
        replace=not keep,
        owner=new_owner(owner),
        umask=current_umask(),
    )
    settings = CopySettings(copy, flags, exact, follow=not copy.links)
    for argument in arguments:
        reject_dot_prefix(argument)
    *sources, target = arguments
    batch = EditBatch(console)
    with reporter(progress, console) as bar:
        if split_image_path(target) is not None or _names_missing_image(target):
            return copy_in(batch, sources, parse_image_paths([target])[0], settings, bar)
        if not any(split_image_path(source) for source in sources):
            for source in sources:
                if _names_missing_image(source):
                    parse_image_paths([source])
            raise UsageError(
                f"neither {show(sources[0])} nor {show(target)} is in an image",
                hint="write IMAGE:/PATH for a path in an image, for example overlay.img:/upper/opt",
            )
        return copy_out(batch, sources, target, settings, bar, force=force)


def _names_missing_image(argument: str) -> bool:
    """Return True if an argument reads as IMAGE:/PATH of an image that does not exist."""
    image, colon, _ = argument.partition(":/")
    return bool(colon and image) and not argument.startswith("./") and not os.path.lexists(f"{image}:")
