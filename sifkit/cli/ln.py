"""``sifkit ln``."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, show
from .support.console import Console
from .support.editing import EditBatch, coreutils_error, new_owner, open_for_editing, warn_outside
from .support.frame import verb
from .support.image_path import ImagePath, common_image, entry_in, parse_image_paths, split_image_path
from .support.options import EditFlags, Exact, NewOwner

if TYPE_CHECKING:
    from ..overlay.edit.upper_edit import OverlayEditor
    from ..vfs.resolve import ResolvedPath

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit ln -s ../tool/bin/run overlay.img:/upper/bin/run",
        "sifkit ln -sf /opt/tool-2 overlay.img:/upper/opt/tool",
        "sifkit ln overlay.img:/upper/a overlay.img:/upper/b",
        "sifkit ln -s /opt/tool image.sif:/tool",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET... IMAGE:/PATH",
            help="IMAGE:/FILE, or with -s the text of the link; then the new name or a directory",
        ),
    ],
    symbolic: Annotated[bool, typer.Option("-s", "--symbolic", help="create symbolic links; TARGET may be any text")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="replace existing files")] = False,
    plain: Annotated[
        bool, typer.Option("-n", "--no-dereference", help="treat a symbolic link to a directory as a file")
    ] = False,
    exact: Exact = False,
    owner: NewOwner = "",
    flags: EditFlags,
) -> int:
    """Create links in an image: hard links, or with -s symbolic links.

    The text of a symbolic link is stored as given: a path in the container, without upper/.
    """
    if len(arguments) < 2:
        raise UsageError(f"missing IMAGE:/PATH after {show(arguments[0])}", hint="give the name of the link")
    *texts, last = arguments
    target = parse_image_paths([last])[0]
    if symbolic:
        for text in texts:
            if (inside := split_image_path(text)) is not None:
                message = f"-s {show(text)}: the text of a link is a path without an image"
                raise UsageError(message, hint=f"write {show(inside[1])}")
        sources = [ImagePath(target.image, os.fsencode(text), show(text)) for text in texts]
        image = target.image
    else:
        sources = parse_image_paths(texts)
        image = common_image([target, *sources], "sifkit ln")
    new_links_owner = new_owner(owner)
    batch = EditBatch(console)
    with open_for_editing(console, image, flags) as editor:
        linker = _Linker(editor, batch, target, symbolic=symbolic, force=force, owner=new_links_owner, exact=exact, plain=plain)
        if linker.directory is None and len(sources) > 1:
            batch.refuse(f"target '{target.shown}': {linker.why_none}", target, kind="not-a-directory")
            sources = []
        for source in sources:
            linker.link(source)
    return batch.finish(image, f"{counted(batch.done, 'link')} created", {"made": batch.done})


class _Linker:
    def __init__(
        self,
        editor: OverlayEditor,
        batch: EditBatch,
        target: ImagePath,
        *,
        symbolic: bool,
        force: bool,
        owner: tuple[int, int],
        exact: bool,
        plain: bool,
    ) -> None:
        self.editor = editor
        self.batch = batch
        self.target = target
        self.symbolic = symbolic
        self.force = force
        self.owner = owner
        self.kind = "symbolic link" if symbolic else "hard link"
        self.directory, self.why_none = (None, "") if exact else editor.find_directory(target.path)
        if plain and self.directory is not None and self._is_link(target.path.rstrip(b"/")):
            self.directory, self.why_none = None, os.strerror(errno.ENOTDIR)

    def _is_link(self, path: bytes) -> bool:
        ino = self.editor.resolve(path or b"/", follow=False).node
        return ino is not None and self.editor.stat(ino).is_symlink

    def link(self, source: ImagePath) -> None:
        """Create one link; errors are recorded."""
        from ..overlay.edit.upper_edit import PATH_ERRORS
        from ..vfs.errors import path_error

        old: ResolvedPath[int] | None = None
        if not self.symbolic:
            with self.batch.attempt(f"failed to access '{source.shown}'", source):
                old = self.editor.resolve(source.path, follow=False)
                if old.node is None:
                    raise path_error(source.path, errno.ENOENT)
            if old is None or old.node is None:
                return
            if self.editor.stat(old.node).is_dir:
                text = f"{source.shown}: hard link not allowed for directory"
                self.batch.refuse(text, source, kind="is-a-directory")
                return
        destination = self.target
        try:
            if self.directory is not None:
                name = source.path.rstrip(b"/").rpartition(b"/")[2] or b"."
                new, destination = entry_in(self.editor, self.directory, self.target, name)
            else:
                new = self._new_name()
            self._link(source, old, new, destination)
        except PATH_ERRORS as error:
            what = f"failed to create {self.kind} '{destination.shown}'"
            if not self.symbolic and error.errno not in (errno.EEXIST, errno.ENOSPC, errno.EMLINK):
                what += f" => '{source.shown}'"
            self.batch.fail(coreutils_error(what, error, destination))

    def _new_name(self) -> ResolvedPath[int]:
        """Resolve the name of the link. A slash after it asks for a directory, which a link is not."""
        from ..vfs.errors import path_error

        path = self.target.path
        found = self.editor.resolve(path.rstrip(b"/") or b"/", follow=False)
        if path.endswith(b"/") and found.node is None:
            raise path_error(path, errno.ENOENT)
        if path.endswith(b"/") and found.node is not None and not self.editor.stat(found.node).is_dir:
            raise path_error(path, errno.ENOTDIR)
        return found

    def _link(self, source: ImagePath, old: ResolvedPath[int] | None, new: ResolvedPath[int], destination: ImagePath) -> None:
        editor = self.editor
        node = None if old is None else old.node
        if new.node is not None and not self._may_replace(source, node, new, new.node, destination):
            return
        if old is None:
            uid, gid = self.owner
            make = partial(editor.filesystem.symlink_at, source.path, *editor.location(new), uid=uid, gid=gid)
            editor.replace(new, make)
        else:
            editor.link(old, new)
        warn_outside(self.batch.console, editor, new, destination)
        self.batch.count(f"'{destination.shown}' {'->' if self.symbolic else '=>'} '{source.shown}'")

    def _may_replace(
        self, source: ImagePath, old: int | None, new: ResolvedPath[int], there: int, destination: ImagePath
    ) -> bool:
        """Return True if the existing file may be replaced, else record the error."""
        found = self.editor.stat(there)
        is_same = old is not None and self.editor.is_same(old, there)
        if not self.force:
            text = f"failed to create {self.kind} '{destination.shown}': File exists"
            self.batch.refuse(text, destination, kind="exists", hint="-f replaces it")
        elif found.is_dir:
            self.batch.refuse(f"{destination.shown}: cannot overwrite directory", destination, kind="is-a-directory")
        elif is_same and self.editor.resolve(source.path, follow=False).location != new.location:
            pass  # they are hard links to one file already
        elif is_same or (self.symbolic and source.path == new.name and not found.is_symlink):
            self.batch.refuse(f"'{source.shown}' and '{destination.shown}' are the same file", destination)
        else:
            return True
        return False
