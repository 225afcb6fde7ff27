"""Opening of what is looked into: an image, a partition of a SIF, a directory of the host, or what a container sees."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ext3.hostio import HostPath

from ...errors import UsageError
from ...vfs.errors import MissingPathError
from ...vfs.file_tree import FileTree
from ...vfs.subtree import Subtree
from ...vfs.upper_view import UpperView, find_upper
from ..images.filesystem_opening import OpenedFilesystem, open_directory, open_filesystem
from ..images.image_format import image_kind
from .container import Container, check_directory, open_container
from .overlay_argument import OverlayArgument

if TYPE_CHECKING:
    from ..images.opening import OpenedImage

__all__ = ["OpenedTree", "open_tree", "upper_directory", "upper_tree"]

N = TypeVar("N")


@dataclass(frozen=True, slots=True)
class OpenedTree:
    """Tree opened for reading; its root is where paths start.

    ``filesystems``: those it shows; of a container from the root up. ``container``: None for a filesystem as it is.
    """

    tree: FileTree[Any]
    filesystems: tuple[OpenedFilesystem, ...] = ()
    container: Container | None = None

    @property
    def images(self) -> tuple[OpenedImage, ...]:
        """ext2 and ext3 filesystems among those it shows: others may write to them."""
        return tuple(found.image for found in self.filesystems if found.image is not None)

    def inode(self, node: Any) -> tuple[OpenedImage, int] | None:
        """Return the ext3 filesystem and the inode number of a file, None if it is in none."""
        if self.container is None:
            return (self.images[0], node) if self.images else None
        image = self.container.layer_of(node).filesystem.image
        return None if image is None else (image, node[0][1])

    def layer_name(self, node: Any) -> str | None:
        """Return the name of the layer of a container that a file comes from."""
        return None if self.container is None else self.container.layer_of(node).name


@contextmanager
def open_tree(
    path: HostPath,
    partition: str | None = None,
    *,
    offset: int | None = None,
    upper: bool = False,
    whiteouts: bool = False,
    overlays: Sequence[OverlayArgument] = (),
) -> Iterator[OpenedTree]:
    """Open the image at ``path`` (a ``partition`` of a SIF, or from byte ``offset`` on), or a directory of the host, read-only.

    A SIF without these is opened as the container sees it, and so is anything with ``overlays`` above it. ``upper``: show its
    upper/ as a container sees it, or with ``whiteouts`` as it is; of a SIF that of its overlay. Raises what ``open_container``
    does, and MissingPathError without upper/.
    """
    if overlays and upper:
        hint = "leave out --upper: with --overlay the paths are the container's"
        raise UsageError("--upper and --overlay contradict each other", hint=hint)
    is_directory = os.path.isdir(path)
    is_sif = not is_directory and image_kind(path) == "sif"
    with ExitStack() as stack:
        if overlays or (is_sif and partition is None and offset is None and not upper):
            container = stack.enter_context(open_container(path, partition, offset=offset, overlays=overlays))
            yield OpenedTree(container.tree, tuple(layer.filesystem for layer in container.layers), container)
            return
        if is_directory:
            check_directory(path, partition, offset)
            found = open_directory(path)
        else:
            if is_sif and partition is None and offset is None:
                partition = "overlay"
            found = stack.enter_context(open_filesystem(path, partition, offset=offset))
        tree = found.tree
        if upper:
            tree = upper_directory(tree) if whiteouts else upper_tree(tree)
        yield OpenedTree(tree, (found,))


def upper_directory(tree: FileTree[N]) -> Subtree[N]:
    """Return upper/ of a tree, as it is. Raises MissingPathError if there is none."""
    return Subtree(tree, _upper(tree))


def upper_tree(tree: FileTree[N]) -> UpperView[N]:
    """Return upper/ of a tree as a container sees it. Raises MissingPathError if there is none."""
    return UpperView(tree, _upper(tree))


def _upper(tree: FileTree[N]) -> N:
    node = find_upper(tree)
    if node is None:
        error = MissingPathError(b"/upper", errno.ENOENT, "the image has no upper/")
        error.hint = "leave out --upper"
        raise error
    return node
