"""Trim: gives the space of free blocks back to the host, as FITRIM does for a mounted filesystem.

Only blocks that are free in the committed state on storage are touched: nothing refers to them, so an interruption at any
moment leaves a whole filesystem. The bitmaps are believed, as far as they agree with the descriptors' counts, and none of the
filesystem's own blocks is free in them. Source: Linux ``fs/ext4/mballoc.c`` (ext4_trim_fs).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from ..device.base import PunchableDevice
from ..errors import DeviceError
from .blocks import Run
from .session import Session

__all__ = ["free_runs", "trim"]

Advance = Callable[[int], None]
"""Called with the bytes of blocks looked at since the last call."""


def free_runs(session: Session) -> Iterator[Run]:
    """Yield the runs of free blocks, ascending; they may cross groups. The session has nothing uncommitted.

    Raise CorruptError for a bitmap that contradicts its descriptor, or has the filesystem's own blocks as free.
    """
    blocks = session.blocks
    pending: Run | None = None
    for group in range(len(blocks.free_counts)):
        start = blocks.first + group * blocks.per_group
        for index, count in blocks.bitmap(group).free_runs():
            if pending is not None and sum(pending) == start + index:
                pending = pending[0], pending[1] + count
                continue
            if pending is not None:
                yield pending
            pending = start + index, count
    if pending is not None:
        yield pending


def trim(session: Session, advance: Advance | None = None) -> int:
    """Commit, and free the space that free blocks take on the host. Return the bytes freed.

    Every bitmap is checked before the first block is freed. Raise CorruptError, and DeviceError if the host cannot free space
    inside a file (EOPNOTSUPP).
    """
    session.sync()
    runs = [(run, session.data_device(*run)) for run in free_runs(session)]
    synced = False
    freed = 0
    for (block, count), device in runs:
        if not isinstance(device, PunchableDevice):
            error = OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            raise DeviceError("this device cannot free space", error=error)
        if not synced:
            # What frees these blocks may be in the host's memory only: after a power cut they would be in use, and zero.
            device.sync()
            synced = True
        freed += device.punch(block * session.block_size, count * session.block_size)
        if advance:
            advance(count * session.block_size)
    return freed
