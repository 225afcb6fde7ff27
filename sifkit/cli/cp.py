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
from .support.editing import ChangeOptions, Changes, Exact, Json, NewOwner, goals, new_owner, umask
from .support.embedding import DropSignatures, KeepSignatures, Partition, RequireLock
from .support.frame import verb
from .support.image_path import check_not_dotted, place
from .support.progress import MODES, reporter
from .support.reading import Upper

__all__ = ["command"]


@verb(
    examples=[
        "sifkit cp -a tool/ overlay.img:/upper/opt",
        "sifkit cp motd overlay.img:/upper/etc/motd",
        "sifkit cp -r overlay.img:/upper/opt/results .",
        "sifkit cp -a overlay.img:/upper/a overlay.img:/upper/b",
        "sifkit cp --partition overlay motd image.sif:/upper/etc/motd",
    ],
    taken="d",
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... TARGET", help="files of the host, or IMAGE:/PATH; TARGET: a new name or a directory"),
    ],
    archive: Annotated[
        bool, typer.Option("-a", "--archive", help="-r, and all of mode, owner, times, attributes, hard links")
    ] = False,
    recursive: Annotated[bool, typer.Option("-r", "-R", "--recursive", help="directories, and links as links")] = False,
    links: Annotated[bool, typer.Option("-P", "-d", "--no-dereference", help="links as links, without -r too")] = False,
    preserve: Annotated[bool, typer.Option("-p", "--preserve", help="keep mode, owner and times")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="remove a file on the host that cannot be opened")] = False,
    keep: Annotated[bool, typer.Option("-n", "--no-clobber", help="leave files that are there as they are")] = False,
    exact: Exact = False,
    owner: NewOwner = "",
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    progress: Annotated[str, typer.Option("--progress", metavar="|".join(MODES), help="how to tell how far it is")] = "auto",
    json: Json = False,
) -> int:
    """Copy files into an image, out of one, or within one. Holes stay holes. Where an image has not room for all, nothing is
    copied into it.

    SOURCE and TARGET are as cp has them; what is written IMAGE:/PATH is in an image. New files belong to you unless -p, -a or
    --owner say else. Out of an image directories keep modes, times and attributes always.
    """
    values.choice("--progress", progress, MODES)
    if len(arguments) < 2:
        raise UsageError(f"no TARGET behind {show(arguments[0])}", hint="write where the copy is to be")
    if exact and len(arguments) > 2:
        raise UsageError("-T takes one source and a target", hint="leave -T out to copy into a directory")

    from ..overlay.copy_in import PRESERVE_ALL, PRESERVE_ATTRIBUTES, CopyOptions

    kept = PRESERVE_ALL if archive else PRESERVE_ATTRIBUTES if preserve else frozenset[str]()
    copy = CopyOptions(
        recursive=recursive or archive,
        links=links or recursive or archive,
        preserve=kept,
        replace=not keep,
        owner=new_owner(owner),
        umask=umask(),
    )
    change = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    settings = CopySettings(copy, change, exact, follow=not copy.links)
    for argument in arguments:
        check_not_dotted(argument)
    *sources, target = arguments
    changes = Changes(console)
    with reporter(progress, console) as bar:
        if place(target) is not None or _is_missing_image(target):
            return copy_in(changes, sources, goals([target])[0], settings, bar)
        if not any(place(source) for source in sources):
            for source in sources:
                if _is_missing_image(source):
                    goals([source])
            raise UsageError(
                f"neither {show(sources[0])} nor {show(target)} is in an image",
                hint="write IMAGE:/PATH for what is in one, for example overlay.img:/upper/opt",
            )
        return copy_out(changes, sources, target, settings, bar, force=force)


def _is_missing_image(argument: str) -> bool:
    """Whether it looks like IMAGE:/PATH of an image that is not there."""
    image, colon, _ = argument.partition(":/")
    return bool(colon and image) and not argument.startswith("./") and not os.path.lexists(f"{image}:")
