"""``sifkit chmod``."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted, show
from .console import Console
from .editing import ChangeOptions, Changes, Goal, Json, changing, goals, umask
from .embedding import DropSignatures, KeepSignatures, Partition, RequireLock, on_signatures
from .frame import verb
from .looking import Upper
from .modes import Change, adjusted, parse_mode

if TYPE_CHECKING:
    from ..overlay.whiteout import Editor

__all__ = ["command"]


@verb(
    examples=[
        "sifkit chmod 755 overlay.img:/upper/opt/run",
        "sifkit chmod -R u+rwX,go-w overlay.img:/upper/opt",
        "sifkit chmod g+s,o= overlay.img:/upper/shared",
        "sifkit chmod --partition overlay a+rx image.sif:/upper/opt/run",
    ]
)
def command(
    console: Console,
    *,
    mode: Annotated[str, typer.Argument(metavar="MODE", help="octal (0755) or symbolic (u+x,go=rX)")],
    arguments: Annotated[list[str], typer.Argument(metavar="IMAGE:/PATH...", help="files and directories")],
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="all that is in directories, too")] = False,
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    json: Json = False,
) -> int:
    """Change permissions in an image, as chmod does. Links are followed where they are named, and left alone with -R."""
    steps = parse_mode(mode)
    wanted = goals(arguments)
    mask = umask()
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
                _change(editor, changes, goal, steps, mask, recursive)
    return changes.finish(wanted[0].image, f"mode of {counted(changes.done, 'file')} set", {"changed": changes.done})


def _change(editor: Editor, changes: Changes, goal: Goal, steps: tuple[Change, ...], mask: int, recursive: bool) -> None:
    from ext3.errors import PathNotFoundError

    def one(ino: int, shown: str) -> None:
        found = editor.stat(ino)
        bits = adjusted(steps, found.mode, is_dir=found.is_dir, mask=mask)
        if bits != found.mode & 0o7777:
            with changes.attempt(f"changing permissions of '{shown}'", goal):
                editor.filesystem.chmod(ino, bits)
                changes.each(f"mode of '{shown}' changed from {found.mode & 0o7777:04o} to {bits:04o}")

    with changes.attempt(f"cannot access '{goal.shown}'", goal):
        spot = editor.spot(goal.path, follow=True)
        if spot.ino is None:
            raise PathNotFoundError(goal.path, "No such file or directory")
        below = []
        if recursive and editor.stat(spot.ino).is_dir:
            below = [(path, entry.ino) for path, entry in editor.filesystem.walk(spot.ino)]
        one(spot.ino, goal.shown)
        for path, ino in below:
            if not editor.stat(ino).is_symlink:
                one(ino, f"{goal.shown.rstrip('/')}/{show(path)}")
