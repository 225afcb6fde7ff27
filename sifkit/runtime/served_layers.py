"""Layers of a container served by FUSE, for a plain user in a user namespace, below the session.

All read-only layers are one view, which a server process of its own serves: the kernel mounts no image for a plain user. It
needs neither numpy nor construct where every layer is a squashfs or a directory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from ext3 import hostio

from ..atomic import lock_range
from ..errors import SifkitError, show
from ..in_use import check_unused
from ..squashfs.reader import Reader
from ..vfs.file_tree import FileTree
from ..vfs.host_tree import HostTree
from ..vfs.resolve import Resolver
from ..vfs.subtree import Subtree
from ..vfs.union import UnionTree
from . import sys
from .errors import LaunchError, failed_call
from .fuse.backend import Backend
from .fuse.mounting import mount_fuse, serve_in_child
from .fuse.tree_backend import TreeBackend
from .run_plan import Layer, Upper
from .session import Session

__all__ = ["ServedLayers"]

_opened = ExitStack()
"""Images of a server process, which are open until it ends."""


class ServedLayers:
    """Mounts of the layers of one run. ``place``: where the session is mounted; ``owner``: user and group of all files."""

    def __init__(self, session: Session, place: str, owner: tuple[int, int]) -> None:
        self.session = session
        self.place = place
        self.owner = owner
        self._count = 0
        self._mounted: list[str] = []
        self._servers: list[int] = []
        self._locks = ExitStack()

    def lock(self, layers: Sequence[Layer]) -> None:
        """Lock the ext3 filesystems among the layers for reading, as Apptainer does, until ``close``."""
        for layer in layers:
            if layer.kind == "ext3":
                fd = os.open(layer.path, os.O_RDONLY | hostio.NO_WAIT | os.O_CLOEXEC)
                self._locks.callback(os.close, fd)
                span = None if layer.object_id is None else (layer.offset, layer.size or 0)
                check_unused(layer.path, writers_only=True, span=span)
                offset, size = span or (0, 0)
                lock_range(fd, write=False, offset=offset, size=size, path=layer.path)

    def view(self, layers: Sequence[Layer]) -> str:
        """Mount the merged layers, the lowest first; return the directory. Raises LaunchError."""
        point = self._new_point()
        fd = self._mount_fuse(point)
        try:
            pid = serve_in_child(fd, partial(_open_view, layers, self.owner), before=self._leave_session)
        except OSError as error:
            raise failed_call("the image cannot be served", error) from error
        self._servers.append(pid)
        return point

    def remove_view(self) -> None:
        """Unmount the view that was made last, so that its server ends."""
        sys.umount(self._mounted.pop())
        os.waitpid(self._servers.pop(), 0)

    def add_upper(self, view: str, upper: Upper) -> str:
        """Mount a writable layer above the view; return the directory of both. Raises LaunchError."""
        base = self._new_point()
        try:
            if upper.kind == "tmpfs":
                size = "" if upper.size is None else f",size={upper.size}"
                sys.mount("sifkit", base, "tmpfs", sys.MS_NODEV | sys.MS_NOSUID, f"mode=755{size}")
            elif upper.kind == "directory":
                sys.bind(upper.path, base)
            else:
                raise LaunchError(f"{show(upper.name)}: a plain user cannot write to an image yet")
        except OSError as error:
            raise failed_call(f"{show(upper.name or 'memory')} cannot be mounted", error) from error
        self._mounted.append(base)
        for name in (upper.upper, upper.work):
            with suppress(FileExistsError):
                os.makedirs(f"{base}/{name}", 0o755)
        point = self._new_point()
        options = f"lowerdir={view},upperdir={base}/{upper.upper},workdir={base}/{upper.work},userxattr"
        try:
            sys.mount("overlay", point, "overlay", sys.MS_NODEV | sys.MS_NOSUID, options)
        except OSError as error:
            raise failed_call("the layers cannot be joined by the kernel's overlayfs", error) from error
        self._mounted.append(point)
        return point

    def close(self) -> None:
        """Unmount all. Servers end when no process of the container is left."""
        while self._mounted:
            with suppress(OSError):
                sys.umount(self._mounted.pop(), sys.MNT_DETACH)
        self._locks.close()
        while self._servers:
            os.waitpid(self._servers.pop(), os.WNOHANG)

    def _new_point(self) -> str:
        self._count += 1
        point = f"{self.session.path}/{self._count}"
        os.mkdir(point, 0o755)
        return point

    def _mount_fuse(self, point: str) -> int:
        try:
            fd = mount_fuse(point, name="sifkit", read_only=True, uid=self.owner[0], gid=self.owner[1])
        except OSError as error:
            raise failed_call("FUSE cannot be mounted", error, hint="see what this host allows: sifkit doctor") from error
        self._mounted.append(point)
        return fd

    def _leave_session(self) -> None:
        """In a server: have no part in its own mount, which would keep it alive for ever."""
        sys.unshare(sys.CLONE_NEWNS)
        sys.umount(self.place, sys.MNT_DETACH)


def _open_view(layers: Sequence[Layer], owner: tuple[int, int]) -> Backend:
    """Open the merged layers, in the process that serves them until it ends. Raises SifkitError and OSError."""
    trees = [_open_layer(layer) for layer in layers]
    if len(trees) == 1:
        return TreeBackend(trees[0], owner=owner)
    return TreeBackend(UnionTree(trees), owner=owner)


def _open_layer(layer: Layer) -> FileTree[Any]:
    tree: FileTree[Any]
    try:
        if layer.kind == "squashfs":
            tree = Reader.open(layer.path, offset=layer.offset, size=layer.size)
        elif layer.kind == "directory":
            tree = HostTree(layer.path)
        else:
            tree = _open_ext3(layer)
        if not layer.subdirectory:
            return tree
        return Subtree(tree, Resolver(tree).lookup(os.fsencode(layer.subdirectory), follow=False))
    except SifkitError as error:
        error.set_path(layer.path)
        raise


def _open_ext3(layer: Layer) -> FileTree[Any]:
    from ..overlay.filesystem_opening import open_filesystem

    partition = None if layer.object_id is None else str(layer.object_id)
    offset = layer.offset or None if partition is None else None
    return _opened.enter_context(open_filesystem(layer.path, partition, offset=offset)).tree
