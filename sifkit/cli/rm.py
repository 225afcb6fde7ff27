"""``sifkit rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
from .support.console import Console
from .support.editing import ChangeOptions, Changes, Goal, Json, goals
from .support.embedding import DropSignatures, KeepSignatures, Partition, RequireLock
from .support.frame import verb
from .support.reading import Upper
from .support.render import shell_word

if TYPE_CHECKING:
    from ..overlay.resolve import ResolvedPath
    from ..overlay.upper_edit import OverlayEditor

__all__ = ["command"]


@verb(
    examples=[
        "sifkit rm overlay.img:/upper/opt/x",
        "sifkit rm -rf overlay.img:/upper/var/cache overlay.img:/upper/tmp/build",
        "sifkit rm --upper overlay.img:/etc/motd",
        "sifkit rm -r --partition overlay image.sif:/upper/opt/x",
    ],
    taken="d",
)
def command(
    console: Console,
    *,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="IMAGE:/PATH...", help="what to remove")] = None,
    recursive: Annotated[bool, typer.Option("-r", "-R", "--recursive", help="directories and all that is in them")] = False,
    empty: Annotated[bool, typer.Option("-d", "--dir", help="empty directories")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="say nothing of what is not there")] = False,
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    json: Json = False,
) -> int:
    """Remove files in an image. Nobody is asked.

    With --upper a whiteout stays where lower layers may have a file of that name, so that the container does not see it; -f
    leaves one also for what only a lower layer has.
    """
    if not arguments and not force:
        raise UsageError("IMAGE:/PATH... is missing", hint="see sifkit rm -h")
    wanted = goals(arguments or [])
    options = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    changes = Changes(console)

    def remove(editor: OverlayEditor, goal: Goal) -> None:
        with changes.attempt(f"cannot remove '{goal.shown}'", goal):
            _remove(editor, changes, goal, recursive=recursive, force=force, empty=empty)

    changes.over(wanted, options, remove)
    left = f", {counted(changes.whiteouts, 'whiteout')} left" if changes.whiteouts else ""
    return changes.finish(
        wanted[0].image if wanted else None,
        f"{counted(changes.done, 'file')} removed{left}",
        {"removed": changes.done, "whiteouts": changes.whiteouts},
    )


def _remove(editor: OverlayEditor, changes: Changes, goal: Goal, *, recursive: bool, force: bool, empty: bool) -> None:
    if goal.path.rstrip(b"/").rpartition(b"/")[2] in (b".", b".."):
        changes.refuse(f"refusing to remove '.' or '..' directory: skipping '{goal.shown}'", goal)
        return
    spot = _found(editor, changes, goal, force)
    if spot is None:
        return
    what = "cannot remove"
    if spot.ino is None:
        if force and editor.upper:
            if editor.add_whiteout(spot):
                changes.each(f"hidden '{goal.shown}'")
        elif not force:
            hint = "-f hides what a lower layer has of this name" if editor.upper and not spot.whiteouts else ""
            changes.refuse(f"{what} '{goal.shown}': No such file or directory", goal, kind="not-found", hint=hint)
        return
    if not editor.stat(spot.ino).is_dir:
        editor.unlink(spot)
        changes.each(f"removed '{goal.shown}'")
        return
    if not recursive and empty:
        editor.remove_directory(spot)
        changes.each(f"removed directory '{goal.shown}'")
        return
    if not recursive:
        changes.refuse(f"{what} '{goal.shown}': Is a directory", goal, kind="is-a-directory", hint="-r removes directories")
        return
    if spot.name == b"":
        changes.refuse(f"{what} '{goal.shown}': it is the top of the image", goal, hint="name what is in it")
        return
    if goal.path.endswith(b"/") and editor.stat(editor.lookup(goal.path.rstrip(b"/"), follow=False)).is_symlink:
        changes.refuse(f"{what} '{goal.shown}': Not a directory", goal, kind="not-a-directory")
        return
    below = [(path, entry.file_type == 2) for path, entry in editor.walk(spot.ino)]
    editor.remove_tree(spot)
    for path, is_dir in reversed(below):
        changes.each(f"removed {'directory ' if is_dir else ''}'{goal.shown.rstrip('/')}/{show(path)}'")
    changes.each(f"removed directory '{goal.shown}'")


def _found(editor: OverlayEditor, changes: Changes, goal: Goal, force: bool) -> ResolvedPath | None:
    """Where it is; None where there is no directory on the way to it, and nobody minds."""
    from ext3.errors import PathNotDirectoryError, PathNotFoundError

    try:
        return editor.resolve(goal.path, follow=False)
    except (PathNotFoundError, PathNotDirectoryError):
        if not force:
            raise
    if editor.upper:
        above = show(goal.path.rstrip(b"/").rpartition(b"/")[0])
        options = " ".join(changes.console.image_options)
        hint = f"make it first: sifkit mkdir -p {options} {shell_word(goal.image)}:{above}"
        changes.refuse(f"cannot hide '{goal.shown}': upper/ has no directory {above}", goal, kind="not-found", hint=hint)
    return None
