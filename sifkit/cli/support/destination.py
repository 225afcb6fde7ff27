"""Destination of mv and ln: a name in a directory of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import show
from .image_path import ImagePath

if TYPE_CHECKING:
    from ...overlay.upper_edit import OverlayEditor
    from ...vfs.resolve import ResolvedPath

__all__ = ["entry_in"]


def entry_in(
    editor: OverlayEditor, directory: ResolvedPath[int], target: ImagePath, name: bytes
) -> tuple[ResolvedPath[int], ImagePath]:
    """Resolve ``name`` in the directory that ``target`` leads to."""
    shown = f"{target.shown.rstrip('/')}/{show(name)}"
    path = target.path.rstrip(b"/") + b"/" + name
    return editor.child(directory, name), ImagePath(target.image, path, shown)
