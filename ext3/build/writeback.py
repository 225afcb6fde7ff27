"""Write-back that keeps up with the writer: the final sync is then short, and a large image does not fill the page cache."""

from __future__ import annotations

from collections import deque

from ..device import FileDevice

__all__ = ["WriteBehind"]

BATCH_BYTES = 16 << 20
"""Written ranges are handed to the kernel in batches of this size."""
KEPT_BYTES = 128 << 20
"""What of a large image stays in memory behind the writer. Pages given back are the ones used next, which on a virtual machine
costs a third of what pages never touched before cost (1,000,000 files: 10 s against 25 s of copying)."""


class WriteBehind:
    """What one process has written lately. With ``release``, ranges long written also leave the page cache."""

    def __init__(self, device: FileDevice, *, release: bool) -> None:
        self.device = device
        self.release = release
        self._fresh: list[tuple[int, int]] = []
        self._fresh_bytes = 0
        self._started: deque[tuple[int, int]] = deque()
        self._started_bytes = 0

    def wrote(self, offset: int, size: int) -> None:
        """``size`` bytes at ``offset`` of the device were written and will not be written again."""
        self._fresh.append((offset, size))
        self._fresh_bytes += size
        if self._fresh_bytes < BATCH_BYTES:
            return
        for begin, length in self._fresh:
            self.device.start_writeback(begin, length)
        if self.release:
            self._started.extend(self._fresh)
            self._started_bytes += self._fresh_bytes
            while self._started_bytes > KEPT_BYTES:
                begin, length = self._started.popleft()
                self.device.start_writeback(begin, length)  # clean by now: this time the pages go
                self._started_bytes -= length
        self._fresh.clear()
        self._fresh_bytes = 0
