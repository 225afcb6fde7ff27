"""Finalizer of a filesystem open for changes that was left open: it commits at garbage collection or the program's end.

Only in the process that opened it: a forked child has a copy of the changes, and would write them a second time. And only if
the filesystem owns its device: a descriptor of the caller may be closed by then, and its number in use for another file.
"""

from __future__ import annotations

import os
import warnings
import weakref
from contextlib import ExitStack

from ..device.base import BlockDevice, FileDevice, MemoryDevice, PathOrFile
from .inode_cache import InodeCache
from .session import Session

__all__ = ["close_session", "commit_when_forgotten", "owns_file"]


def close_session(session: Session, nodes: InodeCache) -> None:
    """Delete open files without names, commit, and mark the image as clean."""
    try:
        nodes.release_all()
    finally:
        nodes.abandon()
        session.close()


def owns_file(where: PathOrFile | BlockDevice, device: BlockDevice) -> bool:
    """Return True if ``device``, opened from ``where``, stays what it is until its filesystem is collected.

    That is: a file opened by its path, memory, or a file object without a descriptor.
    """
    if isinstance(where, str | bytes | os.PathLike) or isinstance(device, MemoryDevice):
        return True
    return device is not where and not isinstance(device, FileDevice)


def commit_when_forgotten(
    owner: object, session: Session, nodes: InodeCache, files: ExitStack, *, owned: bool
) -> weakref.finalize[..., object]:
    """Return a finalizer that closes ``session`` and ``files`` when ``owner`` is collected, with a ResourceWarning.

    ``owned`` False: the device may be another file's by then, so it only warns.
    ``detach`` it when the owner is closed. The other arguments must not lead to ``owner``.
    """
    return weakref.finalize(owner, _commit, os.getpid(), session, nodes, files, owned)


def _commit(pid: int, session: Session, nodes: InodeCache, files: ExitStack, owned: bool) -> None:
    if os.getpid() != pid:
        return
    with files:
        if owned:
            close_session(session, nodes)
    # Last: an error that a filter makes of it must not keep the changes back.
    outcome = "its changes are committed now" if owned else "its changes since the last sync are lost"
    warnings.warn(f"a filesystem open for changes was not closed; {outcome}", ResourceWarning, stacklevel=2)
