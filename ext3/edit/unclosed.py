"""Finalizer of a filesystem open for changes that nobody closed: it commits at garbage collection or at the end of the program.

Only in the process that opened it: a forked child has a copy of the changes, and would write them a second time.
"""

from __future__ import annotations

import os
import warnings
import weakref
from contextlib import ExitStack

from .inode_cache import InodeCache
from .session import Session

__all__ = ["close_session", "commit_when_forgotten"]


def close_session(session: Session, nodes: InodeCache) -> None:
    """Delete open files without names, commit, and mark the image as clean."""
    try:
        nodes.release_all()
    finally:
        nodes.abandon()
        session.close()


def commit_when_forgotten(
    owner: object, session: Session, nodes: InodeCache, files: ExitStack
) -> weakref.finalize[..., object]:
    """Return a finalizer that closes ``session`` and ``files`` when ``owner`` is collected, with a ResourceWarning.

    ``detach`` it when the owner is closed. The other arguments must not lead to ``owner``.
    """
    return weakref.finalize(owner, _commit, os.getpid(), session, nodes, files)


def _commit(pid: int, session: Session, nodes: InodeCache, files: ExitStack) -> None:
    if os.getpid() != pid:
        return
    with files:
        close_session(session, nodes)
    # Last: an error that a filter makes of it must not keep the changes back.
    warnings.warn("a filesystem open for changes was not closed; its changes are committed now", ResourceWarning, stacklevel=2)
