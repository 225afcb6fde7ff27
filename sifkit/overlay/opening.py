"""Opening of an image for reading, with checks whose errors are clearer than those of the format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ext3 import hostio
from ext3.read.filesystem import Filesystem

from ..atomic import HostPath
from ..errors import FormatError, NotYetError, UsageError, show
from .image_format import image_kind
from .sif_partition import open_partition
from .window import Window, check_window

__all__ = ["check_whole", "open_image", "open_window"]


@contextmanager
def open_image(path: HostPath, partition: str | None = None) -> Iterator[Filesystem]:
    """Open the filesystem in the image at ``path``, or in a ``partition`` of the SIF there, read-only.

    Raises what ``open_window`` and ``check_window`` do, and Ext3Error.
    """
    with open_window(path, partition) as window:
        check_window(window)
        with Filesystem.open(window.device()) as filesystem:
            yield filesystem


def check_whole(path: HostPath) -> None:
    """Raise TruncatedError if a stand-alone image is shorter than its filesystem."""
    with open_window(path) as window:
        check_window(window)


@contextmanager
def open_window(path: HostPath, partition: str | None = None) -> Iterator[Window]:
    """Open the image at ``path``, or a ``partition`` ("overlay", "root" or an ID) of the SIF there, for reading; takes no lock.

    Raises OSError, FormatError for other files, NotYetError for a filesystem that this release does not read or a SIF without
    ``partition``, UsageError for another image with one, and the errors of the SIF library.
    """
    name = os.fsdecode(path)
    kind = image_kind(name)
    if kind != "sif" and partition is not None:
        raise UsageError(f"{show(name)} is not a SIF image, and --partition is for SIF images", hint="leave out --partition")
    if kind == "squashfs":
        raise FormatError(f"{show(name)} is a squashfs image, not ext3", path=name, hint="give an ext3 image")
    if kind == "sif":
        if partition is None:
            raise NotYetError(
                f"{show(name)} is a SIF image, and this release does not show a container's view of it",
                path=name,
                hint=f"--partition overlay shows its overlay; list its objects with: sifkit sif list {show(name)}",
            )
        with open_partition(name, partition) as window:
            yield window
        return
    fd = os.open(name, os.O_RDONLY | hostio.NO_WAIT)
    try:
        yield Window(name, fd, 0, os.lseek(fd, 0, os.SEEK_END))
    finally:
        os.close(fd)
