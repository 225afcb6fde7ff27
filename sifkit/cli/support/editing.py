"""Verbs that edit an image: opening it, running an edit for each argument, errors worded as coreutils, the result."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from ...errors import SifkitError, show
from .console import Console, Fields, name_fields
from .environment import sif_stamp
from .failures import errors_about
from .image_path import ImagePath
from .options import EditFlags, FilesystemEditFlags
from .reading import image_options
from .results import print_notes, warn_unlocked

if TYPE_CHECKING:
    from ...overlay.edit.upper_edit import OverlayEditor
    from ...vfs.copy_outcome import CopyOutcome
    from ...vfs.resolve import ResolvedPath

__all__ = [
    "EditBatch",
    "coreutils_error",
    "is_dangling",
    "new_owner",
    "open_filesystem_for_editing",
    "open_for_editing",
    "warn_outside",
]

_OWN_WORDS = (errno.EINVAL, errno.EMLINK, errno.EIO, getattr(errno, "EUCLEAN", errno.EIO))
"""Errors whose own text says more than the system's: of damage it names the place."""


def new_owner(text: str) -> tuple[int, int]:
    """Return (uid, gid) of new files: those of ``--owner``, else the user's."""
    from .values import owner

    if text:
        return owner("--owner", text)
    return owner("--owner", "me") if hasattr(os, "getuid") else (0, 0)


class EditBatch:
    """Edits of one run of a verb: what was done, what failed, the result line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done = 0
        """Number of files that were changed."""
        self.whiteouts = 0
        """Number of whiteouts that were made."""
        self.errors: list[SifkitError] = []

    def run(self, targets: Sequence[ImagePath], flags: EditFlags, edit: Callable[[OverlayEditor, ImagePath], None]) -> None:
        """Call ``edit`` for each target with its image open and locked; adjacent targets in one image are one transaction.

        An exception from ``edit`` rolls the transaction back; ``attempt`` is for errors of a single target.
        """
        for image, group in groupby(targets, key=lambda target: target.image):
            with open_for_editing(self.console, image, flags) as editor:
                for target in group:
                    edit(editor, target)
                self.whiteouts += editor.whiteouts

    def expand(self, editor: OverlayEditor, target: ImagePath, *, follow: bool, recursive: bool) -> list[tuple[int, str]]:
        """Return (inode, path to show) of a target and, with ``recursive``, of everything below it, before any change.

        Raises TreePathError if there is no such file.
        """
        from ...vfs.walk import walk

        ino = editor.lookup(target.path, follow=follow)
        found = [(ino, target.shown)]
        if recursive and editor.stat(ino).is_dir:
            base = target.shown.rstrip("/")
            found += [(one.row.node, f"{base}/{show(one.path)}") for one in walk(editor.tree, ino, stats=False)]
        return found

    def count(self, what: str) -> None:
        """Count one file as done; print ``what`` with -v."""
        self.done += 1
        self.console.detail(what)

    def fail(self, error: SifkitError) -> None:
        """Print and record an error; the batch goes on."""
        self.errors.append(error)
        if not self.console.json:
            self.console.error(f"{error.message}; {error.hint}" if error.hint else error.message)

    @contextmanager
    def attempt(self, what: str, target: ImagePath) -> Iterator[None]:
        """Record path and xattr errors of the block; ``what`` ("cannot remove 'x'") begins the message."""
        from ext3.errors import XattrError

        from ...overlay.edit.upper_edit import PATH_ERRORS

        try:
            yield
        except (*PATH_ERRORS, XattrError) as error:
            self.fail(coreutils_error(what, error, target))

    def take(self, outcome: CopyOutcome) -> None:
        """Print and count an outcome of a copy."""
        from ...vfs.copy_outcome import Copied, CopyWarning

        if isinstance(outcome, Copied):
            self.done += outcome.files
            self.console.detail(f"'{outcome.source}' -> '{outcome.target}'")
        elif isinstance(outcome, CopyWarning):
            self.console.warn(outcome.text)
        else:
            self.fail(outcome)

    def refuse(self, message: str, target: ImagePath, *, kind: str = "path", hint: str = "") -> None:
        """Record an error with this message."""
        error = SifkitError(message, path=target.shown, hint=hint)
        error.kind = kind
        self.fail(error)

    def finish(self, image: str | None, text: str, fields: Fields) -> int:
        """Print the result; return the exit code."""
        console = self.console
        if console.json:
            errors = [
                {"kind": error.kind, "message": error.message, "hint": error.hint, **name_fields("path", error.path or "")}
                for error in self.errors
            ]
            console.emit({**fields, "layer": console.layer, "errors": errors}, image=image)
        elif self.done:
            console.result(f"{show(console.layer or image or '')}: {text}")
        return 1 if self.errors else 0


def is_dangling(editor: OverlayEditor, target: ImagePath) -> bool:
    """Return True if a target is a symbolic link to a file that does not exist."""
    from ...vfs.errors import MissingPathError, TreePathError

    try:
        ino = editor.resolve(target.path, follow=False).node
        if ino is None or not editor.stat(ino).is_symlink:
            return False
        return editor.resolve(target.path, follow=True).node is None
    except MissingPathError:
        return True
    except TreePathError:
        return False


def coreutils_error(what: str, error: Exception, target: ImagePath) -> SifkitError:
    """Convert a library error into one worded as coreutils: ``what`` and the system's text for its errno."""
    from ext3.errors import PathError, SourceError

    from ...vfs.errors import TreePathError

    number = getattr(error, "errno", None) or 0
    plain = isinstance(error, PathError | TreePathError) and number not in (0, *_OWN_WORDS)
    own = error.reason if isinstance(error, PathError | SourceError | TreePathError) else getattr(error, "message", str(error))
    reason = os.strerror(number) if plain else own
    made = SifkitError(f"{what}: {reason}", path=target.shown, hint=getattr(error, "hint", ""))
    made.kind = getattr(error, "kind", "path")
    return made


@contextmanager
def open_for_editing(
    console: Console, image: str, flags: EditFlags, *, check: Callable[[OverlayEditor], None] | None = None
) -> Iterator[OverlayEditor]:
    """Open an image for editing, locked; changes are on storage after the block.

    ``check`` runs before any change; an exception from it leaves the image as it is.
    """
    from ...overlay.edit.edit_session import EditOptions, edit_image
    from ...overlay.images.image_format import is_sif
    from ...overlay.view.overlay_argument import parse_overlays

    console.image = image
    offset = flags.start
    console.image_options = image_options(flags.partition, offset=offset, upper=flags.upper)
    console.overlays = tuple(flags.overlay or ())
    in_sif = bool(flags.overlay) or flags.partition is not None or offset is not None or is_sif(image)
    options = EditOptions(
        partition=flags.partition,
        offset=offset,
        upper=flags.upper,
        overlays=parse_overlays(console.overlays),
        on_signatures=flags.signatures,
        require_lock=flags.require_lock,
        stamp=sif_stamp(False) if in_sif else None,
        check=check,
    )
    with errors_about(image), edit_image(image, options) as edited:
        warn_unlocked(console, image, edited.locked)
        print_notes(console, edited.notes)
        console.layer = None if edited.editor.view is None else edited.name
        yield edited.editor


@contextmanager
def open_filesystem_for_editing(console: Console, image: str, flags: FilesystemEditFlags) -> Iterator[OverlayEditor]:
    """Open the filesystem of an overlay as ``open_for_editing`` does; in a SIF image that of its overlay by default."""
    from ...overlay.images.image_format import is_sif

    partition = flags.partition
    if partition is None and flags.offset is None and is_sif(image):
        partition = "overlay"
    edit = EditFlags(
        drop_signatures=flags.drop_signatures,
        keep_broken_signatures=flags.keep_broken_signatures,
        partition=partition,
        offset=flags.offset,
        require_lock=flags.require_lock,
        json=flags.json,
    )
    with open_for_editing(console, image, edit) as editor:
        yield editor


def warn_outside(console: Console, editor: OverlayEditor, resolved: ResolvedPath[int], target: ImagePath) -> None:
    """Warn of a new file that no container will see."""
    from ...overlay.edit.upper_edit import outside_upper_warning

    if warning := outside_upper_warning(editor, target.image, resolved):
        console.warn(warning)
