"""Digests of images: of the bytes of a filesystem, remembered until its file changes.

A file is known by what changes whenever it is written or replaced, and by its first and last bytes, where filesystems have
their identity. A digest is remembered only of a file that was left alone for longer than clocks of filesystems are coarse:
otherwise a change at the same tick would not show.
"""

from __future__ import annotations

import hashlib
import os
import time

from ext3 import hostio
from ext3.progress import Progress

from ..planning.run_plan import Layer

__all__ = ["OpenImage"]

HEAD_BYTES, TAIL_BYTES = 8192, 65_536
READ_BYTES = 4 << 20
SETTLED_SECONDS = 3.0


class OpenImage:
    """Image of a layer, opened to be read. ``size``: in bytes. ``name``: of this state of its file; see the module."""

    def __init__(self, layer: Layer) -> None:
        """Raises OSError."""
        self.layer = layer
        self._fd = os.open(layer.path, os.O_RDONLY | hostio.NO_WAIT | os.O_CLOEXEC)
        try:
            self._found = os.fstat(self._fd)
            size = max(0, self._found.st_size - layer.offset)
            self.size = size if layer.size is None else min(layer.size, size)
            self.name = self._name()
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        os.close(self._fd)

    def is_unchanged(self) -> bool:
        """Return True if the path still has this file, as it was when it was opened. Raises OSError."""
        return _state(os.stat(self.layer.path)) == _state(self._found) == _state(os.fstat(self._fd))

    def is_settled(self) -> bool:
        """Return True if the file was left alone for so long that each further change shows."""
        return time.time() - max(self._found.st_ctime, self._found.st_mtime) > SETTLED_SECONDS

    def digest(self, progress: Progress) -> str:
        """Return the digest of the content, in which holes count by where they are. Raises OSError."""
        found = hashlib.sha256()
        for start, length in hostio.data_ranges(self._fd, self.layer.offset, self.size):
            found.update(b"%d %d\n" % (start - self.layer.offset, length))
            for offset in range(start, start + length, READ_BYTES):
                data = hostio.read_at(self._fd, offset, min(READ_BYTES, start + length - offset))
                found.update(data)
                progress.advance(len(data))
        found.update(b"%d\n" % self.size)
        return found.hexdigest()

    def _name(self) -> str:
        facts = os.path.realpath(self.layer.path), _state(self._found), self.layer.offset, self.size
        found = hashlib.sha256(repr(facts).encode("utf-8", "backslashreplace"))
        found.update(hostio.read_at(self._fd, self.layer.offset, min(HEAD_BYTES, self.size)))
        tail = min(TAIL_BYTES, self.size)
        found.update(hostio.read_at(self._fd, self.layer.offset + self.size - tail, tail))
        return found.hexdigest()


def _state(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
