"""``sifkit ln``."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
from .mv import directory_at, into
from .support.console import Console
from .support.editing import (
    ChangeOptions,
    Changes,
    Exact,
    Goal,
    Json,
    NewOwner,
    changing,
    goals,
    new_owner,
    one_image,
    refused,
    warn_outside,
)
from .support.embedding import DropSignatures, KeepSignatures, Partition, RequireLock
from .support.frame import verb
from .support.image_path import place
from .support.reading import Upper

if TYPE_CHECKING:
    from ..overlay.resolve import ResolvedPath
    from ..overlay.upper_edit import OverlayEditor

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
    plain: Annotated[
        bool, typer.Option("-n", "--no-dereference", help="a link that leads to a directory is no directory")
    ] = False,
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
    options = ChangeOptions.of(partition, upper, drop=drop_signatures, keep=keep_broken_signatures, require_lock=require_lock)
    changes = Changes(console)
    with changing(console, image, options) as editor:
        linker = _Linker(editor, changes, target, symbolic=symbolic, force=force, owner=who, exact=exact, plain=plain)
        if linker.directory is None and len(sources) > 1:
            changes.refuse(f"target '{target.shown}': {linker.why_none}", target, kind="not-a-directory")
            sources = []
        for source in sources:
            linker.link(source)
    return changes.finish(image, f"{counted(changes.done, 'link')} made", {"made": changes.done})


class _Linker:
    def __init__(
        self,
        editor: OverlayEditor,
        changes: Changes,
        target: Goal,
        *,
        symbolic: bool,
        force: bool,
        owner: tuple[int, int],
        exact: bool,
        plain: bool,
    ) -> None:
        self.editor = editor
        self.changes = changes
        self.target = target
        self.symbolic = symbolic
        self.force = force
        self.owner = owner
        self.kind = "symbolic link" if symbolic else "hard link"
        self.directory, self.why_none = (None, "") if exact else directory_at(editor, target)
        if plain and self.directory is not None and self._is_link(target.path.rstrip(b"/")):
            self.directory, self.why_none = None, os.strerror(errno.ENOTDIR)

    def _is_link(self, path: bytes) -> bool:
        ino = self.editor.resolve(path or b"/", follow=False).ino
        return ino is not None and self.editor.stat(ino).is_symlink

    def link(self, source: Goal) -> None:
        """Make one link."""
        from ext3.errors import PathError

        old = None
        if not self.symbolic:
            with self.changes.attempt(f"failed to access '{source.shown}'", source):
                old = self.editor.lookup(source.path, follow=False)
            if old is None:
                return
            if self.editor.stat(old).is_dir:
                text = f"{source.shown}: hard link not allowed for directory"
                self.changes.refuse(text, source, kind="is-a-directory")
                return
        goal = self.target
        try:
            if self.directory is not None:
                name = source.path.rstrip(b"/").rpartition(b"/")[2] or b"."
                new, goal = into(self.editor, self.directory, self.target, name)
            else:
                new = self._named()
            self._link(source, old, new, goal)
        except PathError as error:
            what = f"failed to create {self.kind} '{goal.shown}'"
            if not self.symbolic and error.errno not in (errno.EEXIST, errno.ENOSPC, errno.EMLINK):
                what += f" => '{source.shown}'"
            self.changes.fail(refused(what, error, goal))

    def _named(self) -> ResolvedPath:
        """The place of the new name. A slash behind it asks for a directory, which it is not."""
        from ext3.errors import PathNotDirectoryError, PathNotFoundError

        path = self.target.path
        found = self.editor.resolve(path.rstrip(b"/") or b"/", follow=False)
        if path.endswith(b"/") and found.ino is None:
            raise PathNotFoundError(path, "No such file or directory")
        if path.endswith(b"/") and found.ino is not None and not self.editor.stat(found.ino).is_dir:
            raise PathNotDirectoryError(path, "Not a directory")
        return found

    def _link(self, source: Goal, old: int | None, new: ResolvedPath, goal: Goal) -> None:
        editor = self.editor
        if new.ino is not None:
            if not self._may_replace(source, old, new, new.ino, goal):
                return
            if old is None:
                self._check_target(source.path, goal)  # before the old file goes
            editor.filesystem.unlink_at(*new.location)
        with editor.replacing_whiteouts(new):
            if old is None:
                uid, gid = self.owner
                editor.filesystem.symlink_at(source.path, *new.location, uid=uid, gid=gid)
            else:
                editor.filesystem.link_at(old, *new.location)
        warn_outside(self.changes.console, editor, new, goal)
        self.changes.each(f"'{goal.shown}' {'->' if self.symbolic else '=>'} '{source.shown}'")

    def _may_replace(self, source: Goal, old: int | None, new: ResolvedPath, there: int, goal: Goal) -> bool:
        """Whether the file that is there goes; why not is told."""
        found = self.editor.stat(there)
        if not self.force:
            text = f"failed to create {self.kind} '{goal.shown}': File exists"
            self.changes.refuse(text, goal, kind="exists", hint="-f replaces it")
        elif found.is_dir:
            self.changes.refuse(f"{goal.shown}: cannot overwrite directory", goal, kind="is-a-directory")
        elif old == there and self.editor.resolve(source.path, follow=False).location != new.location:
            pass  # they are links of one file already
        elif old == there or (self.symbolic and source.path == new.name and not found.is_symlink):
            self.changes.refuse(f"'{source.shown}' and '{goal.shown}' are the same file", goal)
        else:
            return True
        return False

    def _check_target(self, text: bytes, goal: Goal) -> None:
        if len(text) >= self.editor.filesystem.superblock.block_size:
            from ext3.errors import PathError

            raise PathError(goal.path, "File name too long", code=errno.ENAMETOOLONG)
