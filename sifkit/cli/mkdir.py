"""``sifkit mkdir``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted, show
from .support.console import Console
from .support.editing import ChangeOptions, Changes, Goal, Json, NewOwner, goals, new_owner, umask, warn_outside
from .support.embedding import DropSignatures, KeepSignatures, Partition, RequireLock
from .support.frame import verb
from .support.modes import adjusted, parse_mode
from .support.reading import Upper

if TYPE_CHECKING:
    from ..overlay.upper_edit import OverlayEditor

__all__ = ["command"]


@verb(
    examples=[
        "sifkit mkdir -p overlay.img:/upper/opt/tool/data",
        "sifkit mkdir -m 2775 --owner 1000:1000 overlay.img:/upper/shared",
        "sifkit mkdir -p --upper overlay.img:/opt/tool",
        "sifkit mkdir --partition overlay image.sif:/upper/opt",
    ]
)
def command(
    console: Console,
    *,
    arguments: Annotated[list[str], typer.Argument(metavar="IMAGE:/PATH...", help="the directories to make")],
    parents: Annotated[bool, typer.Option("-p", "--parents", help="those above it too; what is there already is fine")] = False,
    mode: Annotated[str, typer.Option("-m", "--mode", metavar="MODE", help="as chmod has it (default: by the umask)")] = "",
    owner: NewOwner = "",
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    json: Json = False,
) -> int:
    """Make directories in an image."""
    wanted = goals(arguments)
    mask = umask()
    exact = adjusted(parse_mode(mode, "--mode"), 0o777, is_dir=True, mask=mask) if mode else None
    who = new_owner(owner)
    options = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    changes = Changes(console)

    def make(editor: OverlayEditor, goal: Goal) -> None:
        if parents:
            _make_all(editor, changes, goal, exact, mask, who)
            return
        with changes.attempt(f"cannot create directory '{goal.shown}'", goal), _hinting():
            _make(editor, changes, goal, goal.path, exact, mask, who)

    changes.over(wanted, options, make)
    text = f"{counted(changes.done, 'directory', 'directories')} made"
    return changes.finish(wanted[0].image, text, {"made": changes.done})


@contextmanager
def _hinting() -> Iterator[None]:
    """What helps where the directory above is missing is said with it."""
    from ext3.errors import PathNotFoundError

    try:
        yield
    except PathNotFoundError as error:
        error.hint = error.hint or "-p makes those above it, too"
        raise


def _make(
    editor: OverlayEditor, changes: Changes, goal: Goal, path: bytes, exact: int | None, mask: int, who: tuple[int, int]
) -> None:
    """One directory, of the mode ``exact`` whatever its parent's default ACL says, or as ``mask`` and that ACL let it be."""
    from ext3.errors import PathExistsError

    spot = editor.resolve(path.rstrip(b"/") or b"/", follow=False)
    if spot.ino is not None:
        raise PathExistsError(path, "File exists")
    warn_outside(changes.console, editor, spot, goal)
    ino = editor.make_directory(spot, 0o777 if exact is None else exact & 0o777, uid=who[0], gid=who[1], umask=mask)
    if exact is not None:
        editor.filesystem.chmod(ino, exact | editor.stat(ino).mode & 0o2000)
    shown = goal.shown if path == goal.path else f"{show(goal.image)}:{show(path)}"
    changes.each(f"created directory '{shown}'")


def _make_all(editor: OverlayEditor, changes: Changes, goal: Goal, exact: int | None, mask: int, who: tuple[int, int]) -> None:
    """Each directory on the way that is not there; trouble names the first that cannot be."""
    from ext3.errors import PathExistsError, PathNotDirectoryError

    names = [name for name in goal.path.split(b"/") if name]
    for count in range(1, len(names) + 1):
        path = b"/" + b"/".join(names[:count])
        last = count == len(names)
        shown = goal.shown if last else f"{show(goal.image)}:{show(path)}"
        before = len(changes.errors)
        with changes.attempt(f"cannot create directory '{shown}'", goal):
            spot = editor.resolve(path, follow=False)
            if spot.ino is None:
                _make(
                    editor,
                    changes,
                    goal,
                    goal.path if last else path,
                    exact if last else None,
                    mask if last else mask & ~0o300,
                    who,
                )
                continue
            found = editor.resolve(path, follow=True)
            if found.ino is None:  # a link that leads nowhere
                raise PathExistsError(path, "File exists")
            if not editor.stat(found.ino).is_dir:
                raise PathExistsError(path, "File exists") if last else PathNotDirectoryError(path, "Not a directory")
        if len(changes.errors) > before:
            return
