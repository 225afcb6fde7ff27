"""``sifkit chmod``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import counted
from .support.console import Console
from .support.editing import EditBatch, is_dangling
from .support.frame import VerbCommand, verb
from .support.image_path import ImagePath, parse_image_paths, reject_last_operand
from .support.modes import apply_mode, parse_mode
from .support.options import EditArguments, EditFlags, RecursiveChange

if TYPE_CHECKING:
    from ..overlay.edit.upper_edit import OverlayEditor

__all__ = ["command"]

_DASH_MODE = re.compile(r"-([rwxXst]+|[ugo])([-+=,].*)?")


class _ChmodCommand(VerbCommand):
    """Command whose mode may begin with a dash, as in ``chmod -w FILE``; no option looks like that."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for index, word in enumerate(args[:end]):
            if _DASH_MODE.fullmatch(word):
                return super().parse_args(ctx, [*args[:index], f"+,{word}", *args[index + 1 :]])  # a "+" alone does nothing
        return super().parse_args(ctx, args)


@verb(
    locks=True,
    examples=[
        "sifkit chmod 755 overlay.img:/upper/opt/run",
        "sifkit chmod -R u+rwX,go-w overlay.img:/upper/opt",
        "sifkit chmod g+s,o= overlay.img:/upper/shared",
        "sifkit chmod --overlay job-1.img a+rx image.sif:/opt/run",
    ],
    help_names=["--help"],
    kind=_ChmodCommand,
)
def command(
    console: Console,
    *,
    mode: Annotated[str, typer.Argument(metavar="MODE", help="octal (0755) or symbolic (u+x,go=rX)")],
    arguments: EditArguments,
    recursive: RecursiveChange = False,
    links: Annotated[bool, typer.Option("-h", "--no-dereference", help="skip symbolic links")] = False,
    flags: EditFlags,
) -> int:
    """Change the mode of files in an image, as chmod does.

    Symbolic links on the command line are followed, unless -h is given; links found with -R are skipped.
    """
    from ..atomic import current_umask

    reject_last_operand("chmod", mode, arguments, noun="mode")
    actions = parse_mode(mode)
    targets = parse_image_paths(arguments)
    mask = current_umask()
    batch = EditBatch(console)

    def edit(editor: OverlayEditor, target: ImagePath) -> None:
        if not links and is_dangling(editor, target):
            batch.refuse(f"cannot operate on dangling symlink '{target.shown}'", target, kind="not-found")
            return
        with batch.attempt(f"cannot access '{target.shown}'", target):
            for ino, shown in batch.expand(editor, target, follow=not links, recursive=recursive):
                found = editor.stat(ino)
                if found.is_symlink:
                    continue
                bits = apply_mode(actions, found.mode, is_dir=found.is_dir, mask=mask)
                if bits == found.mode & 0o7777:
                    continue
                with batch.attempt(f"changing permissions of '{shown}'", target):
                    editor.filesystem.chmod(editor.copy_up(ino), bits)
                    batch.count(f"mode of '{shown}' changed from {found.mode & 0o7777:04o} to {bits:04o}")

    batch.run(targets, flags, edit)
    return batch.finish(targets[0].image, f"mode of {counted(batch.done, 'file')} changed", {"changed": batch.done})
