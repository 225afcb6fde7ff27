"""Errors of a host's filesystem that is full: the file that was written, how much it needs, and how much is free."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ext3 import hostio

from .errors import HostFullError, TargetError, human, show

__all__ = ["filled_holes_notes", "free_bytes", "full_host_errors"]

LEAST_FILLED = 1 << 20
"""Bytes by which a copy is larger on disk, below which nothing is said: filesystems count in units of many sizes."""
_HOST_KINDS = ("io", "source", "target")
"""Kinds of errors that a full host gives, if they have one."""


@contextmanager
def full_host_errors(
    target: str,
    needed: int | Callable[[], int],
    *,
    directory: str | None = None,
    size: int | None = None,
    in_place: bool = False,
) -> Iterator[None]:
    """Turn errors of a full host filesystem (ENOSPC, EDQUOT, EFBIG) in the block, which writes ``target``, into TargetErrors.

    ``needed``: bytes that the target takes at most, or a function for them that is called only then. ``directory``: where its
    filesystem is looked at; None: that of the target. ``size``: of the target with its holes; None: as ``needed``.
    ``in_place``: the target exists, and cannot be written elsewhere. Errors of images that are full are passed on.
    """
    place = directory if directory is not None else os.path.dirname(os.path.realpath(target))
    free = free_bytes(place)
    try:
        yield
    except OSError as error:
        if error.errno not in hostio.FULL or getattr(error, "kind", "io") not in _HOST_KINDS:
            raise
        wanted = needed if isinstance(needed, int) else needed()
        if error.errno == errno.EFBIG and size is not None:
            wanted = size
        full = _full_error(target, place, wanted, free, error)
        if in_place:
            full.hint = "free some space there, or move the image to another filesystem first"
        raise full from error


def filled_holes_notes(path: str, before: int, after: int) -> tuple[str, ...]:
    """Return a note if the copy at ``path`` takes more of its disk than the original: bytes allocated ``before``, ``after``."""
    if after - before < max(LEAST_FILLED, before // 4):
        return ()
    return (
        f"{show(path)}: the copy takes {human(after)} on disk, the original {human(before)}: its holes were filled, because a"
        " filesystem in between has none",
    )


def _full_error(target: str, place: str, needed: int, free: int | None, error: OSError) -> TargetError:
    name = show(target)
    if error.errno == errno.EFBIG:
        return TargetError(
            f"{name}: its filesystem does not allow files of {human(needed)}",
            path=target,
            hint="write it to another filesystem",
            error=error,
        )
    hint = "free some space, or write it to another filesystem"
    if error.errno == errno.EDQUOT:
        text, free = f"the disk quota does not allow {name}: it needs up to {human(needed)}", None
        hint = "free some space, raise the quota, or write it to another filesystem"
    elif _out_of_inodes(place):
        text, hint = f"no inodes left for {name}", "remove some files there, or write it to another filesystem"
    else:
        text = f"no space left for {name}: it needs up to {human(needed)}"
        text += f" and {human(free)} are free" if free is not None and free < needed else ""
    return HostFullError(text, path=target, hint=hint, needed_bytes=needed, available_bytes=free, error=error)


def free_bytes(directory: str) -> int | None:
    """Return the free space of the filesystem; None if unknown."""
    try:
        found = os.statvfs(directory or os.curdir)
    except (OSError, AttributeError):
        return None
    return found.f_bavail * found.f_frsize


def _out_of_inodes(directory: str) -> bool:
    """Return True if the filesystem has a number of inodes, and none is free."""
    try:
        found = os.statvfs(directory or os.curdir)
    except (OSError, AttributeError):
        return False
    return found.f_files > 0 and found.f_favail == 0
