"""``sifkit mkdir``."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted, show
from .support.console import Console
from .support.editing import EditBatch, new_owner, warn_outside
from .support.frame import verb
from .support.image_path import ImagePath, parse_image_paths
from .support.modes import apply_mode, parse_mode
from .support.options import EditFlags, NewOwner

if TYPE_CHECKING:
    from ..overlay.edit.upper_edit import OverlayEditor

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit mkdir -p overlay.img:/upper/opt/tool/data",
        "sifkit mkdir -m 2775 --owner 1000:1000 overlay.img:/upper/shared",
        "sifkit mkdir -p --upper overlay.img:/opt/tool",
        "sifkit mkdir -p image.sif:/opt/tool",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[list[str], typer.Argument(metavar="IMAGE:/PATH...", help="directories to create")],
    parents: Annotated[
        bool, typer.Option("-p", "--parents", help="create parent directories as needed; no error if existing")
    ] = False,
    mode: Annotated[
        str, typer.Option("-m", "--mode", metavar="MODE", help="mode, as chmod takes it (default: from the umask)")
    ] = "",
    owner: NewOwner = "",
    flags: EditFlags,
) -> int:
    """Create directories in an image."""
    from ..atomic import current_umask

    targets = parse_image_paths(arguments)
    mask = current_umask()
    exact = apply_mode(parse_mode(mode, "--mode"), 0o777, is_dir=True, mask=mask) if mode else None
    ids = new_owner(owner)
    batch = EditBatch(console)

    def create(editor: OverlayEditor, target: ImagePath) -> None:
        if parents:
            _create_with_parents(editor, batch, target, exact, mask, ids)
            return
        with batch.attempt(f"cannot create directory '{target.shown}'", target), _parents_hint():
            _create(editor, batch, target, target.path, exact, mask, ids)

    batch.run(targets, flags, create)
    text = f"{counted(batch.done, 'directory', 'directories')} created"
    return batch.finish(targets[0].image, text, {"made": batch.done})


@contextmanager
def _parents_hint() -> Iterator[None]:
    """Add a hint to errors about a missing parent directory."""
    from ..vfs.errors import MissingPathError

    try:
        yield
    except MissingPathError as error:
        error.hint = error.hint or "-p creates parent directories"
        raise


def _create(
    editor: OverlayEditor, batch: EditBatch, target: ImagePath, path: bytes, exact: int | None, mask: int, ids: tuple[int, int]
) -> None:
    """Create one directory. ``exact``: its mode (None: from the umask ``mask`` and the parent's default ACL)."""
    from ..vfs.errors import path_error

    resolved = editor.resolve(path.rstrip(b"/") or b"/", follow=False)
    if resolved.node is not None:
        raise path_error(path, errno.EEXIST)
    warn_outside(batch.console, editor, resolved, target)
    ino = editor.make_directory(resolved, 0o777 if exact is None else exact & 0o777, uid=ids[0], gid=ids[1], umask=mask)
    if exact is not None:
        editor.filesystem.chmod(ino, exact | editor.stat(ino).mode & 0o2000)
    shown = target.shown if path == target.path else f"{show(target.image)}:{show(path)}"
    batch.count(f"created directory '{shown}'")


def _create_with_parents(
    editor: OverlayEditor, batch: EditBatch, target: ImagePath, exact: int | None, mask: int, ids: tuple[int, int]
) -> None:
    """Create the missing directories of a path; an error names the first one that cannot be created."""
    from ..vfs.errors import path_error

    names = [name for name in target.path.split(b"/") if name]
    for count in range(1, len(names) + 1):
        path = b"/" + b"/".join(names[:count])
        last = count == len(names)
        shown = target.shown if last else f"{show(target.image)}:{show(path)}"
        before = len(batch.errors)
        with batch.attempt(f"cannot create directory '{shown}'", target):
            resolved = editor.resolve(path, follow=False)
            if resolved.node is None:
                _create(
                    editor,
                    batch,
                    target,
                    target.path if last else path,
                    exact if last else None,
                    mask if last else mask & ~0o300,
                    ids,
                )
                continue
            found = editor.resolve(path, follow=True)
            if found.node is None:  # a dangling link
                raise path_error(path, errno.EEXIST)
            if not editor.stat(found.node).is_dir:
                raise path_error(path, errno.EEXIST if last else errno.ENOTDIR)
        if len(batch.errors) > before:
            return
