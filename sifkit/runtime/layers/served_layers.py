"""Layers of a container served by FUSE, for a plain user in a user namespace, below the session.

All read-only layers are one view, which a server process of its own serves: the kernel mounts no image for a plain user. It
loads the ext3 library only if a layer is an ext3 image.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from ...errors import SifkitError, shell_quote, show
from ...vfs.errors import TreePathError
from ...vfs.file_tree import FileTree
from ...vfs.host_tree import HostTree
from ...vfs.resolve import Resolver, is_dir
from .. import sys
from ..container.container_mounts import add_mount_points
from ..container.left_behind import LEFT_BEHIND_SECONDS, still_used
from ..container.mount_points import TreeRoot
from ..errors import LaunchError, failed_call, unmounted, unwritten
from ..fuse.mounting import ServerProcess, mount_fuse, report_error, serve_in_child, start_server
from ..fuse.server import Server
from ..fuse.tree_backend import TreeBackend
from ..images.image_files import ImageFiles
from ..planning.run_plan import DataImage, Layer, Mount, Upper
from .session import Session, device_of

__all__ = ["ServedLayers", "merged_layers"]

CACHE_BYTES = 4 << 20
"""Data blocks that a server of a squashfs keeps: the kernel keeps what files consist of."""
_opened = ExitStack()
"""Images of a server process, which are open until it ends."""


class ServedLayers:
    """Mounts of the layers of one run, below its ``session``.

    ``owner``: user and group of all files; None: those they have, which only root's namespace knows.
    """

    def __init__(
        self, session: Session, owner: tuple[int, int] | None, images: ImageFiles, notify: Callable[[str], None]
    ) -> None:
        self.notify = notify
        self.images = images
        self.session = session
        self.owner = owner
        self._count = 0
        self._mounted: list[str] = []
        self._servers: list[tuple[ServerProcess, Sequence[Layer]]] = []
        """Servers of views, and the layers of each."""
        self.root_device = 0
        """Device of the container's root, if that is mounted by others."""
        self._is_joined = False
        self._writers: dict[Upper, tuple[ServerProcess, str]] = {}
        """Servers of images that are written to, and where these are served."""
        self._memory: tuple[Upper, str] | None = None

    def view(self, layers: Sequence[Layer], mounts: Sequence[Mount]) -> str:
        """Mount the merged layers, the lowest first, with points for ``mounts``; return the directory. Raises LaunchError."""
        point = self._new_point()
        fd = self._mount_fuse(point)
        # the server leaves the session, and keeps this directory of it
        points = os.open(self.session.points, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        open_server = partial(_open_view, fd, layers, self.owner, f"/proc/self/fd/{points}/.", mounts)
        try:
            server = serve_in_child(open_server, before=partial(self._begin, layers))
        except OSError as error:
            raise failed_call("the image cannot be served", error, hint=_check_hint(layers)) from error
        finally:
            os.close(points)
            os.close(fd)
        self._servers.append((server, layers))
        return point

    def add_image(self, image: DataImage) -> str:
        """Mount a data image; return its directory. Raises LaunchError."""
        if isinstance(image, Layer):
            if image.kind == "squashfs":
                from ...squashfs import reader  # here, since each image has a server, which would load it for itself

                del reader
            return self.view([image], ())
        self.start_image(image)
        return self.await_image(image)

    def add_upper(self, view: str, upper: Upper) -> str:
        """Mount a writable layer above the view; return the directory of both. Raises LaunchError."""
        from .writable_layer import unjoined, upper_directories

        base = self.await_image(upper) if upper.kind == "image" else self._new_point()
        try:
            if upper.kind == "tmpfs":
                size = "" if upper.size is None else f",size={upper.size}"
                sys.mount("sifkit", base, "tmpfs", sys.MS_NODEV | sys.MS_NOSUID, f"mode=755{size}")
            elif upper.kind == "directory":
                sys.bind(upper.path, base, recursive=True)  # a user namespace allows nothing else where others are mounted
        except OSError as error:
            raise unmounted(show(upper.name or "memory"), error) from error
        if upper.kind != "image":
            self._mounted.append(base)
        if upper.kind == "tmpfs":
            self._memory = upper, base
        files, work = upper_directories(base, upper)
        point = self._new_point()
        options = f"lowerdir={view},upperdir={files},workdir={work},userxattr"
        try:
            sys.mount("overlay", point, "overlay", sys.MS_NODEV | sys.MS_NOSUID, options)
        except OSError as error:
            raise unjoined(upper, error) from error
        self._mounted.append(point)
        if os.statvfs(point).f_flag & os.ST_RDONLY:  # what a kernel does that cannot use its work directory
            raise unjoined(upper, point=point)
        self._is_joined = True
        return point

    def note_faults(self) -> None:
        """Say what of the views could not be read. Of what is written to, ``close`` does."""
        for server, layers in self._servers:
            server.is_unmounted(0)  # reads what it has said
            if server.fault is not None:
                names = ", ".join(dict.fromkeys(show(layer.path) for layer in layers))
                hint = f"; {found}" if (found := _check_hint(layers)) else ""
                self.notify(f"not all of {names} could be read: {server.fault.strerror}{hint}")

    def close(self) -> None:
        """Unmount all. Servers end when no process of the container is left.

        Raises LaunchError if what was written last is not on storage.
        """
        for server in self._all_servers():
            server.resume()
        if self._memory is not None:
            from .writable_layer import full_note, fullness

            upper, point = self._memory
            full = fullness(upper, os.statvfs(point))
            if full:
                self.notify(full_note(upper, full))
        device = self.root_device or (device_of(self._mounted[-1]) if self._mounted else 0)
        for server, _ in self._servers:
            if (code := server.code_if_ended()) is not None:
                self.notify(f"the image could not be read to the end: its server {_ended(code)}")
        for _, point in self._writers.values():
            with suppress(OSError):
                os.statvfs(point)  # answered after a commit that is being made, so that the server sees the unmount at once
        while self._mounted:
            with suppress(OSError):
                sys.umount(self._mounted.pop(), sys.MNT_DETACH)
        until = time.monotonic() + LEFT_BEHIND_SECONDS
        is_left = False
        while self._servers:
            server, _ = self._servers.pop()
            # one that ends later has the image or the directory locked, and the next run finds it in use
            if self.images.has_locks and server.is_unmounted(until - time.monotonic()):
                server.wait()
            else:
                server.leave()
                is_left = True
        if is_left:
            self.images.note_left_directory(device)
        failed: LaunchError | None = None
        for upper, (server, _) in self._writers.items():
            try:
                self._finish_writer(upper, server, device, until)
            except LaunchError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _all_servers(self) -> list[ServerProcess]:
        return [server for server, _ in (*self._servers, *self._writers.values())]

    def start_image(self, upper: Upper) -> None:
        """Begin to serve an ext3 image that is written to; ``await_image`` waits until it is there."""
        point = self._new_point()
        fd = self._mount_fuse(point, read_only=False)
        assert self.owner is not None
        open_server = partial(_open_image, fd, self.images.descriptor(upper), upper, self.owner)
        server = start_server(open_server, before=partial(self._begin, [upper]))
        os.close(fd)
        self._writers[upper] = server, point

    def await_image(self, upper: Upper) -> str:
        """Return the directory where the image that is written to is served. Raises LaunchError."""
        server, point = self._writers[upper]
        try:
            server.await_ready()
        except OSError as error:
            del self._writers[upper]
            hint = f"check it with: {_fsck(upper)}"
            raise failed_call(f"{show(upper.name)} cannot be served", error, hint=hint) from error
        return point

    def _finish_writer(self, upper: Upper, server: ServerProcess, device: int, until: float) -> None:
        """Wait until all is written. Raises LaunchError if it cannot be.

        ``device``: of the container's root. ``until``: to when processes are waited for that are in it.
        """
        if upper.is_layer and not (self._is_joined or self.root_device):  # something else has failed before the first change
            server.wait()
            return
        from ..fuse.writable_server import COMMIT_SECONDS, FULL
        from .writable_layer import full_note

        if not server.is_unmounted(until - time.monotonic()):
            server.leave()
            self.notify(still_used(upper.name, device))
            return
        code = server.wait()
        if code in FULL:
            self.notify(full_note(upper, FULL[code]))
        elif code < 0:
            raise LaunchError(
                f"{show(upper.name)}: its server {_ended(code)}: changes of the last {COMMIT_SECONDS:.0f} seconds are lost"
            )
        elif code != 0:
            raise unwritten(upper.name, server.fault, check=_fsck(upper))
        elif server.fault is not None:
            self.notify(f"not all of {show(upper.name)} could be read: {server.fault.strerror}; check it with: {_fsck(upper)}")

    def _new_point(self) -> str:
        self._count += 1
        point = f"{self.session.path}/served-{self._count}"
        os.mkdir(point, 0o755)
        return point

    def _mount_fuse(self, point: str, *, read_only: bool = True) -> int:
        try:
            uid, gid = self.owner or (0, 0)
            fd = mount_fuse(point, name="sifkit", read_only=read_only, uid=uid, gid=gid)
        except OSError as error:
            raise failed_call("FUSE cannot be mounted", error, hint="see what this host allows: sifkit doctor") from error
        self._mounted.append(point)
        return fd

    def _begin(self, served: Sequence[Layer | Upper]) -> None:
        """In a server: have no part in its own mount, which would keep it alive for ever, nor in other locks and reports."""
        sys.unshare(sys.CLONE_NEWNS)
        sys.umount(self.session.place, sys.MNT_DETACH)
        self.images.close_others(served)
        for server in self._all_servers():
            os.close(server.report)


def merged_layers(layers: Sequence[Layer]) -> FileTree[Any]:
    """Return the layers, the lowest first, as one tree, open until this process ends. Raises SifkitError and OSError."""
    return _merged([_open_layer(layer) for layer in layers])


def _check_hint(layers: Sequence[Layer]) -> str:
    """Return how the images among the layers are checked; an empty text if there are none."""
    images = dict.fromkeys(shell_quote(layer.path) for layer in layers if layer.kind != "directory")
    return f"check it with: sifkit check {' '.join(images)}" if images else ""


def _fsck(upper: Upper) -> str:
    """Return the command that checks the image that was written to."""
    from ..images.image_place import ImagePlace

    return ImagePlace.of(upper).fsck("-fn")


def _ended(code: int) -> str:
    """Return how a server has ended, from its exit code."""
    if code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"has ended with code {code}"


def _open_view(fd: int, layers: Sequence[Layer], owner: tuple[int, int] | None, points: str, mounts: Sequence[Mount]) -> Server:
    """Open the merged layers, in the process that serves them until it ends. Raises SifkitError and OSError.

    ``points``: empty directory for the points of ``mounts`` that the layers have not.
    """
    trees = [_open_layer(layer) for layer in layers]
    tree = _merged(trees)
    if add_mount_points(TreeRoot(tree), points, mounts):
        trees.insert(1, HostTree(points))
        tree = _merged(trees)
    return Server(fd, TreeBackend(tree, owner=owner), report=report_error)


def _merged(trees: Sequence[FileTree[Any]]) -> FileTree[Any]:
    if len(trees) == 1:
        return trees[0]
    from ...vfs.union import UnionTree

    return UnionTree(trees)


def _open_image(fd: int, image: int, upper: Upper, owner: tuple[int, int]) -> Server:
    """Open an ext3 image for changes, in the process that serves it. New files belong to the caller."""
    from ..fuse.ext3_backend import Ext3Backend
    from ..fuse.writable_server import WritableServer

    size = upper.size or os.lseek(image, 0, os.SEEK_END) - upper.offset
    backend = Ext3Backend(image, upper.offset, size, shown=owner, stored=owner, work=upper.work, has_tmpfile=upper.has_tmpfile)
    return WritableServer(fd, backend, has_overlay=upper.is_layer, report=report_error)


def _open_layer(layer: Layer) -> FileTree[Any]:
    tree: FileTree[Any]
    try:
        if layer.kind == "squashfs":
            from ...squashfs.reader import Reader  # only what opens one needs it: the server of an image that is written to not

            tree = Reader.open(layer.path, offset=layer.offset, size=layer.size, cache_bytes=CACHE_BYTES)
        elif layer.kind == "directory":
            tree = HostTree(layer.path)
        else:
            tree = _open_ext3(layer)
        if not layer.subdirectory:
            return tree
        try:
            top = Resolver(tree).lookup(os.fsencode(layer.subdirectory), follow=False)
        except TreePathError as error:
            message = f"{show(layer.name)}: {show(layer.subdirectory)}/ cannot be used: {error.reason}"
            raise LaunchError(message, path=layer.path) from error
        if not is_dir(tree.stat(top)):
            raise LaunchError(f"{show(layer.name)}: {show(layer.subdirectory)} is not a directory")
        from ...vfs.subtree import Subtree

        return Subtree(tree, top)
    except SifkitError as error:
        error.set_path(layer.path)
        raise


def _open_ext3(layer: Layer) -> FileTree[Any]:
    from ...overlay.images.filesystem_opening import open_filesystem

    partition = None if layer.object_id is None else str(layer.object_id)
    offset = layer.offset or None if partition is None else None
    opened = _opened.enter_context(open_filesystem(layer.path, partition, offset=offset))
    problem = None if opened.image is None else opened.image.journal_problem
    if problem is not None:  # without its journal an image shows what it was before
        from ..images.image_place import ImagePlace

        place = ImagePlace.of(layer)
        raise LaunchError(f"{place.name}: its journal cannot be read: {problem}", hint=f"repair it with: {place.fsck()}")
    return opened.tree
