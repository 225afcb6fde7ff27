"""Layers of a container served by FUSE, for a plain user in a user namespace, below the session.

All read-only layers are one view, which a server process of its own serves: the kernel mounts no image for a plain user. It
needs neither numpy nor construct where every layer is a squashfs or a directory.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from ext3 import hostio

from ..atomic import lock_range
from ..errors import SifkitError, shell_quote, show
from ..in_use import check_unused
from ..squashfs.reader import Reader
from ..vfs.file_tree import FileTree
from ..vfs.host_tree import HostTree
from ..vfs.resolve import Resolver, is_dir
from ..vfs.subtree import Subtree
from ..vfs.union import UnionTree
from . import sys
from .errors import LaunchError, failed_call
from .fuse.mounting import ServerProcess, mount_fuse, report_error, serve_in_child, start_server
from .fuse.server import Server
from .fuse.tree_backend import TreeBackend
from .fuse.writable_server import COMMIT_SECONDS, FULL, WritableServer
from .kernel_layers import real_directory
from .left_behind import still_used
from .run_plan import Layer, Upper
from .session import Session

__all__ = ["ServedLayers"]

LEFT_BEHIND_SECONDS = 1.0
"""Time in which the last processes of a container end after its command."""
_opened = ExitStack()
"""Images of a server process, which are open until it ends."""


class ServedLayers:
    """Mounts of the layers of one run. ``place``: where the session is mounted; ``owner``: user and group of all files."""

    def __init__(self, session: Session, place: str, owner: tuple[int, int], notify: Callable[[str], None]) -> None:
        self.notify = notify
        self.session = session
        self.place = place
        self.owner = owner
        self._count = 0
        self._mounted: list[str] = []
        self._servers: list[ServerProcess] = []
        self._image: int | None = None
        self._image_point = ""
        self._is_image_ready = False
        self._writer: tuple[str, ServerProcess] | None = None
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
            server = serve_in_child(partial(_open_view, fd, layers, self.owner), before=self._leave_run)
        except OSError as error:
            raise failed_call("the image cannot be served", error) from error
        finally:
            os.close(fd)
        self._servers.append(server)
        return point

    def remove_view(self) -> None:
        """Unmount the view that was made last, so that its server ends."""
        sys.umount(self._mounted.pop())
        self._servers.pop().wait()

    def add_upper(self, view: str, upper: Upper) -> str:
        """Mount a writable layer above the view; return the directory of both. Raises LaunchError."""
        base = self._await_image(upper) if upper.kind == "image" else self._new_point()
        try:
            if upper.kind == "tmpfs":
                size = "" if upper.size is None else f",size={upper.size}"
                sys.mount("sifkit", base, "tmpfs", sys.MS_NODEV | sys.MS_NOSUID, f"mode=755{size}")
            elif upper.kind == "directory":
                sys.bind(upper.path, base)
        except OSError as error:
            raise failed_call(f"{show(upper.name or 'memory')} cannot be mounted", error) from error
        if upper.kind != "image":
            self._mounted.append(base)
        for name in (upper.upper, upper.work):
            with suppress(FileExistsError):
                os.makedirs(f"{base}/{name}", 0o755)
        files, work = (real_directory(base, name, upper.name) for name in (upper.upper, upper.work))
        point = self._new_point()
        options = f"lowerdir={view},upperdir={files},workdir={work},userxattr"
        try:
            sys.mount("overlay", point, "overlay", sys.MS_NODEV | sys.MS_NOSUID, options)
        except OSError as error:
            raise failed_call("the layers cannot be joined by the kernel's overlayfs", error) from error
        self._mounted.append(point)
        if os.statvfs(point).f_flag & os.ST_RDONLY:  # what a kernel does that cannot use its work directory
            raise LaunchError("this kernel joins the layers read-only", hint="see what this host allows: sifkit doctor")
        return point

    def close(self) -> None:
        """Unmount all. Servers end when no process of the container is left."""
        device = _device_of(self._mounted[-1]) if self._mounted else 0
        for server in self._servers:
            if (code := server.code_if_ended()) is not None:
                self.notify(f"the image could not be read to the end: its server {_ended(code)}")
        while self._mounted:
            with suppress(OSError):
                sys.umount(self._mounted.pop(), sys.MNT_DETACH)
        self._locks.close()
        while self._servers:
            self._servers.pop().leave()
        if self._writer is not None:
            self._finish_writer(*self._writer, device)

    def start_image(self, upper: Upper) -> None:
        """Begin to serve an ext3 image that is written to, locked as Apptainer does; ``add_upper`` waits until it is there."""
        point = self._new_point()
        image = os.open(upper.path, os.O_RDWR | hostio.NO_WAIT | os.O_CLOEXEC)
        self._locks.callback(os.close, image)
        self._image = image
        span = None if upper.object_id is None else (upper.offset, upper.size or 0)
        offset, size = span or (0, 0)
        check_unused(upper.path, writers_only=False, span=span)
        lock_range(image, write=True, offset=offset, size=size, path=upper.path)
        check_unused(upper.path, writers_only=False, span=span, own_lock=True)
        fd = self._mount_fuse(point, read_only=False)
        server = start_server(partial(_open_image, fd, image, upper, self.owner), before=self._leave_session)
        os.close(fd)
        self._writer = (upper.path, server)
        self._image_point = point

    def _await_image(self, upper: Upper) -> str:
        assert self._writer is not None
        try:
            self._writer[1].await_ready()
        except OSError as error:
            self._writer = None
            raise failed_call(f"{show(upper.name)} cannot be served", error, hint=_check_hint(upper)) from error
        self._is_image_ready = True
        return self._image_point

    def _finish_writer(self, name: str, server: ServerProcess, device: int) -> None:
        """Wait until all is written. ``device``: of the container's root. Raises LaunchError if it cannot be."""
        if not self._is_image_ready:  # something else has failed before the first change
            server.wait()
            return
        if not server.is_unmounted(LEFT_BEHIND_SECONDS):
            server.leave()
            self.notify(still_used(name, device))
            return
        code = server.wait()
        if code == FULL:
            grow = f"sifkit overlay resize {shell_quote(name)} --size +1G"
            self.notify(f"{show(name)} is full: not all could be written; make it larger with: {grow}")
        elif code < 0:
            raise LaunchError(
                f"{show(name)}: its server {_ended(code)}: changes of the last {COMMIT_SECONDS:.0f} seconds are lost"
            )
        elif code != 0:
            raise LaunchError(f"{show(name)}: the last changes could not be written", hint="check the image and its disk")

    def _new_point(self) -> str:
        self._count += 1
        point = f"{self.session.path}/{self._count}"
        os.mkdir(point, 0o755)
        return point

    def _mount_fuse(self, point: str, *, read_only: bool = True) -> int:
        try:
            fd = mount_fuse(point, name="sifkit", read_only=read_only, uid=self.owner[0], gid=self.owner[1])
        except OSError as error:
            raise failed_call("FUSE cannot be mounted", error, hint="see what this host allows: sifkit doctor") from error
        self._mounted.append(point)
        return fd

    def _leave_run(self) -> None:
        """In a server of layers that are read: as ``_leave_session``, and let go of the image that is written to."""
        self._leave_session()
        if self._image is not None:
            os.close(self._image)

    def _leave_session(self) -> None:
        """In a server: have no part in its own mount, which would keep it alive for ever, nor in reports of other servers."""
        sys.unshare(sys.CLONE_NEWNS)
        sys.umount(self.place, sys.MNT_DETACH)
        others = self._servers if self._writer is None else [*self._servers, self._writer[1]]
        for server in others:
            os.close(server.report)


def _device_of(point: str) -> int:
    """Return the device of a mounted root; 0 if nobody serves it any longer."""
    try:
        return os.stat(point).st_dev
    except OSError:
        return 0


def _ended(code: int) -> str:
    """Return how a server has ended, from its exit code."""
    if code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"has ended with code {code}"


def _open_view(fd: int, layers: Sequence[Layer], owner: tuple[int, int]) -> Server:
    """Open the merged layers, in the process that serves them until it ends. Raises SifkitError and OSError."""
    trees = [_open_layer(layer) for layer in layers]
    return Server(fd, TreeBackend(UnionTree(trees) if len(trees) > 1 else trees[0], owner=owner), report=report_error)


def _open_image(fd: int, image: int, upper: Upper, owner: tuple[int, int]) -> Server:
    """Open an ext3 image for changes, in the process that serves it. New files belong to the caller."""
    from .fuse.ext3_backend import Ext3Backend

    size = upper.size or os.lseek(image, 0, os.SEEK_END) - upper.offset
    backend = Ext3Backend(image, upper.offset, size, shown=owner, stored=owner, work=upper.work)
    return WritableServer(fd, backend, report=report_error)


def _check_hint(upper: Upper) -> str:
    return f"check it with: sifkit overlay fsck -fn {shell_quote(upper.path)}"


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
        top = Resolver(tree).lookup(os.fsencode(layer.subdirectory), follow=False)
        if not is_dir(tree.stat(top)):
            raise LaunchError(f"{show(layer.name)}: {show(layer.subdirectory)} is not a directory")
        return Subtree(tree, top)
    except SifkitError as error:
        error.set_path(layer.path)
        raise


def _open_ext3(layer: Layer) -> FileTree[Any]:
    from ..overlay.images.filesystem_opening import open_filesystem

    partition = None if layer.object_id is None else str(layer.object_id)
    offset = layer.offset or None if partition is None else None
    return _opened.enter_context(open_filesystem(layer.path, partition, offset=offset)).tree
