"""Destination of cp, mv and ln in an image: a directory that exists, or the new name."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ...errors import show
from .image_path import ImagePath

if TYPE_CHECKING:
    from ...overlay.upper_edit import OverlayEditor
    from ...vfs.resolve import ResolvedPath

__all__ = ["entry_in", "target_directory"]


def target_directory(editor: OverlayEditor, target: ImagePath) -> tuple[ResolvedPath[int] | None, str]:
    """Resolve a target to a directory; else None and the reason, as a system error."""
    from ...vfs.errors import TreePathError

    try:
        found = editor.resolve(target.path, follow=True)
    except TreePathError as error:  # also a link that leads to itself, which may be replaced
        return None, os.strerror(error.errno or 0)
    if found.node is None:
        return None, os.strerror(errno.ENOENT)
    return (found, "") if editor.stat(found.node).is_dir else (None, os.strerror(errno.ENOTDIR))


def entry_in(
    editor: OverlayEditor, directory: ResolvedPath[int], target: ImagePath, name: bytes
) -> tuple[ResolvedPath[int], ImagePath]:
    """Resolve ``name`` in the directory that ``target`` leads to."""
    shown = f"{target.shown.rstrip('/')}/{show(name)}"
    path = target.path.rstrip(b"/") + b"/" + name
    return editor.child(directory, name), ImagePath(target.image, path, shown)
