"""``sifkit overlay chown``."""

from __future__ import annotations

import os
import stat
from typing import Annotated

import typer

from ...errors import counted, shell_quote, show
from ..support import values
from ..support.console import Console
from ..support.editing import open_filesystem_for_editing
from ..support.frame import verb
from ..support.image_path import reject_swapped
from ..support.options import FilesystemEditFlags

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay chown 1000:1000 overlay.img",
        "sifkit overlay chown me overlay.img",
        "sifkit overlay chown --from 1000:1000 1001:1001 overlay.img",
    ],
)
def command(
    console: Console,
    *,
    owner: Annotated[str, typer.Argument(metavar="OWNER[:GROUP]", help="IDs, names known on this host, or me for yourself")],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image, or SIF image with one")],
    old: Annotated[
        str, typer.Option("--from", metavar="OWNER[:GROUP]", help="change only files that belong to this owner and group")
    ] = "",
    flags: FilesystemEditFlags,
) -> None:
    """Hand an overlay over: change the owner of upper/ and work/ and of everything in them.

    The image file itself keeps its owner; the commands that hand it over on this host are printed. OWNER: (with a colon and no
    group) also sets the owner's login group, :GROUP only the group.
    """
    from ...overlay.ownership import OwnerChange, change_owner

    reject_swapped("overlay chown", owner, image, image=image, fault="the owner comes before the image")
    uid, gid = values.owner_change("OWNER", owner)
    before = values.owner_change("--from", old) if old else (None, None)
    with open_filesystem_for_editing(console, image, flags) as editor:
        changed = change_owner(editor.filesystem, OwnerChange(uid, gid, before))
    if flags.json:
        console.emit({"changed": changed, "uid": uid, "gid": gid}, image=image)
    else:
        console.result(f"{show(image)}: owner of {counted(changed, 'file')} changed")
    _print_host_commands(console, image, uid, gid)


def _print_host_commands(console: Console, image: str, uid: int | None, gid: int | None) -> None:
    """Print the commands that make the image file itself writable for the new owner."""
    found = os.stat(image)
    name = shell_quote(image)
    commands = []
    if uid not in (None, found.st_uid) or gid not in (None, found.st_gid):
        new = f"{'' if uid is None else uid}{'' if gid is None else f':{gid}'}"
        commands.append(f"chown {new} {name}")
    if uid is not None and not found.st_mode & stat.S_IWUSR:
        commands.append(f"chmod u+rw {name}")
    if commands:
        console.note(f"the file itself keeps its owner and mode; to hand it over: {' && '.join(commands)}")
