"""Errors of a host's filesystem that has no space for an image: how much it needs, and how much is free."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ext3 import hostio
from ext3.errors import DeviceError, Ext3Error, SourceError

from ...errors import TargetError, human, show

if TYPE_CHECKING:
    from .planning import OverlayPlan

__all__ = ["space_errors"]


@contextmanager
def space_errors(target: str, overlay: OverlayPlan, fd: int, *, sparse: bool) -> Iterator[None]:
    """Turn ENOSPC and EFBIG of the host into a TargetError that says how much space is needed.

    ``sparse`` False: the whole image is allocated, not only the blocks in use.
    """
    plan = overlay.plan
    before = _blocks(fd)
    try:
        yield
    except OSError as error:
        if isinstance(error, Ext3Error) and not isinstance(error, DeviceError | SourceError):
            raise
        if error.errno not in hostio.FULL:
            if isinstance(error, Ext3Error):
                raise
            raise TargetError(f"{show(target)}: {error.strerror}", path=target, error=error) from error
        used = (plan.geometry.blocks - plan.free_blocks) * plan.geometry.block_size
        needed = used if sparse else overlay.size_bytes
        if error.errno == errno.EFBIG:
            raise TargetError(
                f"{show(target)}: its filesystem does not allow files of {human(plan.geometry.size_bytes)}",
                path=target,
                hint="choose a smaller --size, or another filesystem",
                error=error,
            ) from error
        free = _free_bytes(os.path.dirname(os.path.realpath(target)), _blocks(fd) - before)
        raise TargetError(
            f"no space left for {show(target)}: it needs up to {human(needed)}"
            + (f" and {human(free)} are free" if free is not None else ""),
            path=target,
            hint="free some space, or write it to another filesystem",
            error=error,
        ) from error


def _blocks(fd: int) -> int:
    """Return the 512-byte blocks a file takes; 0 if unknown."""
    return getattr(os.fstat(fd), "st_blocks", 0)


def _free_bytes(directory: str, released: int) -> int | None:
    """Return the free space of ``directory`` once ``released`` blocks of 512 bytes are freed; None if unknown."""
    if not hasattr(os, "statvfs"):
        return None
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize + max(0, released) * 512
