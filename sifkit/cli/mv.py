"""``sifkit mv``."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
from .support.console import Console
from .support.editing import ChangeOptions, Changes, Exact, Goal, Json, changing, goals, one_image, warn_outside
from .support.embedding import DropSignatures, KeepSignatures, Partition, RequireLock
from .support.frame import verb
from .support.reading import Upper

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ..overlay.resolve import ResolvedPath
    from ..overlay.upper_edit import OverlayEditor

__all__ = ["command", "directory_at", "into"]


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
    options = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    changes = Changes(console)
    with changing(console, image, options) as editor:
        mover = _Mover(editor, changes, target, exact=exact, keep=keep)
        if len(sources) > 1 and mover.directory is None:
            changes.refuse(f"target '{target.shown}': {mover.why_none}", target)
            sources = []
        for source in sources:
            with changes.attempt(f"cannot stat '{source.shown}'", source):
                mover.move(source)
        whiteouts = editor.whiteouts
    left = f", {counted(whiteouts, 'whiteout')} left" if whiteouts else ""
    text = f"{counted(changes.done, 'file')} moved{left}"
    return changes.finish(image, text, {"moved": changes.done, "whiteouts": whiteouts})


def into(editor: OverlayEditor, directory: ResolvedPath, target: Goal, name: bytes) -> tuple[ResolvedPath, Goal]:
    """The place of ``name`` in the directory a target leads to, and how it is written."""
    shown = f"{target.shown.rstrip('/')}/{show(name)}"
    path = target.path.rstrip(b"/") + b"/" + name
    return editor.child(directory, name), Goal(target.image, path, shown)


class _Mover:
    def __init__(self, editor: OverlayEditor, changes: Changes, target: Goal, *, exact: bool, keep: bool) -> None:
        self.editor = editor
        self.changes = changes
        self.target = target
        self.keep = keep
        self.directory, self.why_none = (None, "") if exact else directory_at(editor, target)
        self._made: set[tuple[int, bytes]] = set()

    def move(self, source: Goal) -> None:
        """Move one. PathError where the source cannot be found."""
        from ext3.errors import PathNotFoundError

        editor, changes = self.editor, self.changes
        last = source.path.rstrip(b"/").rpartition(b"/")[2]
        if last in (b"", b".", b".."):
            changes.refuse(f"cannot move '{source.shown}' to '{self.target.shown}': Device or resource busy", source)
            return
        old = editor.resolve(source.path, follow=False)
        if old.ino is None:
            raise PathNotFoundError(source.path, "No such file or directory")
        is_dir = editor.stat(old.ino).is_dir
        with changes.attempt(f"cannot move '{source.shown}' to '{self.target.shown}'", source):
            found = self._place(source, last, is_dir)
            if found is not None:
                self._move(source, old, *found, is_dir=is_dir)

    def _place(self, source: Goal, name: bytes, is_dir: bool) -> tuple[ResolvedPath, Goal] | None:
        """Where it goes; None where it cannot, which is told."""
        from ext3.errors import PathNotDirectoryError

        editor, target = self.editor, self.target
        plain = source.path.rstrip(b"/")
        if plain != source.path and editor.stat(editor.lookup(plain, follow=False)).is_symlink:
            raise PathNotDirectoryError(source.path, "Not a directory")  # as the kernel has it
        if self.directory is not None:
            return into(editor, self.directory, target, name)
        spot = editor.resolve(target.path.rstrip(b"/") or b"/", follow=False)
        if target.path.endswith(b"/") and spot.ino is not None and not editor.stat(spot.ino).is_dir:
            self.changes.refuse(f"cannot stat '{target.shown}': Not a directory", target, kind="not-a-directory")
            return None
        if target.path.endswith(b"/") and not is_dir:
            raise PathNotDirectoryError(target.path, "Not a directory")
        return spot, target

    def _move(self, source: Goal, old: ResolvedPath, new: ResolvedPath, goal: Goal, *, is_dir: bool) -> None:
        editor, changes = self.editor, self.changes
        assert old.ino is not None
        there = None if new.ino is None else editor.stat(new.ino)
        if there is not None and self.keep:
            return
        if there is not None and self._is_same(source, old, new, there):
            changes.refuse(f"'{source.shown}' and '{goal.shown}' are the same file", source)
        elif is_dir and old.ino in new.ancestors:
            changes.refuse(f"cannot move '{source.shown}' to a subdirectory of itself, '{goal.shown}'", source)
        elif there is not None and there.is_dir and not is_dir:
            text = f"cannot overwrite directory '{goal.shown}' with non-directory '{source.shown}'"
            changes.refuse(text, source, kind="is-a-directory")
        elif there is not None and not there.is_dir and new.location in self._made:
            changes.refuse(f"will not overwrite just-created '{goal.shown}' with '{source.shown}'", source, kind="exists")
        elif there is not None and is_dir and not there.is_dir:
            text = f"cannot overwrite non-directory '{goal.shown}' with directory '{source.shown}'"
            changes.refuse(text, source, kind="not-a-directory")
        else:
            with changes.attempt(f"cannot move '{source.shown}' to '{goal.shown}'", source):
                editor.rename(old, new)
                self._made.add(new.location)
                warn_outside(changes.console, editor, new, goal)
                changes.each(f"renamed '{source.shown}' -> '{goal.shown}'")

    def _is_same(self, source: Goal, old: ResolvedPath, new: ResolvedPath, there: Stat) -> bool:
        """Whether a move would lose the file: onto itself, or a link onto what it leads to."""
        from ext3.errors import PathError

        if old.ino == new.ino:
            return True
        assert old.ino is not None
        if there.is_symlink or not self.editor.stat(old.ino).is_symlink:
            return False
        try:
            leads_to = self.editor.resolve(source.path, follow=True)
        except PathError:
            return False
        return leads_to.ino == new.ino and (there.links == 1 or leads_to.location == new.location)


def directory_at(editor: OverlayEditor, target: Goal) -> tuple[ResolvedPath | None, str]:
    """Where a target leads, if that is a directory; else None, and why as a system error has it."""
    from ext3.errors import PathError

    try:
        found = editor.resolve(target.path, follow=True)
    except PathError as error:  # also a link that leads to itself, which may be replaced
        return None, os.strerror(error.errno or 0)
    if found.ino is None:
        return None, os.strerror(errno.ENOENT)
    return (found, "") if editor.stat(found.ino).is_dir else (None, os.strerror(errno.ENOTDIR))
