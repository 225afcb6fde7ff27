"""Target of an edit of what a container sees: its highest layer that can be written, and the layers below.

The order is that of ``container``. Given overlays come before those in a SIF: the last one without ``:ro`` is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ext3.hostio import HostPath

from ...errors import SifkitError, UsageError, shell_quote, show
from ...vfs.file_tree import FileTree
from ..images.sif_partition import unused_overlay
from ..view.container import ContainerLayer, open_container
from ..view.overlay_argument import OverlayArgument

__all__ = ["EditTarget", "NoWritableLayerError", "open_edit_target"]


class NoWritableLayerError(SifkitError):
    """Container without a layer that can be changed."""

    kind = "read-only"


@dataclass(frozen=True, slots=True)
class EditTarget:
    """Overlay to change: the file at ``path``, or a ``partition`` of the SIF there, and the ``lower`` layers, lowest first."""

    path: str
    partition: str | None
    lower: tuple[FileTree[Any], ...]


@contextmanager
def open_edit_target(
    path: HostPath, partition: str | None = None, *, offset: int | None = None, overlays: Sequence[OverlayArgument] = ()
) -> Iterator[EditTarget]:
    """Open the layers of the container at ``path`` for reading, and say which one an edit goes to.

    Raises what ``open_container`` does, NoWritableLayerError, and UsageError if a directory of the host would be changed.
    """
    with open_container(path, partition, offset=offset, overlays=overlays) as container:
        writable = [layer for layer in container.layers if layer.is_writable and layer.is_given == bool(overlays)]
        if not writable:
            raise _no_layer(os.fsdecode(path), overlays)
        chosen = writable[-1]
        found = chosen.filesystem
        if found.kind == "directory":
            text = f"{show(found.path)} is a directory, not an image, and its upper/ is changed on the host"
            raise UsageError(text, hint=f"to change another overlay, write {show(found.path)}:ro")
        lower = tuple(layer.tree for layer in container.layers if layer is not chosen)
        yield EditTarget(found.path, _partition(chosen), lower)


def _partition(layer: ContainerLayer) -> str | None:
    number = layer.filesystem.object_id
    return None if number is None else str(number)


def _no_layer(name: str, overlays: Sequence[OverlayArgument]) -> NoWritableLayerError:
    """Return the error of a container none of whose layers can be changed."""
    if overlays:
        return NoWritableLayerError(
            f"no writable layer: {', '.join(show(one.path) for one in overlays)} can only be read",
            hint="give an ext3 overlay without :ro; to create one: sifkit overlay create --size 1G overlay.img",
        )
    if unused := unused_overlay(name):
        hint = f"show the groups with: sifkit sif list {shell_quote(name)}"
        return NoWritableLayerError(f"{show(name)} has no writable layer: {unused}", path=name, hint=hint)
    hint = f"create one: sifkit overlay create --size 1G {shell_quote(name)}"
    return NoWritableLayerError(f"{show(name)} has no writable layer", path=name, hint=hint)
