"""Layers of a container mounted by the kernel, for root: loop devices, squashfs, ext3, overlayfs, all below the session.

The images are open and locked; see ``image_files``.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ...errors import shell_quote, show
from .. import sys
from ..container.mount_points import real_directory
from ..errors import LaunchError, failed_call, unmounted, unwritten
from ..images.image_files import ImageFiles
from ..planning.run_plan import DataImage, Layer, Upper
from .session import device_of

__all__ = ["KernelLayers"]

UMOUNT_ATTEMPTS, UMOUNT_PAUSE = 10, 0.05
"""Attempts at an unmount that finds the filesystem busy, and seconds between two of them."""
MARKS_OF_USERS, MARKS_OF_ROOT = ",userxattr", ",index=off,redirect_dir=follow"
"""Options of overlayfs on what it writes beside files. Of root: nothing that other mounts do not follow (renamed directories,
files without content), or that ties the layer to those below, whatever the kernel does by default."""


class KernelLayers:
    """Mounts of the layers of one run, below the directory ``session``. ``close`` removes them and ends the locks.

    ``notify``: takes a line about an image that processes of the container still use after that. ``in_user_namespace``:
    overlayfs keeps its marks in xattrs of the user.
    """

    def __init__(
        self, session: str, images: ImageFiles, notify: Callable[[str], None], *, in_user_namespace: bool = False
    ) -> None:
        self.session = session
        self.images = images
        self.notify = notify
        self._marks = MARKS_OF_USERS if in_user_namespace else MARKS_OF_ROOT
        self.root_device = 0
        self._written: list[_WrittenLayer] = []
        self._is_joined = False
        self._count = 0
        self._mounted: list[tuple[str, str]] = []
        self._lengths: dict[Layer | Upper, tuple[int, int]] = {}
        """Descriptors of images that are mounted, and how long their files were."""
        self._binds: set[str] = set()
        """Mount points of directories of the host, in which others may be mounted."""

    def add_layer(self, layer: Layer) -> str:
        """Mount a layer read-only; return its directory."""
        point = self.new_point()
        if layer.kind == "directory":
            self._mount(layer.name, layer.path, point, None, sys.MS_BIND | sys.MS_REC)
            flags = sys.MS_RDONLY | sys.MS_NOSUID | sys.MS_NODEV
            sys.mount(None, point, None, sys.MS_BIND | sys.MS_REMOUNT | flags | sys.bind_flags(point))
        else:
            self._mount_image(layer, self.images.descriptor(layer), point, layer.kind, write=False)
        return real_directory(point, layer.subdirectory, layer.name)

    def add_writable_directory(self, layer: Layer) -> str:
        """Mount a directory of the host, which is written to itself; return where it is."""
        point = self.new_point()
        self._mount(layer.name, layer.path, point, None, sys.MS_BIND | sys.MS_REC)
        flags = sys.MS_BIND | sys.MS_REMOUNT | sys.MS_NOSUID | sys.MS_NODEV
        sys.mount(None, point, None, flags | sys.bind_flags(point))
        return point

    def add_upper(self, upper: Upper) -> tuple[str, str]:
        """Mount the writable layer; return its directories for the files and for overlayfs, made if they are missing."""
        from .writable_layer import upper_directories

        point = self.new_point()
        if upper.kind == "tmpfs":
            options = "mode=755" if upper.size is None else f"mode=755,size={upper.size}"
            self._mount("memory", "sifkit", point, "tmpfs", sys.MS_NODEV | sys.MS_NOSUID, options)
        elif upper.kind == "directory":
            # recursive: a user namespace allows nothing else of a directory that others are mounted in
            self._mount(upper.name, upper.path, point, None, sys.MS_BIND | sys.MS_REC)
        else:
            self._mount_written(upper, point)
        if upper.kind == "tmpfs":
            self._written.append(_WrittenLayer(upper, point, os.open(point, os.O_RDONLY | os.O_CLOEXEC)))
        return upper_directories(point, upper)

    def add_image(self, image: DataImage) -> str:
        """Mount a data image; return its directory."""
        if isinstance(image, Layer):
            return self.add_layer(image)
        point = self.new_point()
        self._mount_written(image, point)
        return point

    def join(self, layers: Sequence[str], upper: tuple[str, str] | None, of: Upper | None = None) -> str:
        """Return the directory of the merged layers, the lowest first; ``upper``: from ``add_upper``, directories ``of`` that.

        Raises LaunchError, also if overlayfs joins them read-only though there is an upper layer.
        """
        if upper is None and len(layers) == 1:
            return layers[0]
        point = self.new_point()
        options = "lowerdir=" + ":".join(reversed(layers))
        if upper is not None:
            options += f",upperdir={upper[0]},workdir={upper[1]}"
        flags = sys.MS_NODEV | sys.MS_NOSUID | (0 if upper else sys.MS_RDONLY)
        try:
            sys.mount("overlay", point, "overlay", flags, options + self._marks)
        except OSError as error:
            from .writable_layer import unjoined

            raise unjoined(of, error) from error
        self._mounted.append(("overlay", point))
        if upper is not None and os.statvfs(point).f_flag & os.ST_RDONLY:
            from .writable_layer import unjoined

            raise unjoined(of, point=point)
        self._is_joined = upper is not None
        self.root_device = os.stat(point).st_dev
        return point

    @contextmanager
    def joined(self, layers: Sequence[str]) -> Iterator[str]:
        """Give the directory of the merged layers, to look at; as ``join``, until the block ends."""
        before = len(self._mounted)
        yield self.join(layers, None)
        while len(self._mounted) > before:
            sys.umount(self._mounted.pop()[1])

    def close(self) -> None:
        """Unmount all, which writes what the filesystems hold.

        Raises LaunchError if one of them stays, or if what was written last is not on storage.
        """
        failed: LaunchError | None = None
        device = self.root_device or (device_of(self._mounted[-1][1]) if self._mounted else 0)
        while self._mounted:
            name, point = self._mounted.pop()
            try:
                for written in self._written:
                    if point == written.point:
                        self._finish(written)
            except OSError as error:
                failed = failed or unwritten(name, error)
            try:
                if point in self._binds:
                    sys.umount(point, sys.MNT_DETACH)
                else:
                    _umount(point)
            except OSError as error:
                failed = failed or failed_call(f"{show(name)} cannot be unmounted", error)
                with suppress(OSError):
                    sys.umount(point, sys.MNT_DETACH)
        for written in self._written:
            if written.image is None:
                continue
            if not _is_released(written.device):
                from ..container.left_behind import still_used  # its loop device has the open file, and with it the lock

                self.notify(still_used(written.upper.name, device))
            try:
                os.fsync(written.image)
            except OSError as error:
                failed = failed or unwritten(written.upper.name, error)
        failed = self._cut_image() or failed
        if self._is_joined:
            self.images.leave_directory(self.root_device)
        if failed is not None:
            raise failed

    def _cut_image(self) -> LaunchError | None:
        """Return an error if another program has cut the file of what was written to; say it of the others."""
        failed = None
        for image, (fd, length) in self._lengths.items():
            found = os.fstat(fd).st_size
            if found >= length:
                continue
            from ..images.image_place import ImagePlace

            reason = f"its file was cut to {found:,} bytes by another program"  # or less: the kernel has written to it since
            if isinstance(image, Upper):
                failed = unwritten(image.name, OSError(errno.EIO, reason), check=ImagePlace.of(image).fsck("-fn"))
            else:
                self.notify(f"not all of {show(image.name)} could be read: {reason}")
        return failed

    def _finish(self, written: _WrittenLayer) -> None:
        """Bring the layer that was written to to storage, and say if it is full. Raises OSError."""
        from .writable_layer import full_note, fullness

        try:
            full = fullness(written.upper, os.fstatvfs(written.fd))
            if full and (self._is_joined or not written.upper.is_layer):
                self.notify(full_note(written.upper, full))
            if written.image is not None:
                sys.syncfs(written.fd)
        finally:
            os.close(written.fd)

    def new_point(self) -> str:
        """Make a directory to mount on."""
        self._count += 1
        point = f"{self.session}/{self._count}"
        os.mkdir(point, 0o755)
        return point

    def _mount_written(self, upper: Upper, point: str) -> None:
        """Mount an image that is written to."""
        fd = self.images.descriptor(upper)
        device = self._mount_image(upper, fd, point, "ext3", write=True)
        opened = os.open(point, os.O_RDONLY | os.O_CLOEXEC)
        self._written.append(_WrittenLayer(upper, point, opened, image=fd, device=device))

    def _mount_image(self, image: Layer | Upper, fd: int, point: str, kind: str, *, write: bool) -> str:
        """Mount an image; return its loop device."""
        try:
            device, path = sys.attach_loop(fd, offset=image.offset, size=image.size or 0, read_only=not write)
        except OSError as error:
            raise failed_call(f"{show(image.name)} gets no loop device", error) from error
        try:
            flags = sys.MS_NODEV | sys.MS_NOSUID | (0 if write else sys.MS_RDONLY)
            self._mount(image.name, path, point, kind, flags, image=image)
            self._lengths[image] = fd, os.fstat(fd).st_size
        finally:
            os.close(device)
        return path

    def _mount(
        self,
        name: str,
        source: str,
        point: str,
        kind: str | None,
        flags: int,
        options: str | None = None,
        *,
        image: Layer | Upper | None = None,
    ) -> None:
        try:
            sys.mount(source, point, kind, flags, options)
        except OSError as error:
            raise unmounted(show(name), error, hint="" if image is None else _mount_hint(image, error)) from error
        self._mounted.append((name, point))
        if flags & sys.MS_BIND:
            self._binds.add(point)


class _WrittenLayer(NamedTuple):
    """Layer that is written to, mounted at ``point`` and open there as ``fd``; of an image its file and loop device.

    ``fd`` is open from the beginning, so that it knows of all errors of writing.
    """

    upper: Upper
    point: str
    fd: int
    image: int | None = None
    device: str = ""


def _mount_hint(image: Layer | Upper, error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "this kernel lacks its filesystem: use -u"
    if error.errno == errno.EROFS:
        from ..images.image_place import ImagePlace

        return f"its journal must be replayed first: {ImagePlace.of(image).fsck('-p')}"
    check = f"check it with: sifkit check {shell_quote(image.path)}"  # which says, too, if it is truncated
    if isinstance(image, Layer) and image.kind == "squashfs" and error.errno == errno.EINVAL:
        return f"{check}; if it is sound, this kernel lacks its compression: use -u"
    return check


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
