"""``sifkit chown``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
from .support import values
from .support.console import Console
from .support.editing import ChangeOptions, Changes, Goal, Json, dangling, goals
from .support.embedding import DropSignatures, KeepSignatures, Partition, RequireLock
from .support.frame import verb
from .support.reading import Upper

if TYPE_CHECKING:
    from ..overlay.upper_edit import OverlayEditor

__all__ = ["command"]


@verb(
    examples=[
        "sifkit chown -R 1000:1000 overlay.img:/upper",
        "sifkit chown -R me overlay.img:/upper overlay.img:/work",
        "sifkit chown root: overlay.img:/upper/usr/bin/tool",
        "sifkit chown --partition overlay :100 image.sif:/upper/shared",
    ],
)
def command(
    console: Console,
    *,
    owner: Annotated[str, typer.Argument(metavar="OWNER[:GROUP]", help="numbers, names this host knows, :GROUP alone, or me")],
    arguments: Annotated[list[str], typer.Argument(metavar="IMAGE:/PATH...", help="files and directories")],
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="all that is in directories, too")] = False,
    links: Annotated[bool, typer.Option("--no-dereference", help="of links, change the link itself")] = False,
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    json: Json = False,
) -> int:
    """Change the owner of files in an image: hand an overlay to a colleague, or take over one that was made under fakeroot.

    OWNER: also takes the owner's own group. Set-id bits of files go, as with chown. With -R links are changed themselves.
    """
    uid, gid = _owner(owner)
    wanted = goals(arguments)
    options = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    changes = Changes(console)

    def change(editor: OverlayEditor, goal: Goal) -> None:
        follow = not (links or recursive)
        word = "dereference" if follow and dangling(editor, goal) else "access"
        with changes.attempt(f"cannot {word} '{goal.shown}'", goal):
            for ino, shown in changes.below(editor, goal, follow=follow, recursive=recursive):
                found = editor.stat(ino)
                if uid in (None, found.uid) and gid in (None, found.gid):
                    continue
                with changes.attempt(f"changing ownership of '{shown}'", goal):
                    editor.filesystem.chown(ino, uid, gid)
                    now = editor.stat(ino)
                    changes.each(f"owner of '{shown}' changed from {found.uid}:{found.gid} to {now.uid}:{now.gid}")

    changes.over(wanted, options, change)
    text = f"owner of {counted(changes.done, 'file')} set"
    return changes.finish(wanted[0].image, text, {"changed": changes.done, "uid": uid, "gid": gid})


def _owner(text: str) -> tuple[int | None, int | None]:
    """(uid, gid), None for what stays. Raises UsageError."""
    if text == "me":
        return values.owner("OWNER", text)
    user, colon, group = text.partition(":")
    if not user and not group:
        raise UsageError(f"OWNER {show(text)}: names nobody", hint="write UID:GID, NAME, NAME:GROUP, :GROUP or me")
    if colon and not group and user.isdigit():
        hint = f"name a group, too: {show(text)}{show(user)}"
        raise UsageError(f"invalid spec: '{show(text)}': a number has no group of its own", hint=hint)
    uid, own = values.owner("OWNER", user) if user else (None, None)
    if group:
        return uid, values.group("OWNER", text, group)
    return uid, own if colon else None
