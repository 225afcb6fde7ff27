"""``sifkit ln``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
from .console import Console
from .editing import ChangeOptions, Changes, Exact, Goal, Json, NewOwner, changing, goals, new_owner, one_image, warn_outside
from .embedding import DropSignatures, KeepSignatures, Partition, RequireLock, on_signatures
from .frame import verb
from .looking import Upper
from .mv import into
from .places import place

if TYPE_CHECKING:
    from ..overlay.whiteout import Editor, Spot

__all__ = ["command"]


@verb(
    examples=[
        "sifkit ln -s ../tool/bin/run overlay.img:/upper/bin/run",
        "sifkit ln -sf /opt/tool-2 overlay.img:/upper/opt/tool",
        "sifkit ln overlay.img:/upper/a overlay.img:/upper/b",
        "sifkit ln -s --partition overlay /opt/tool image.sif:/upper/tool",
    ]
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="TARGET... IMAGE:/PATH", help="with -s the text of the link, else IMAGE:/FILE; the new name"),
    ],
    symbolic: Annotated[bool, typer.Option("-s", "--symbolic", help="a symbolic link; TARGET may be anything")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="replace a file that is there")] = False,
    exact: Exact = False,
    owner: NewOwner = "",
    partition: Partition = None,
    upper: Upper = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    json: Json = False,
) -> int:
    """Make links in an image: hard ones, or with -s symbolic ones. The text of a symbolic link is kept as it is written: what
    the container sees, without upper/."""
    if len(arguments) < 2:
        raise UsageError(f"no IMAGE:/PATH behind {show(arguments[0])}", hint="write where the link is to be")
    *texts, last = arguments
    target = goals([last])[0]
    if symbolic:
        for text in texts:
            if place(text) is not None:
                path = place(text)
                assert path is not None
                raise UsageError(f"-s {show(text)}: a link holds a path, not an image", hint=f"write {show(path[1])}")
        sources = [Goal(target.image, os.fsencode(text), show(text)) for text in texts]
        image = target.image
    else:
        sources = goals(texts)
        image = one_image([target, *sources], "sifkit ln")
    who = new_owner(owner)
    options = ChangeOptions(
        partition=partition,
        upper=upper,
        signatures=on_signatures(drop_signatures, keep_broken_signatures),
        require_lock=require_lock,
    )
    changes = Changes(console)
    with changing(console, image, options) as editor:
        for source in sources:
            kind = "symbolic link" if symbolic else "hard link"
            with changes.attempt(f"failed to create {kind} '{target.shown}'", target):
                directory = None if exact else _directory(editor, target)
                if directory is None and len(sources) > 1:
                    changes.refuse(f"target '{target.shown}': Not a directory", target, kind="not-a-directory")
                    break
                _link(editor, changes, source, target, directory, symbolic=symbolic, force=force, who=who)
    return changes.finish(image, f"{counted(changes.done, 'link')} made", {"made": changes.done})


def _directory(editor: Editor, target: Goal) -> Spot | None:
    """Where the target leads, if that is a directory."""
    from ext3.errors import PathError

    try:
        found = editor.spot(target.path, follow=True)
    except PathError:  # also a link that leads to itself, which may be replaced
        return None
    return found if found.ino is not None and editor.stat(found.ino).is_dir else None


def _link(
    editor: Editor,
    changes: Changes,
    source: Goal,
    target: Goal,
    directory: Spot | None,
    *,
    symbolic: bool,
    force: bool,
    who: tuple[int, int],
) -> None:
    old = None if symbolic else editor.spot(source.path, follow=False)
    if old is not None and old.ino is None:
        changes.refuse(f"failed to access '{source.shown}': No such file or directory", source, kind="not-found")
        return
    if old is not None and old.ino is not None and editor.stat(old.ino).is_dir:
        changes.refuse(f"{source.shown}: hard link not allowed for directory", source, kind="is-a-directory")
        return
    goal = target
    if directory is not None:
        new, goal = into(editor, directory, target, source.path.rstrip(b"/").rpartition(b"/")[2] or b".")
    else:
        new = editor.spot(target.path, follow=False)
    kind, arrow = ("symbolic link", "->") if symbolic else ("hard link", "=>")
    with changes.attempt(f"failed to create {kind} '{goal.shown}'", goal):
        if new.ino is not None:
            if not force:
                text = f"failed to create {kind} '{goal.shown}': File exists"
                changes.refuse(text, goal, kind="exists", hint="-f replaces it")
                return
            if editor.stat(new.ino).is_dir:
                changes.refuse(f"'{goal.shown}': cannot overwrite directory", goal, kind="is-a-directory")
                return
            if old is not None and old.ino == new.ino:
                if old.place != new.place:
                    return  # they are links of one file already
                changes.refuse(f"'{source.shown}' and '{goal.shown}' are the same file", goal)
                return
        if new.ino is not None or new.whiteout:
            _check(editor, source.path if symbolic else b"", goal)
            editor.filesystem.unlink_at(*new.place)
        if old is None:
            editor.filesystem.symlink_at(source.path, *new.place, uid=who[0], gid=who[1])
        else:
            assert old.ino is not None
            editor.filesystem.link_at(old.ino, *new.place)
        warn_outside(changes.console, editor, new, goal)
        changes.each(f"'{goal.shown}' {arrow} '{source.shown}'")


def _check(editor: Editor, text: bytes, goal: Goal) -> None:
    """Raise what making the link would raise, before the old file goes."""
    import errno

    from ext3.errors import PathError

    if len(text) >= editor.filesystem.superblock.block_size:
        error = PathError(goal.path, "File name too long")
        error.errno = errno.ENAMETOOLONG
        raise error
