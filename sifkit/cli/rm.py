"""``sifkit rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, shell_quote, show
from .support.console import Console
from .support.editing import EditBatch
from .support.frame import verb
from .support.image_path import ImagePath, parse_image_paths
from .support.options import EditFlags

if TYPE_CHECKING:
    from ..overlay.edit.upper_edit import OverlayEditor
    from ..vfs.resolve import ResolvedPath

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit rm overlay.img:/upper/opt/x",
        "sifkit rm -rf overlay.img:/upper/var/cache overlay.img:/upper/tmp/build",
        "sifkit rm --upper overlay.img:/etc/motd",
        "sifkit rm -r image.sif:/opt/x",
        "sifkit rm --overlay job-1.img image.sif:/etc/motd",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="IMAGE:/PATH...", help="files to remove")] = None,
    recursive: Annotated[
        bool, typer.Option("-r", "-R", "--recursive", help="remove directories and everything below them")
    ] = False,
    empty: Annotated[bool, typer.Option("-d", "--dir", help="remove empty directories")] = False,
    force: Annotated[bool, typer.Option("-f", "--force", help="ignore missing files")] = False,
    flags: EditFlags,
) -> int:
    """Remove files in an image. Never prompts.

    In a container (a SIF image, or with --overlay) a whiteout replaces a removed file that a lower layer has. With --upper it
    does if a lower layer may have it, and with -f whiteouts also hide files that only a lower layer has.
    """
    if not arguments and not force:
        raise UsageError("IMAGE:/PATH... is missing", hint="see sifkit rm -h")
    targets = parse_image_paths(arguments or [])
    batch = EditBatch(console)

    def remove(editor: OverlayEditor, target: ImagePath) -> None:
        with batch.attempt(f"cannot remove '{target.shown}'", target):
            _remove(editor, batch, target, recursive=recursive, force=force, empty=empty)

    batch.run(targets, flags, remove)
    added = f", {counted(batch.whiteouts, 'whiteout')} created" if batch.whiteouts else ""
    return batch.finish(
        targets[0].image if targets else None,
        f"{counted(batch.done, 'file')} removed{added}",
        {"removed": batch.done, "whiteouts": batch.whiteouts},
    )


def _remove(editor: OverlayEditor, batch: EditBatch, target: ImagePath, *, recursive: bool, force: bool, empty: bool) -> None:
    if target.path.rstrip(b"/").rpartition(b"/")[2] in (b".", b".."):
        batch.refuse(f"refusing to remove '.' or '..' directory: skipping '{target.shown}'", target)
        return
    from ..vfs.file_tree import is_directory
    from ..vfs.walk import walk

    resolved = _resolve(editor, batch, target, force)
    if resolved is None:
        return
    what = "cannot remove"
    if resolved.node is None:
        if force and editor.guesses_lower:
            if editor.add_whiteout(resolved):
                batch.count(f"hidden '{target.shown}'")
        elif not force:
            may_be_lower = editor.guesses_lower and not editor.whiteouts_of(resolved)
            hint = "-f hides a file of this name in a lower layer" if may_be_lower else ""
            batch.refuse(f"{what} '{target.shown}': No such file or directory", target, kind="not-found", hint=hint)
        return
    if not editor.stat(resolved.node).is_dir:
        editor.unlink(resolved)
        batch.count(f"removed '{target.shown}'")
        return
    if not recursive and empty:
        editor.remove_directory(resolved)
        batch.count(f"removed directory '{target.shown}'")
        return
    if not recursive:
        batch.refuse(f"{what} '{target.shown}': Is a directory", target, kind="is-a-directory", hint="-r removes directories")
        return
    if resolved.name == b"":
        batch.refuse(f"{what} '{target.shown}': it is the root of the image", target, hint="give the files in it")
        return
    if target.path.endswith(b"/") and editor.stat(editor.lookup(target.path.rstrip(b"/"), follow=False)).is_symlink:
        batch.refuse(f"{what} '{target.shown}': Not a directory", target, kind="not-a-directory")
        return
    below = [(found.path, is_directory(found.row)) for found in walk(editor.tree, resolved.node, stats=False)]
    editor.remove_tree(resolved)
    for path, is_dir in reversed(below):
        batch.count(f"removed {'directory ' if is_dir else ''}'{target.shown.rstrip('/')}/{show(path)}'")
    batch.count(f"removed directory '{target.shown}'")


def _resolve(editor: OverlayEditor, batch: EditBatch, target: ImagePath, force: bool) -> ResolvedPath[int] | None:
    """Resolve a target; None if a parent directory is missing and ``force`` is set."""
    try:
        return editor.resolve(target.path, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        if not force:
            raise
    if editor.guesses_lower:
        parent = show(target.path.rstrip(b"/").rpartition(b"/")[0])
        options = " ".join(batch.console.image_options)
        hint = f"create it first: sifkit mkdir -p {options} {shell_quote(target.image)}:{parent}"
        batch.refuse(f"cannot hide '{target.shown}': upper/ has no directory {parent}", target, kind="not-found", hint=hint)
    return None
