"""``sifkit mv``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted
from .support.console import Console
from .support.editing import EditBatch, open_for_editing, warn_outside
from .support.frame import verb
from .support.image_path import ImagePath, common_image, entry_in, parse_image_paths
from .support.options import EditFlags, Exact

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ..overlay.edit.upper_edit import OverlayEditor
    from ..vfs.resolve import ResolvedPath

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit mv overlay.img:/upper/opt/old overlay.img:/upper/opt/new",
        "sifkit mv overlay.img:/opt overlay.img:/etc overlay.img:/upper",
        "sifkit mv --upper overlay.img:/opt/a overlay.img:/opt/b",
        "sifkit mv image.sif:/opt/x image.sif:/opt/y",
        "sifkit mv --overlay job-1.img image.sif:/etc/motd image.sif:/etc/motd.old",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE:/SOURCE... IMAGE:/TARGET", help="files to move, then the new name or a directory"),
    ],
    force: Annotated[bool, typer.Option("-f", "--force", help="replace existing files (the default; never prompts)")] = False,
    keep: Annotated[bool, typer.Option("-n", "--no-clobber", help="do not replace existing files")] = False,
    exact: Exact = False,
    flags: EditFlags,
) -> int:
    """Move or rename files within an image.

    In a container (a SIF image, or with --overlay) files of lower layers are copied to the overlay first, and a whiteout
    replaces the old name. With --upper lower layers are not known: a directory is moved with the files in upper/ only.
    """
    paths = parse_image_paths(arguments)
    if len(paths) < 2:
        raise UsageError(f"missing TARGET after {paths[0].shown}", hint="give a new name or a directory")
    if exact and len(paths) > 2:
        raise UsageError("-T takes one source and a target", hint="omit -T to move into a directory")
    image = common_image(paths, "sifkit mv")
    *sources, target = paths
    batch = EditBatch(console)
    with open_for_editing(console, image, flags) as editor:
        mover = _Mover(editor, batch, target, exact=exact, keep=keep)
        if len(sources) > 1 and mover.directory is None:
            batch.refuse(f"target '{target.shown}': {mover.why_none}", target)
            sources = []
        for source in sources:
            with batch.attempt(f"cannot stat '{source.shown}'", source):
                mover.move(source)
        whiteouts = editor.whiteouts
    added = f", {counted(whiteouts, 'whiteout')} created" if whiteouts else ""
    text = f"{counted(batch.done, 'file')} moved{added}"
    return batch.finish(image, text, {"moved": batch.done, "whiteouts": whiteouts})


class _Mover:
    def __init__(self, editor: OverlayEditor, batch: EditBatch, target: ImagePath, *, exact: bool, keep: bool) -> None:
        self.editor = editor
        self.batch = batch
        self.target = target
        self.keep = keep
        self.directory, self.why_none = (None, "") if exact else editor.find_directory(target.path)
        self._created: set[tuple[int, bytes]] = set()

    def move(self, source: ImagePath) -> None:
        """Move one file; other errors are recorded. Raises TreePathError if the source cannot be found."""
        from ..vfs.errors import path_error

        editor, batch = self.editor, self.batch
        last = source.path.rstrip(b"/").rpartition(b"/")[2]
        if last in (b"", b".", b".."):
            batch.refuse(f"cannot move '{source.shown}' to '{self.target.shown}': Device or resource busy", source)
            return
        old = editor.resolve(source.path, follow=False)
        if old.node is None:
            raise path_error(source.path, errno.ENOENT)
        is_dir = editor.stat(old.node).is_dir
        with batch.attempt(f"cannot move '{source.shown}' to '{self.target.shown}'", source):
            found = self._destination(source, last, is_dir)
            if found is not None:
                self._move(source, old, *found, is_dir=is_dir)

    def _destination(self, source: ImagePath, name: bytes, is_dir: bool) -> tuple[ResolvedPath[int], ImagePath] | None:
        """Resolve the destination; None, with the error recorded, if the file cannot go there."""
        from ..vfs.errors import path_error

        editor, target = self.editor, self.target
        plain = source.path.rstrip(b"/")
        if plain != source.path and editor.stat(editor.lookup(plain, follow=False)).is_symlink:
            raise path_error(source.path, errno.ENOTDIR)  # as rename(2) does
        if self.directory is not None:
            return entry_in(editor, self.directory, target, name)
        resolved = editor.resolve(target.path.rstrip(b"/") or b"/", follow=False)
        if target.path.endswith(b"/") and resolved.node is not None and not editor.stat(resolved.node).is_dir:
            self.batch.refuse(f"cannot stat '{target.shown}': Not a directory", target, kind="not-a-directory")
            return None
        if target.path.endswith(b"/") and not is_dir:
            raise path_error(target.path, errno.ENOTDIR)
        return resolved, target

    def _move(
        self, source: ImagePath, old: ResolvedPath[int], new: ResolvedPath[int], destination: ImagePath, *, is_dir: bool
    ) -> None:
        editor, batch = self.editor, self.batch
        assert old.node is not None
        there = None if new.node is None else editor.stat(new.node)
        if there is not None and self.keep:
            return
        if there is not None and self._is_same(source, old, new, there):
            batch.refuse(f"'{source.shown}' and '{destination.shown}' are the same file", source)
        elif is_dir and old.node in new.ancestors:
            batch.refuse(f"cannot move '{source.shown}' to a subdirectory of itself, '{destination.shown}'", source)
        elif there is not None and there.is_dir and not is_dir:
            text = f"cannot overwrite directory '{destination.shown}' with non-directory '{source.shown}'"
            batch.refuse(text, source, kind="is-a-directory")
        elif there is not None and not there.is_dir and new.location in self._created:
            batch.refuse(f"will not overwrite just-created '{destination.shown}' with '{source.shown}'", source, kind="exists")
        elif there is not None and is_dir and not there.is_dir:
            text = f"cannot overwrite non-directory '{destination.shown}' with directory '{source.shown}'"
            batch.refuse(text, source, kind="not-a-directory")
        else:
            with batch.attempt(f"cannot move '{source.shown}' to '{destination.shown}'", source):
                editor.rename(old, new)
                self._created.add(new.location)
                warn_outside(batch.console, editor, new, destination)
                batch.count(f"renamed '{source.shown}' -> '{destination.shown}'")

    def _is_same(self, source: ImagePath, old: ResolvedPath[int], new: ResolvedPath[int], there: Stat) -> bool:
        """Return True if a move would lose the file: onto itself, or a link onto its target."""
        from ..vfs.errors import TreePathError

        assert old.node is not None and new.node is not None
        if self.editor.is_same(old.node, new.node):
            return True
        if there.is_symlink or not self.editor.stat(old.node).is_symlink:
            return False
        try:
            followed = self.editor.resolve(source.path, follow=True)
        except TreePathError:
            return False
        return followed.node == new.node and (there.links == 1 or followed.location == new.location)
