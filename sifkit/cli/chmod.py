"""``sifkit chmod``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import counted
from .support.console import Console
from .support.editing import ChangeOptions, Changes, Goal, Json, dangling, goals, umask
from .support.embedding import DropSignatures, KeepSignatures, Partition, RequireLock
from .support.frame import VerbCommand, verb
from .support.modes import adjusted, parse_mode
from .support.reading import Upper

if TYPE_CHECKING:
    from ..overlay.upper_edit import OverlayEditor

__all__ = ["command"]


_TAKEN_AWAY = re.compile(r"-([rwxXst]+|[ugo])([-+=,].*)?")


class _ChmodCommand(VerbCommand):
    """A mode may begin with a dash, as in ``chmod -w FILE``; no option looks like that."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for index, word in enumerate(args[:end]):
            if _TAKEN_AWAY.fullmatch(word):
                return super().parse_args(ctx, [*args[:index], f"+,{word}", *args[index + 1 :]])  # a "+" alone does nothing
        return super().parse_args(ctx, args)


@verb(
    examples=[
        "sifkit chmod 755 overlay.img:/upper/opt/run",
        "sifkit chmod -R u+rwX,go-w overlay.img:/upper/opt",
        "sifkit chmod g+s,o= overlay.img:/upper/shared",
        "sifkit chmod --partition overlay a+rx image.sif:/upper/opt/run",
    ],
    kind=_ChmodCommand,
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
    options = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    changes = Changes(console)

    def change(editor: OverlayEditor, goal: Goal) -> None:
        if dangling(editor, goal):
            changes.refuse(f"cannot operate on dangling symlink '{goal.shown}'", goal, kind="not-found")
            return
        with changes.attempt(f"cannot access '{goal.shown}'", goal):
            for number, (ino, shown) in enumerate(changes.below(editor, goal, follow=True, recursive=recursive)):
                found = editor.stat(ino)
                if number and found.is_symlink:
                    continue
                bits = adjusted(steps, found.mode, is_dir=found.is_dir, mask=mask)
                if bits == found.mode & 0o7777:
                    continue
                with changes.attempt(f"changing permissions of '{shown}'", goal):
                    editor.filesystem.chmod(ino, bits)
                    changes.each(f"mode of '{shown}' changed from {found.mode & 0o7777:04o} to {bits:04o}")

    changes.over(wanted, options, change)
    return changes.finish(wanted[0].image, f"mode of {counted(changes.done, 'file')} set", {"changed": changes.done})
