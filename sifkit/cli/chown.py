"""``sifkit chown``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted
from .support import values
from .support.console import Console
from .support.editing import EditBatch, is_dangling
from .support.frame import verb
from .support.image_path import ImagePath, parse_image_paths, reject_last_operand
from .support.options import EditArguments, EditFlags, RecursiveChange

if TYPE_CHECKING:
    from ..overlay.edit.upper_edit import OverlayEditor

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit chown -R 1000:1000 overlay.img:/upper",
        "sifkit chown -R me overlay.img:/upper overlay.img:/work",
        "sifkit chown root: overlay.img:/upper/usr/bin/tool",
        "sifkit chown :100 image.sif:/shared",
    ],
    help_names=["--help"],
)
def command(
    console: Console,
    *,
    owner: Annotated[str, typer.Argument(metavar="OWNER[:GROUP]", help="IDs, names known on this host, or me for yourself")],
    arguments: EditArguments,
    recursive: RecursiveChange = False,
    links: Annotated[
        bool, typer.Option("-h", "--no-dereference", help="change symbolic links instead of their targets")
    ] = False,
    flags: EditFlags,
) -> int:
    """Change the owner of files in an image, for example to hand an overlay to a colleague.

    OWNER: (with a colon and no group) also sets the owner's login group, :GROUP only the group. Set-user-ID and set-group-ID
    bits are cleared, as by chown. With -R symbolic links are changed themselves.
    """
    reject_last_operand("chown", owner, arguments, noun="owner")
    uid, gid = values.owner_change("OWNER", owner)
    targets = parse_image_paths(arguments)
    batch = EditBatch(console)

    def edit(editor: OverlayEditor, target: ImagePath) -> None:
        follow = not (links or recursive)
        word = "dereference" if follow and is_dangling(editor, target) else "access"
        with batch.attempt(f"cannot {word} '{target.shown}'", target):
            for ino, shown in batch.expand(editor, target, follow=follow, recursive=recursive):
                found = editor.stat(ino)
                if uid in (None, found.uid) and gid in (None, found.gid):
                    continue
                with batch.attempt(f"changing ownership of '{shown}'", target):
                    editor.filesystem.chown(editor.copy_up(ino), uid, gid)
                    now = editor.stat(ino)
                    batch.count(f"owner of '{shown}' changed from {found.uid}:{found.gid} to {now.uid}:{now.gid}")

    batch.run(targets, flags, edit)
    text = f"owner of {counted(batch.done, 'file')} changed"
    return batch.finish(targets[0].image, text, {"changed": batch.done, "uid": uid, "gid": gid})
