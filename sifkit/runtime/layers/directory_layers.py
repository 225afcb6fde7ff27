"""Directories of the host as layers: which of them the kernel's overlayfs joins as they are, in a user namespace.

It follows marks of removed files in its own form only, devices 0:0 and attributes of users, and takes no directory in which
other filesystems are mounted. Otherwise the layers up to there are merged by this program, by FUSE or unpacked. Directories
that are joined are seen as they are, also when they change meanwhile. Where something is written to, directories of other users
are merged, too: the server shows all files as the caller's, and only of such files overlayfs lets him change copies.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..planning.run_plan import Layer

__all__ = ["merged_count"]


def merged_count(layers: Sequence[Layer], *, joins: bool = True, writes: bool = False) -> int:
    """Return how many of the lowest layers must be merged: up to the highest that the kernel cannot join as it is; or 0.

    ``joins``: the kernel can join directories. ``writes``: something above them is written to, and they are served.
    """
    if not joins:
        return 0 if len(layers) == 1 and layers[0].kind == "directory" else len(layers)
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        if (
            layer.kind != "directory"
            or layer.has_mounts
            or (writes and layer.is_foreign)
            or (number and _has_other_marks(layer))
        ):
            return number + 1
    return 0


def _has_other_marks(layer: Layer) -> bool:
    """Return True if a directory has marks that the kernel does not follow in a user namespace."""
    from ..images.layer_marks import search_directory

    found = search_directory(f"{layer.path}/{layer.subdirectory}".rstrip("/"), for_root=False)
    return found.ignored or found.moved
