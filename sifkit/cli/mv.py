"""``sifkit mv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
from .console import Console
from .editing import ChangeOptions, Changes, Exact, Goal, Json, changing, goals, one_image, warn_outside
from .embedding import DropSignatures, KeepSignatures, Partition, RequireLock, on_signatures
from .frame import verb
from .looking import Upper

if TYPE_CHECKING:
    from ..overlay.whiteout import Editor, Spot

__all__ = ["command", "into"]


@verb(
    examples=[
        "sifkit mv overlay.img:/upper/opt/old overlay.img:/upper/opt/new",
        "sifkit mv overlay.img:/opt overlay.img:/etc overlay.img:/upper",
        "sifkit mv --upper overlay.img:/opt/a overlay.img:/opt/b",
        "sifkit mv --partition overlay image.sif:/upper/a image.sif:/upper/b",
    ]
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE:/SOURCE... IMAGE:/TARGET", help="what to move, and its new name or directory")
    ],
    force: Annotated[bool, typer.Option("-f", "--force", help="replace what is there: as without it, nobody is asked")] = False,
    keep: Annotated[bool, typer.Option("-n", "--no-clobber", help="replace nothing")] = False,
    exact: Exact = False,
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    json: Json = False,
) -> int:
    """Move or rename files within an image.

    With --upper a whiteout stays where lower layers may have a file of the old name; a directory that moves shows what is in
    upper/ only.
    """
    wanted = goals(arguments)
    if len(wanted) < 2:
        raise UsageError(f"no TARGET behind {wanted[0].shown}", hint="write the new name, or a directory")
    if exact and len(wanted) > 2:
        raise UsageError("-T takes one source and a target", hint="leave -T out to move into a directory")
    image = one_image(wanted, "sifkit mv")
    *sources, target = wanted
    options = ChangeOptions(
        partition=partition,
        upper=upper,
        signatures=on_signatures(drop_signatures, keep_broken_signatures),
        require_lock=require_lock,
    )
    changes = Changes(console)
    with changing(console, image, options) as editor:
        goal = editor.spot(target.path, follow=True) if _is_there(editor, target) else None
        inside = not exact and goal is not None and goal.ino is not None and editor.stat(goal.ino).is_dir
        if len(sources) > 1 and not inside:
            reason = "No such file or directory" if goal is None or goal.ino is None else "Not a directory"
            changes.refuse(f"target '{target.shown}': {reason}", target)
            sources = []
        for source in sources:
            with changes.attempt(f"cannot move '{source.shown}' to '{target.shown}'", source):
                _move(editor, changes, source, target, goal if inside else None, keep=keep)
        whiteouts = editor.whiteouts
    left = f", {counted(whiteouts, 'whiteout')} left" if whiteouts else ""
    text = f"{counted(changes.done, 'file')} moved{left}"
    return changes.finish(image, text, {"moved": changes.done, "whiteouts": whiteouts})


def _is_there(editor: Editor, target: Goal) -> bool:
    from ext3.errors import PathError

    try:
        return editor.spot(target.path, follow=True).ino is not None
    except PathError:
        return False


def into(editor: Editor, directory: Spot, target: Goal, name: bytes) -> tuple[Spot, Goal]:
    """The place of ``name`` in the directory a target leads to, and how it is written."""
    shown = f"{target.shown.rstrip('/')}/{show(name)}"
    path = target.path.rstrip(b"/") + b"/" + name
    return editor.below(directory, name), Goal(target.image, path, shown)


def _move(editor: Editor, changes: Changes, source: Goal, target: Goal, directory: Spot | None, *, keep: bool) -> None:
    from ext3.errors import PathNotDirectoryError

    old = editor.spot(source.path, follow=False)
    if old.ino is None:
        changes.refuse(f"cannot stat '{source.shown}': No such file or directory", source, kind="not-found")
        return
    if old.name == b"" or old.shown in (b".", b".."):
        changes.refuse(f"cannot move '{source.shown}': Device or resource busy", source)
        return
    is_dir = editor.stat(old.ino).is_dir
    place = target
    if directory is not None:
        new, place = into(editor, directory, target, old.shown)
    else:
        new = editor.spot(target.path.rstrip(b"/") or b"/", follow=False)
        if target.path.endswith(b"/") and not is_dir:
            raise PathNotDirectoryError(target.path, "Not a directory")
    there = None if new.ino is None else editor.stat(new.ino)
    if there is not None and keep:
        return
    what = f"cannot move '{source.shown}' to '{place.shown}'"
    if there is not None and there.ino == old.ino:
        changes.refuse(f"'{source.shown}' and '{place.shown}' are the same file", source)
    elif is_dir and old.ino in new.way:
        changes.refuse(f"cannot move '{source.shown}' to a subdirectory of itself, '{place.shown}'", source)
    elif there is not None and is_dir and not there.is_dir:
        text = f"cannot overwrite non-directory '{place.shown}' with directory '{source.shown}'"
        changes.refuse(text, source, kind="not-a-directory")
    elif there is not None and there.is_dir and not is_dir:
        text = f"cannot overwrite directory '{place.shown}' with non-directory '{source.shown}'"
        changes.refuse(text, source, kind="is-a-directory")
    else:
        with changes.attempt(what, source):
            editor.move(old, new)
            warn_outside(changes.console, editor, new, place)
            changes.each(f"renamed '{source.shown}' -> '{place.shown}'")
