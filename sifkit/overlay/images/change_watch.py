"""Watch of an image that is read without a lock: who may write to it, and whether another process did while it was read.

What is read of an image while it is written is of no single moment: a directory may name files that have other content by
then. Compared are the time and size of the file, the superblock, and the position of the journal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from ext3 import hostio
from ext3.constants import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE

from ...errors import ImageChangedError, ImageInUseError, show
from ...in_use import ImageUse, fuse_servers, image_use
from .window import Window

__all__ = ["ChangeWatch", "ImageState"]

JournalPosition = tuple[int, int] | None
"""Sequence number and first block of the log; None without a journal that can be read."""


class ImageState(NamedTuple):
    """State of an image at one moment, as far as it shows that others write to it."""

    mtime_ns: int
    size: int
    superblock: bytes

    @classmethod
    def of(cls, window: Window) -> ImageState:
        """Return the state of the image in an open window. Raises OSError."""
        found = os.fstat(window.fd)
        superblock = hostio.read_at(window.fd, window.offset + SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)
        return cls(found.st_mtime_ns, found.st_size, superblock)


class ChangeWatch:
    """Watch of the image in ``window`` since ``before``, its state before it was opened.

    ``journal``: reads the position of its journal.
    """

    def __init__(self, window: Window, before: ImageState, journal: Callable[[], JournalPosition]) -> None:
        self._window = window
        self._before = before
        self._journal = journal
        self._position = _position(journal)

    def users(self) -> ImageUse:
        """Return those of the users of the image that may write to it."""
        use = image_use(self._window.path, span=self._window.span)
        servers = fuse_servers(os.fstat(self._window.fd))
        writing = tuple(server for server in servers if server.kind == "write" and server.pid != os.getpid())
        if use.lock != "write":
            use = use._replace(lock="none", holders=())
        return use._replace(mounts=tuple(mount for mount in use.mounts if not mount.read_only), servers=writing)

    def changed(self) -> bool:
        """Return True if the image was written to since it was opened, or cannot be read any more."""
        try:
            return ImageState.of(self._window) != self._before or _position(self._journal) != self._position
        except OSError:
            return True

    def check_unused(self) -> None:
        """Raise ImageInUseError if another process may write to the image."""
        users = self.users()
        if users.busy:
            path = self._window.path
            raise ImageInUseError(
                f"{show(path)} is in use: {users.describe()}",
                path=path,
                hint="wait until it is free, or stop the container that uses it",
                holders=tuple(f"{holder.pid} {holder.command}" for holder in (*users.holders, *users.servers)),
            )

    def check_unchanged(self) -> None:
        """Raise ImageChangedError if the image was written to."""
        if self.changed():
            raise ImageChangedError(f"{show(self._window.path)} changed while it was read", path=self._window.path)


def _position(journal: Callable[[], JournalPosition]) -> JournalPosition:
    try:
        return journal()
    except OSError:  # damaged: then the rest has to show it
        return None
