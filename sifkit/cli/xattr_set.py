"""``sifkit xattr set``."""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
from .support.console import Console
from .support.editing import EditBatch
from .support.frame import verb
from .support.image_path import ImagePath, parse_image_paths
from .support.options import AttributeName, Dereference, EditArguments, EditFlags

if TYPE_CHECKING:
    from ..overlay.edit.upper_edit import OverlayEditor

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit xattr set user.comment 'made by hand' overlay.img:/upper/notes",
        "sifkit xattr set trusted.overlay.opaque y overlay.img:/upper/opt",
        "sifkit xattr set user.raw 0x00ff10 overlay.img:/upper/notes",
    ],
    allow_empty=("value",),
)
def command(
    console: Console,
    *,
    name: AttributeName,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="text, 0x and hexadecimal digits, or 0s and base64")],
    arguments: EditArguments,
    follow: Dereference = False,
    flags: EditFlags,
) -> int:
    """Set an extended attribute of files in an image.

    ACLs are given in the format of setxattr(2), and change the mode accordingly.
    """
    data = _parse_value(value)
    targets = parse_image_paths(arguments)
    batch = EditBatch(console)

    def edit(editor: OverlayEditor, target: ImagePath) -> None:
        with batch.attempt(f"cannot set {show(name)} of '{target.shown}'", target):
            ino = editor.lookup(target.path, follow=follow)
            editor.check_xattr(target.path, os.fsencode(name))
            editor.filesystem.set_xattr(editor.copy_up(ino), os.fsencode(name), data)
            batch.count(f"set {show(name)} of '{target.shown}'")

    batch.run(targets, flags, edit)
    text = f"{show(name)} of {counted(batch.done, 'file')} set"
    return batch.finish(targets[0].image, text, {"changed": batch.done})


def _parse_value(text: str) -> bytes:
    """Parse VALUE. Raises UsageError."""
    hint = "write text, 0x and hexadecimal digits, or 0s and base64"
    try:
        if text[:2].lower() == "0x":
            return bytes.fromhex(text[2:])
        if text[:2].lower() == "0s":
            return base64.b64decode(text[2:], validate=True)
    except (ValueError, binascii.Error) as error:
        raise UsageError(f"VALUE {show(text)}: neither hexadecimal nor base64", hint=hint) from error
    return os.fsencode(text)
