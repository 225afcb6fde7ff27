"""Threads for work on many blocks: codecs release the interpreter's lock, so blocks decompress side by side.

They live no longer than the call that needs them: a process with idle threads could not fork safely (``ext3.workers``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["MAX_THREADS", "for_each", "usable_processors"]

Job = TypeVar("Job")
MAX_THREADS = 4
"""Most threads by default: beyond them the interpreter's lock is what they wait for."""


def usable_processors() -> int:
    """Return the number of processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def for_each(jobs: Iterable[Job], work: Callable[[Job], None], threads: int) -> None:
    """Call ``work`` with every job: in this thread, and in ``threads`` - 1 others that take jobs, too.

    After an exception no thread begins another job, and it is raised here when all have ended. ``jobs`` is iterated over by one
    thread at a time.
    """
    if threads <= 1:
        for job in jobs:
            work(job)
        return
    shared = _SharedJobs(iter(jobs), work)
    helpers: list[threading.Thread] = []
    try:
        for _ in range(threads - 1):
            helper = threading.Thread(target=shared.run, daemon=True)
            try:
                helper.start()
            except RuntimeError:  # at a user's limit: fewer threads do it
                break
            helpers.append(helper)
        shared.run()
    finally:
        shared.stop()
        for helper in helpers:
            helper.join()
    if shared.error is not None:
        raise shared.error


class _SharedJobs(Generic[Job]):
    """Jobs that several threads take from one iterator. ``error``: the first exception of any of them."""

    def __init__(self, jobs: Iterator[Job], work: Callable[[Job], None]) -> None:
        self.error: BaseException | None = None
        self._jobs = jobs
        self._work = work
        self._lock = threading.Lock()
        self._stopped = False

    def run(self) -> None:
        """Do jobs until none is left."""
        try:
            while True:
                with self._lock:
                    if self._stopped:
                        return
                    try:
                        job = next(self._jobs)
                    except StopIteration:
                        self._stopped = True
                        return
                self._work(job)
        except BaseException as error:  # noqa: BLE001 - for_each raises it
            self._stopped = True
            self.error = self.error or error

    def stop(self) -> None:
        """Begin no more jobs."""
        self._stopped = True
