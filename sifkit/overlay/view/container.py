"""Container opened for looking: the root of an image and the overlays above it, as one tree.

The order is Apptainer's: the root is the lowest layer, then the overlays in the image, then those that are given, later ones
higher. Of the overlays among which a container writes to one, the given or else those in the image, the writable ones are the
highest. Source: Apptainer 1.4.5, tried.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from ext3.errors import Ext3Error
from ext3.hostio import HostPath

from ...errors import FormatError, UsageError, shell_quote, show
from ...vfs.file_tree import FileTree
from ...vfs.subtree import Subtree
from ...vfs.union import UnionTree
from ...vfs.upper_view import find_upper
from ..images.filesystem_opening import OpenedFilesystem, open_directory, open_filesystem, open_partition_filesystem
from ..images.image_format import image_kind
from ..images.sif_partition import check_place, open_sif, overlays_of, select_partition
from .layer_tree import LayerTree
from .overlay_argument import OverlayArgument

__all__ = ["Container", "ContainerLayer", "check_directory", "is_overlay", "open_container", "open_root", "overlays_of"]

ROOT = "root"
UPPER_AND_WORK = {b"upper", b"work", b"lost+found"}
"""Names at the top of an overlay image."""


@dataclass(frozen=True, slots=True)
class ContainerLayer:
    """Layer of a container: the ``tree`` that it adds, below ``upper/`` for most overlays.

    ``is_given``: it is an overlay that is not in the image. ``is_writable``: a container could write to it.
    """

    tree: FileTree[Any]
    filesystem: OpenedFilesystem
    is_given: bool = False
    is_writable: bool = False

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.filesystem.name

    @property
    def kind(self) -> str:
        return self.filesystem.kind


@dataclass(frozen=True, slots=True)
class Container:
    """Open container. ``layers``: from the root, the lowest, up."""

    tree: UnionTree
    layers: tuple[ContainerLayer, ...]

    @property
    def base_layers(self) -> int:
        """Number of layers that are those of the image itself; without given overlays of its root."""
        given = sum(layer.is_given for layer in self.layers)
        return len(self.layers) - given if given else 1

    def layer_of(self, node: Any) -> ContainerLayer:
        """Return the layer that a file comes from; of a merged directory, the highest."""
        return self.layers[self.tree.layer_of(node)]

    def base_tree(self) -> UnionTree:
        """Return the tree without the given overlays; without such, the root alone."""
        return UnionTree([layer.tree for layer in self.layers[: self.base_layers]])


@contextmanager
def open_root(path: HostPath) -> Iterator[FileTree[Any]]:
    """Open the root of a container as it is: of a SIF its primary partition, of a file its filesystem, or a directory."""
    with ExitStack() as stack:
        yield _root_layers(path, None, None, stack, embedded=False)[0].tree


@contextmanager
def open_container(
    path: HostPath,
    partition: str | None = None,
    *,
    offset: int | None = None,
    overlays: Sequence[OverlayArgument | HostPath] = (),
    embedded: bool = True,
    subject: HostPath | None = None,
) -> Iterator[Container]:
    """Open the container whose root is the image or directory at ``path``, read-only.

    ``partition``, ``offset``: another root in the image, without the overlays beside it. ``overlays``: images and directories
    above it. ``embedded``: with the overlays in a SIF. ``subject``: image that the caller's messages begin with, by default
    ``path``; errors of layers that are not in it name their image, too. Raises what ``open_filesystem`` does, and FormatError
    for what is no overlay.
    """
    arguments = [one if isinstance(one, OverlayArgument) else OverlayArgument(os.fsdecode(one)) for one in overlays]
    with ExitStack() as stack:
        layers = _root_layers(path, partition, offset, stack, embedded=embedded)
        if arguments and layers[0].kind == "ext3":
            _reject_overlay(layers[0], arguments)
        given = [layer for argument in arguments for layer in _overlay_layers(argument, stack)]
        upper = given or layers[1:]
        layers[len(layers) if given else 1 :] = sorted(upper, key=lambda layer: layer.is_writable)
        if len(layers) > 1:
            layers = [_named(layer, os.fsdecode(path if subject is None else subject)) for layer in layers]
        yield Container(UnionTree([layer.tree for layer in layers]), tuple(layers))


def _root_layers(
    path: HostPath, partition: str | None, offset: int | None, stack: ExitStack, *, embedded: bool
) -> list[ContainerLayer]:
    """Open the root at ``path`` and, of a SIF, the overlays in it."""
    if os.path.isdir(path):
        check_directory(path, partition, offset)
        return [_whole(open_directory(path))]
    name = os.fsdecode(path)
    kind = image_kind(name)
    check_place(name, kind, partition, offset)
    if kind != "sif" or partition is not None or offset is not None:
        return [_whole(stack.enter_context(open_filesystem(name, partition, offset=offset)))]
    sif, fd = stack.enter_context(open_sif(name))
    root = select_partition(sif, ROOT, name)
    layers = [_whole(stack.enter_context(open_partition_filesystem(sif, fd, root, name)))]
    for found in overlays_of(sif, root) if embedded else ():
        with _root_hint(name):
            opened = stack.enter_context(open_partition_filesystem(sif, fd, found, name))
            layers.append(_overlay(opened, is_writable=opened.kind == "ext3"))
    return layers


@contextmanager
def _root_hint(name: str) -> Iterator[None]:
    """Say in errors of this block, which opens an overlay in the SIF ``name``, how to look into its root alone."""
    try:
        yield
    except (Ext3Error, FormatError) as error:
        error.hint = error.hint or f"without it: sifkit ls --partition root {shell_quote(name)}"
        raise


def check_directory(path: HostPath, partition: str | None, offset: int | None) -> None:
    """Raise UsageError for a ``partition`` or an ``offset`` of a directory."""
    check_place(os.fsdecode(path), None, partition, None)
    if offset is not None:
        raise UsageError(f"{show(os.fsdecode(path))} is a directory, and --offset is for images", hint="leave it out")


def _whole(opened: OpenedFilesystem) -> ContainerLayer:
    return ContainerLayer(opened.tree, opened)


def _overlay(opened: OpenedFilesystem, *, is_given: bool = False, is_writable: bool = False) -> ContainerLayer:
    """Return the layer that an overlay adds: below upper/, or of a squashfs all of it. Raises FormatError."""
    tree = opened.tree
    named = LayerTree(tree, tree.root, name=opened.name, hint=opened.check_hint)
    upper = None if opened.kind == "squashfs" else find_upper(named)
    if upper is None and opened.kind == "ext3":
        text = f"{show(opened.name)}: the overlay has no upper/, in which a container keeps its files"
        hint = f"create it with: sifkit mkdir {shell_quote(opened.path)}:/upper" if opened.object_id is None else ""
        raise FormatError(text, path=opened.path, hint=hint)
    return ContainerLayer(tree if upper is None else Subtree(tree, upper), opened, is_given, is_writable)


def _overlay_layers(argument: OverlayArgument, stack: ExitStack) -> Iterator[ContainerLayer]:
    """Open an overlay that is given: a directory, a file, or all overlays in a SIF."""
    name, writable = argument.path, not argument.read_only
    if os.path.isdir(name):
        yield _overlay(open_directory(name), is_given=True, is_writable=writable)
        return
    if image_kind(name) != "sif":
        opened = stack.enter_context(open_filesystem(name))
        yield _overlay(opened, is_given=True, is_writable=writable and opened.kind == "ext3")
        return
    sif, fd = stack.enter_context(open_sif(name))
    root = sif.primary
    overlays = sif.overlays if root is None else overlays_of(sif, root)
    if not overlays:
        reason = "no overlay" if root is None or not sif.overlays else "no overlay in the group of its primary partition"
        hint = f"list its objects with: sifkit sif list {shell_quote(name)}"
        raise FormatError(f"{show(name)} has {reason}", path=name, hint=hint)
    for found in overlays:
        opened = stack.enter_context(open_partition_filesystem(sif, fd, found, name))
        yield _overlay(opened, is_given=True, is_writable=writable and opened.kind == "ext3")


def is_overlay(tree: FileTree[Any]) -> bool:
    """Return True if the names at the top of an image are those of an overlay image, and not of the root of a container."""
    (listing,) = tree.scan_many([tree.root], stats=False)
    names = {row.name for row in listing.rows}
    return b"upper" in names and names <= UPPER_AND_WORK


def _reject_overlay(root: ContainerLayer, overlays: Sequence[OverlayArgument]) -> None:
    """Raise UsageError if what should be the root of a container is an overlay."""
    if is_overlay(root.tree):
        options = " ".join(f"--overlay {shell_quote(one.path)}" for one in overlays)
        raise UsageError(
            f"{show(root.name)} is an overlay, not the root of a container",
            hint=f"give the container's image first: base.sif {options} --overlay {shell_quote(root.filesystem.path)}",
        )


def _named(layer: ContainerLayer, image: str) -> ContainerLayer:
    """Return a layer whose errors name it, in messages that begin with ``image``."""
    found = layer.filesystem
    if found.kind == "directory":  # errors of the host name the file
        return layer
    name = f"object {found.object_id}" if found.path == image and found.object_id is not None else found.name
    tree = LayerTree(found.tree, layer.tree.root, name=name, hint=found.check_hint)
    return ContainerLayer(tree, found, layer.is_given, layer.is_writable)
