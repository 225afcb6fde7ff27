"""``sifkit xattr rm``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted, show
from .support.console import Console
from .support.editing import ChangeOptions, Changes, Goal, Json, goals
from .support.embedding import DropSignatures, KeepSignatures, Partition, RequireLock
from .support.frame import verb
from .support.reading import Upper

if TYPE_CHECKING:
    from ..overlay.upper_edit import OverlayEditor

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
    wanted = goals(arguments)
    options = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    changes = Changes(console)

    def change(editor: OverlayEditor, goal: Goal) -> None:
        with changes.attempt(f"cannot remove {show(name)} of '{goal.shown}'", goal):
            ino = editor.lookup(goal.path, follow=follow)
            editor.check_xattr(goal.path, os.fsencode(name))
            editor.filesystem.remove_xattr(ino, os.fsencode(name))
            changes.each(f"removed {show(name)} of '{goal.shown}'")

    changes.over(wanted, options, change)
    text = f"{show(name)} of {counted(changes.done, 'file')} removed"
    return changes.finish(wanted[0].image, text, {"changed": changes.done})
