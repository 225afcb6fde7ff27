"""Writable layer of a run: its directories, the error if overlayfs does not take it, and the note at the end if it is full.

It is loaded only if something is written to, and ``ImagePlace`` for messages only: a layer in memory needs none.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Literal

from ...errors import human, show
from ..container.mount_points import real_directory
from ..errors import LaunchError, failed_call
from ..planning.run_plan import Upper

__all__ = ["Fullness", "full_note", "fullness", "unjoined", "upper_directories"]

Fullness = Literal["", "bytes", "inodes"]
FEW_BYTES, FEW_PERCENT = 2 << 20, 15
"""Free bytes at most, and their share, with which the kernel's ext3 refuses writes: it takes up to 2 MiB of a file at once.

So much is left of an image of 16M into which large blocks are written, 1.8 of 13.9 MiB.
"""


def upper_directories(point: str, upper: Upper) -> tuple[str, str]:
    """Return the directories for the files and for overlayfs of a writable layer at ``point``, made if they are missing."""
    try:
        for name in (upper.upper, upper.work):
            with suppress(FileExistsError):
                os.makedirs(f"{point}/{name}", 0o755)
    except OSError as error:
        raise unjoined(upper, error) from error
    work = real_directory(point, upper.work, upper.name)
    with suppress(OSError):  # there is none, or it is not empty
        if os.lstat(f"{work}/work").st_uid != os.geteuid():  # left by another user's overlayfs, and closed to this one's
            os.rmdir(f"{work}/work")
    return real_directory(point, upper.upper, upper.name), work


def fullness(upper: Upper, found: os.statvfs_result) -> Fullness:
    """Return what a layer has none left of, as statvfs of its filesystem says; "" if there is enough.

    Whether a write has failed it does not say: an image with hardly anything left counts as full. A tmpfs gives out all.
    """
    if found.f_files and not found.f_ffree:
        return "inodes"
    size, free = found.f_blocks * found.f_frsize, found.f_bfree * found.f_frsize
    most = 0 if upper.kind == "tmpfs" else min(FEW_BYTES, size * FEW_PERCENT // 100)
    return "bytes" if size and free <= most else ""


def full_note(upper: Upper, full: Fullness) -> str:
    """Return the note on a layer that is full, in one line."""
    if upper.kind == "tmpfs":
        size = "" if upper.size is None else f" ({human(upper.size)})"
        larger = "2G" if upper.size is None else human(2 * upper.size).replace(" ", "").removesuffix("iB")
        return f"the memory for changes{size} is full: give it more with --tmpfs-size {larger}"
    from ..images.image_place import ImagePlace

    place = ImagePlace.of(upper)
    return f"{place.name} is full ({full}); make it larger with: {place.resize('+1G')}"


def unjoined(upper: Upper | None, error: OSError | None = None, point: str = "") -> LaunchError:
    """Return the error of layers that overlayfs does not join, or, without an ``error``, has joined read-only at ``point``.

    It makes its work directory anew at each start: an image in which there is no room for that is what is usually wrong.
    """
    if error is not None and error.errno == errno.ELOOP:
        what = "the layers cannot be joined: of the directories given as image and overlays, one lies in another"
        return LaunchError(what, hint="move the overlay out of the image")
    if upper is None or upper.kind != "image":
        what = "the kernel's overlayfs cannot join the layers"
        hint = "see: sifkit doctor"
        if upper is not None and upper.kind == "directory":
            hint = f"if another user has left files in {show(upper.path)}/{upper.work}/work, have him remove that directory"
        return failed_call(what, error) if error else LaunchError(f"{what} but read-only", hint=hint)
    from ..images.image_place import ImagePlace

    place = ImagePlace.of(upper)
    if error.errno == errno.ENOSPC if error else fullness(upper, os.statvfs(point)):
        hint = f"make it larger with: {place.resize('+1G')}, remove files with: sifkit rm, or read it: {show(upper.path)}:ro"
        return LaunchError(f"{place.name} is full: it has no room for the work directory of overlayfs", hint=hint)
    what = f"{place.name}: the kernel's overlayfs cannot use it"
    hint = f"check it with: {place.fsck('-fn')}"
    return failed_call(what, error, hint=hint) if error else LaunchError(f"{what} to write", hint=hint)
