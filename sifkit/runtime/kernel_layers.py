"""Layers of a container mounted by the kernel, for root: loop devices, squashfs, ext3, overlayfs, all below the session.

Images are opened and locked as Apptainer does: the range of each ext3 filesystem, for writing if it is the upper layer. The
locks are this process's until the mounts are gone.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from ext3 import hostio

from ..atomic import lock_range
from ..errors import shell_quote, show
from ..in_use import check_unused
from . import sys
from .errors import LaunchError, failed_call
from .left_behind import still_used
from .run_plan import Layer, Upper

__all__ = ["KernelLayers", "real_directory"]

UMOUNT_ATTEMPTS, UMOUNT_PAUSE = 10, 0.05
"""Attempts at an unmount that finds the filesystem busy, and seconds between two of them."""


class KernelLayers:
    """Mounts of the layers of one run, below the directory ``session``. ``close`` removes them and ends the locks.

    ``notify``: takes a line about an image that processes of the container still use after that.
    """

    def __init__(self, session: str, notify: Callable[[str], None]) -> None:
        self.session = session
        self.notify = notify
        self._written: tuple[str, str] | None = None
        self._count = 0
        self._mounted: list[tuple[str, str]] = []
        self._locks = ExitStack()

    def add_layer(self, layer: Layer) -> str:
        """Mount a layer read-only; return its directory."""
        point = self._new_point()
        if layer.kind == "directory":
            self._mount(layer.name, layer.path, point, None, sys.MS_BIND | sys.MS_REC)
            sys.mount(None, point, None, sys.MS_BIND | sys.MS_REMOUNT | sys.MS_RDONLY | sys.bind_flags(point))
        else:
            window = (layer.offset, layer.size)
            fd = self._open(layer.path, window, is_ext3=layer.kind == "ext3", write=False, is_part=layer.object_id is not None)
            self._mount_image(layer.name, fd, window, point, layer.kind, write=False)
        return real_directory(point, layer.subdirectory, layer.name)

    def add_writable_directory(self, layer: Layer) -> str:
        """Mount a directory of the host, which is written to itself; return where it is."""
        point = self._new_point()
        self._mount(layer.name, layer.path, point, None, sys.MS_BIND | sys.MS_REC)
        flags = sys.MS_BIND | sys.MS_REMOUNT | sys.MS_NOSUID | sys.MS_NODEV
        sys.mount(None, point, None, flags | sys.bind_flags(point))
        return point

    def add_upper(self, upper: Upper) -> tuple[str, str]:
        """Mount the writable layer; return its directories for the files and for overlayfs, made if they are missing."""
        point = self._new_point()
        if upper.kind == "tmpfs":
            options = "mode=755" if upper.size is None else f"mode=755,size={upper.size}"
            self._mount("memory", "sifkit", point, "tmpfs", sys.MS_NODEV | sys.MS_NOSUID, options)
        elif upper.kind == "directory":
            self._mount(upper.name, upper.path, point, None, sys.MS_BIND)
        else:
            window = (upper.offset, upper.size)
            fd = self._open(upper.path, window, is_ext3=True, write=True, is_part=upper.object_id is not None)
            self._mount_image(upper.name, fd, window, point, "ext3", write=True)
        for name in (upper.upper, upper.work):
            with suppress(FileExistsError):
                os.mkdir(f"{point}/{name}", 0o755)
        return real_directory(point, upper.upper, upper.name), real_directory(point, upper.work, upper.name)

    def join(self, layers: Sequence[str], upper: tuple[str, str] | None) -> str:
        """Return the directory of the merged layers, the lowest first; ``upper``: from ``add_upper``."""
        if upper is None and len(layers) == 1:
            return layers[0]
        point = self._new_point()
        options = "lowerdir=" + ":".join(reversed(layers))
        if upper is not None:
            options += f",upperdir={upper[0]},workdir={upper[1]}"
        flags = sys.MS_NODEV | sys.MS_NOSUID | (0 if upper else sys.MS_RDONLY)
        self._mount("overlay", "overlay", point, "overlay", flags, options)
        return point

    @contextmanager
    def joined(self, layers: Sequence[str]) -> Iterator[str]:
        """Give the directory of the merged layers, to look at; as ``join``, until the block ends."""
        before = len(self._mounted)
        yield self.join(layers, None)
        while len(self._mounted) > before:
            sys.umount(self._mounted.pop()[1])

    def close(self) -> None:
        """Unmount all, which writes what the filesystems hold. Raises LaunchError if one of them stays."""
        failed: LaunchError | None = None
        device = os.stat(self._mounted[-1][1]).st_dev if self._mounted else 0
        while self._mounted:
            name, point = self._mounted.pop()
            try:
                _umount(point)
            except OSError as error:
                failed = failed or failed_call(f"{show(name)} cannot be unmounted", error)
                with suppress(OSError):
                    sys.umount(point, sys.MNT_DETACH)
        self._locks.close()
        if self._written is not None and not _is_released(self._written[1]):
            self.notify(still_used(self._written[0], device))
        if failed is not None:
            raise failed

    def _new_point(self) -> str:
        self._count += 1
        point = f"{self.session}/{self._count}"
        os.mkdir(point, 0o755)
        return point

    def _open(self, path: str, window: tuple[int, int | None], *, is_ext3: bool, write: bool, is_part: bool) -> int:
        """Open an image; an ext3 filesystem locked and used by no one else in a way that conflicts."""
        fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | hostio.NO_WAIT | os.O_CLOEXEC)
        self._locks.callback(os.close, fd)
        if is_ext3:
            offset, size = (window[0], window[1] or 0) if is_part else (0, 0)
            span = (offset, size) if is_part else None
            check_unused(path, writers_only=not write, span=span)
            lock_range(fd, write=write, offset=offset, size=size, path=path)
            check_unused(path, writers_only=not write, span=span, own_lock=True)
        return fd

    def _mount_image(self, name: str, fd: int, window: tuple[int, int | None], point: str, kind: str, *, write: bool) -> None:
        try:
            device, path = sys.attach_loop(fd, offset=window[0], size=window[1] or 0, read_only=not write)
        except OSError as error:
            raise failed_call(f"{show(name)} gets no loop device", error) from error
        try:
            self._mount(name, path, point, kind, sys.MS_NODEV | sys.MS_NOSUID | (0 if write else sys.MS_RDONLY))
        finally:
            os.close(device)
        if write:
            self._written = name, path

    def _mount(self, name: str, source: str, point: str, kind: str | None, flags: int, options: str | None = None) -> None:
        try:
            sys.mount(source, point, kind, flags, options)
        except OSError as error:
            raise failed_call(f"{show(name)} cannot be mounted", error, hint=_mount_hint(name, kind, error)) from error
        self._mounted.append((name, point))


def _mount_hint(name: str, kind: str | None, error: OSError) -> str:
    if kind == "ext3" and error.errno == errno.EROFS:
        return f"its journal must be replayed first: sifkit overlay fsck -p {shell_quote(name)}"
    if kind == "ext3":
        return f"check it with: sifkit overlay fsck -fn {shell_quote(name)}"
    return ""


def real_directory(point: str, name: str, image: str) -> str:
    """Return a directory in an image. Raises LaunchError for another file: a symlink would lead to the host."""
    path = f"{point}/{name}" if name else point
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise failed_call(f"{show(image)}: {show(name)}/ cannot be used", error) from error
    if not stat.S_ISDIR(mode):
        raise LaunchError(f"{show(image)}: {show(name)} is not a directory")
    return path


def _is_released(device: str) -> bool:
    """Return True if a loop device has let go of its file, which takes a moment after the last unmount."""
    backing = f"/sys/block/{os.path.basename(device)}/loop/backing_file"
    for _ in range(UMOUNT_ATTEMPTS):
        if not os.path.exists(backing):
            return True
        time.sleep(UMOUNT_PAUSE)
    return False


def _umount(point: str) -> None:
    for attempt in range(UMOUNT_ATTEMPTS):
        try:
            sys.umount(point)
        except OSError as error:
            if error.errno != errno.EBUSY or attempt == UMOUNT_ATTEMPTS - 1:
                raise
            time.sleep(UMOUNT_PAUSE)
        else:
            return
