"""``sifkit xattr rm``."""

from __future__ import annotations

import os
from itertools import groupby
from typing import Annotated

import typer

from ..errors import counted, show
from .console import Console
from .editing import ChangeOptions, Changes, Json, changing, goals
from .embedding import DropSignatures, KeepSignatures, Partition, RequireLock, on_signatures
from .frame import verb
from .looking import Upper

__all__ = ["command"]


@verb(
    examples=[
        "sifkit xattr rm user.comment overlay.img:/upper/notes",
        "sifkit xattr rm --partition overlay system.posix_acl_access image.sif:/upper/shared",
    ]
)
def command(
    console: Console,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="the attribute, for example user.comment")],
    arguments: Annotated[list[str], typer.Argument(metavar="IMAGE:/PATH...", help="files and directories")],
    follow: Annotated[bool, typer.Option("-L", "--dereference", help="of links, take the file they lead to")] = False,
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    json: Json = False,
) -> int:
    """Remove an extended attribute of files in an image."""
    from ext3.errors import PathNotFoundError

    wanted = goals(arguments)
    options = ChangeOptions(
        partition=partition,
        upper=upper,
        signatures=on_signatures(drop_signatures, keep_broken_signatures),
        require_lock=require_lock,
    )
    changes = Changes(console)
    for image, group in groupby(wanted, key=lambda goal: goal.image):
        with changing(console, image, options) as editor:
            for goal in group:
                with changes.attempt(f"cannot remove {show(name)} of '{goal.shown}'", goal):
                    spot = editor.spot(goal.path, follow=follow)
                    if spot.ino is None:
                        raise PathNotFoundError(goal.path, "No such file or directory")
                    editor.filesystem.remove_xattr(spot.ino, os.fsencode(name))
                    changes.each(f"removed {show(name)} of '{goal.shown}'")
    text = f"{show(name)} of {counted(changes.done, 'file')} removed"
    return changes.finish(wanted[0].image, text, {"changed": changes.done})
