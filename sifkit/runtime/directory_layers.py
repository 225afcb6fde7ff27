"""Directories of the host as layers: which of them the kernel's overlayfs joins as they are, in a user namespace.

It follows marks of removed files in its own form only: devices 0:0, and attributes of users. Where fuse-overlayfs or root has
left others, the layers up to there are merged by this program, by FUSE or unpacked. Directories that are joined are seen as
they are, also when they change meanwhile; those that are merged are not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from ..vfs.whiteouts import OVERLAY_XATTR_PREFIXES, marks_removed_file
from .run_plan import Layer

__all__ = ["merged_count"]

FOLLOWED = ("user.overlay.opaque", "user.overlay.origin", "user.overlay.impure", "user.overlay.uuid")
"""Attributes of overlayfs that the kernel follows in a user namespace, or that change nothing."""
_PREFIXES = tuple(os.fsdecode(prefix) for prefix in OVERLAY_XATTR_PREFIXES)


def merged_count(layers: Sequence[Layer], *, joins: bool = True) -> int:
    """Return how many of the lowest layers must be merged: up to the highest that the kernel cannot join as it is; or 0."""
    if not joins:
        return 0 if len(layers) == 1 and layers[0].kind == "directory" else len(layers)
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        if layer.kind != "directory" or (number and _has_other_marks(f"{layer.path}/{layer.subdirectory}")):
            return number + 1
    return 0


def _has_other_marks(top: str) -> bool:
    """Return True if a layer has marks that the kernel does not follow in a user namespace."""
    pending = [top]
    while pending:
        directory = pending.pop()
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                is_directory = entry.is_dir(follow_symlinks=False)
                if marks_removed_file(os.fsencode(entry.name)) or _has_other_xattrs(entry.path):
                    return True
                if is_directory:
                    pending.append(entry.path)
    return _has_other_xattrs(top)


def _has_other_xattrs(path: str) -> bool:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return False
    return any(name.startswith(_PREFIXES) and name not in FOLLOWED for name in names)
