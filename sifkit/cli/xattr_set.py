"""``sifkit xattr set``."""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
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
        "sifkit xattr set user.comment 'made by hand' overlay.img:/upper/notes",
        "sifkit xattr set trusted.overlay.opaque y overlay.img:/upper/opt",
        "sifkit xattr set user.raw 0x00ff10 overlay.img:/upper/notes",
    ],
    may_be_empty=("value",),
)
def command(
    console: Console,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="the attribute, for example user.comment")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="text; 0x... is hexadecimal, 0s... base64")],
    arguments: Annotated[list[str], typer.Argument(metavar="IMAGE:/PATH...", help="files and directories")],
    follow: Annotated[bool, typer.Option("-L", "--dereference", help="of links, take the file they lead to")] = False,
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    json: Json = False,
) -> int:
    """Set an extended attribute of files in an image. ACLs are in the form the kernel's calls use; the mode follows them."""
    data = _value(value)
    wanted = goals(arguments)
    options = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    changes = Changes(console)

    def change(editor: OverlayEditor, goal: Goal) -> None:
        with changes.attempt(f"cannot set {show(name)} of '{goal.shown}'", goal):
            ino = editor.lookup(goal.path, follow=follow)
            editor.check_xattr(goal.path, os.fsencode(name))
            editor.filesystem.set_xattr(ino, os.fsencode(name), data)
            changes.each(f"set {show(name)} of '{goal.shown}'")

    changes.over(wanted, options, change)
    text = f"{show(name)} of {counted(changes.done, 'file')} set"
    return changes.finish(wanted[0].image, text, {"changed": changes.done})


def _value(text: str) -> bytes:
    hint = "write text, 0x and hexadecimal digits, or 0s and base64"
    try:
        if text[:2].lower() == "0x":
            return bytes.fromhex(text[2:])
        if text[:2].lower() == "0s":
            return base64.b64decode(text[2:], validate=True)
    except (ValueError, binascii.Error) as error:
        raise UsageError(f"VALUE {show(text)}: neither hexadecimal nor base64", hint=hint) from error
    return os.fsencode(text)
