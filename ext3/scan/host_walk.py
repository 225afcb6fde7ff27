"""Host walk: the directories below a source in canonical order, with read-ahead by threads on slow filesystems.

On a local disk lstat is answered from memory, and the interpreter lock serialises threads. On a network filesystem each call
waits for a server: sixteen threads wait for sixteen answers at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, Self

from ..constants import S_IFDIR, S_IFMT
from ..workers import THREADS, Threads, WaitMeter
from .directory_reader import FoundNames, HostDirectoryReader

__all__ = ["HostWalk", "Piece"]

PIECE_NAMES = 64
"""Names of a directory per task, so that a large directory keeps all threads busy."""
MAX_RUNNING = 2 * THREADS
"""Most tasks queued or running, so that a thread never waits for its next one."""
MAX_READ_AHEAD = 1 << 16
"""Most names read ahead and not handed out; the threads pause above it."""


class Piece(NamedTuple):
    """Some names of directory ``path``: the number listed, those found, or the error of the listing."""

    path: bytes
    listed: int
    found: FoundNames
    error: OSError | None = None


class _Task(NamedTuple):
    """Piece of a directory to read: its number, and its names, unknown for the first piece (0).

    ``key``: the directory's path with NUL for ``/``. Names contain no NUL, so tasks sort in canonical order.
    """

    key: bytes
    number: int
    names: Sequence[bytes] = ()

    @property
    def path(self) -> bytes:
        return self.key.replace(b"\0", b"/")


class HostWalk:
    """Walk over the directories of a HostDirectoryReader; a context manager that ends its threads.

    The caller's thread schedules the reads and keeps the order; the others only read.
    """

    def __init__(self, reader: HostDirectoryReader) -> None:
        self._reader = reader
        self._meter = WaitMeter()
        self._threads: Threads[_Task, tuple[Piece, list[_Task]]] | None = None
        self._order: list[_Task] = []
        """Heap of the tasks not handed out yet."""
        self._waiting: list[_Task] = []
        """Heap of the tasks not given to a thread yet."""
        self._running = 0
        self._read: dict[tuple[bytes, int], Piece] = {}
        """Pieces read by threads and not handed out yet."""
        self._held = 0

    def walk(self, top: bytes) -> Iterator[Piece]:
        """Yield the pieces of ``top`` and of the directories below it, in canonical order."""
        self._add([_Task(top.replace(b"/", b"\0"), 0)])
        self._meter.start()
        while self._order:
            task = heappop(self._order)
            yield self._read_here(task) if self._threads is None else self._wait_for(task)

    def _add(self, tasks: list[_Task]) -> None:
        for task in tasks:
            heappush(self._order, task)
            if self._threads is not None:
                heappush(self._waiting, task)

    def _read_here(self, task: _Task) -> Piece:
        piece, more = self._read_piece(task)
        self._meter.count(1 + piece.listed)  # includes the caller's work between pieces, which does not wait
        self._add(more)
        if self._meter.waits:
            self._waiting = self._order.copy()
            self._threads = Threads(self._read_piece)
        return piece

    def _wait_for(self, task: _Task) -> Piece:
        assert self._threads is not None
        wanted = (task.key, task.number)
        while wanted not in self._read or self._threads.ready:
            # If no task is running, the first one waiting is the wanted one.
            while self._waiting and self._running < MAX_RUNNING and (self._held < MAX_READ_AHEAD or not self._running):
                self._threads.put(heappop(self._waiting))
                self._running += 1
            done, (piece, more) = self._threads.get()
            self._running -= 1
            self._held += piece.listed
            self._read[done.key, done.number] = piece
            self._add(more)
        piece = self._read.pop(wanted)
        self._held -= piece.listed
        return piece

    def _read_piece(self, task: _Task) -> tuple[Piece, list[_Task]]:
        """Read a piece. Return it, and its new tasks: the other pieces of a first one, and subdirectories."""
        path, names = task.path, task.names
        more: list[_Task] = []
        if task.number == 0:
            try:
                names = self._reader.names(path)
            except OSError as error:
                return Piece(path, 0, FoundNames(), error), []
            starts = range(PIECE_NAMES, len(names), PIECE_NAMES)
            more = [_Task(task.key, number, names[start : start + PIECE_NAMES]) for number, start in enumerate(starts, 1)]
            names = names[:PIECE_NAMES]
        found = self._reader.lookup(path, names)
        base = task.key.rstrip(b"\0") + b"\0"  # empty for the host's root
        for _, (name, status, *_) in found.others:
            if status is not None and status.st_mode & S_IFMT == S_IFDIR and self._reader.enters(status.st_dev):
                more.append(_Task(base + name, 0))
        return Piece(path, len(names), found), more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._reader.stopped = True
            self._threads.close()
