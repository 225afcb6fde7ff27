"""``sifkit xattr rm``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import counted, show
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
        "sifkit xattr rm user.comment overlay.img:/upper/notes",
        "sifkit xattr rm system.posix_acl_access image.sif:/shared",
    ],
)
def command(
    console: Console,
    *,
    name: AttributeName,
    arguments: EditArguments,
    follow: Dereference = False,
    flags: EditFlags,
) -> int:
    """Remove an extended attribute of files in an image."""
    targets = parse_image_paths(arguments)
    batch = EditBatch(console)

    def edit(editor: OverlayEditor, target: ImagePath) -> None:
        with batch.attempt(f"cannot remove {show(name)} of '{target.shown}'", target):
            ino = editor.lookup(target.path, follow=follow)
            editor.check_xattr(target.path, os.fsencode(name))
            editor.remove_xattr(ino, os.fsencode(name))
            batch.count(f"removed {show(name)} of '{target.shown}'")

    batch.run(targets, flags, edit)
    text = f"{show(name)} of {counted(batch.done, 'file')} removed"
    return batch.finish(targets[0].image, text, {"changed": batch.done})
