"""A few processes that share one list of jobs: reading and writing files keeps more than one core busy.

The jobs' numbers wait in a pipe, each process takes the next: whoever is fast does more. Forked processes, because the work is
many short system calls, which threads of one interpreter would do one after the other.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from .errors import DeviceError
from .progress import Progress

__all__ = ["MOST_JOBS", "Advance", "Job", "cut", "share_out", "workers_for"]

MOST_WORKERS = 4
MOST_JOBS = 8192
"""Their numbers must fit a pipe (64 KiB on Linux) before anybody reads."""
_number = struct.Struct("=I")
_count = struct.Struct("=Q")

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

Result = TypeVar("Result")
Advance = Callable[[int], None]
"""Tells how much more is done."""
Job = Callable[[Advance], None]


def workers_for(jobs: int) -> int:
    """How many processes are worth while for so many jobs: 1 where this system or program cannot fork safely."""
    if sys.platform != "linux" or threading.active_count() > 1 or threading.current_thread() is not threading.main_thread():
        return 1
    return max(1, min(jobs // 2, MOST_WORKERS, len(os.sched_getaffinity(0))))


def cut(length: int, most: int, *, least: int = 1) -> list[slice]:
    """Slices of a sequence for at most ``most`` jobs, of about equal length; shorter than ``least`` only where all of it is."""
    count = max(1, min(most, length // least))
    return [slice(number * length // count, (number + 1) * length // count) for number in range(count)] if length else []


def share_out(
    jobs: int,
    work: Callable[[int, Advance], Result],
    workers: int,
    progress: Progress,
    *,
    meanwhile: Callable[[], None] | None = None,
) -> list[Result]:
    """``work(number, advance)`` of each number below ``jobs`` (at most MOST_JOBS), in order, done by ``workers`` processes.

    The first exception of any process is raised here, after all others ended. ``work`` must not depend on what other jobs
    left in memory; files are seen by all. Results are pickled where another process made them. ``meanwhile``: what this
    process does before it takes jobs, while the others begin.
    """
    if jobs > MOST_JOBS:
        raise ValueError(f"{jobs} jobs; at most {MOST_JOBS} can be shared out")
    jobs_out = _queue(jobs) if workers > 1 else None
    if jobs_out is None:
        if meanwhile is not None:
            meanwhile()
        return [work(number, progress.advance) for number in range(jobs)]
    done = mmap.mmap(-1, mmap.PAGESIZE)  # shared: what each helper advanced
    parent = os.getpid()
    helpers: dict[int, int] = {}
    told = [0] * workers

    def advance(count: int) -> None:
        for helper in range(1, workers):
            now = _count.unpack_from(done, helper * _count.size)[0]
            count += now - told[helper]
            told[helper] = now
        progress.advance(count)

    try:
        for helper in range(1, workers):
            report_out, report_in = os.pipe()
            # No signal between the fork and the moment when each side knows what to do with one.
            kept = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
            try:
                pid = _fork()
                if pid == 0:
                    _help(jobs_out, report_in, work, parent, _Counter(done, helper))
                os.close(report_in)
                helpers[pid] = report_out
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, kept)
        if meanwhile is not None:
            meanwhile()
        results = _take(jobs_out, work, advance)
        while helpers:
            results.update(_finish(*helpers.popitem()))
        advance(0)
    finally:
        for pid, report in helpers.items():
            os.kill(pid, signal.SIGKILL)  # ours, and not waited for yet: it cannot be another's number
            os.waitpid(pid, 0)
            os.close(report)
        os.close(jobs_out)
        done.close()
    return [results[number] for number in range(jobs)]


def _queue(jobs: int) -> int | None:
    """The reading end of a pipe with the jobs' numbers in it; None where it does not hold them (a user's pipes are limited)."""
    jobs_out, jobs_in = os.pipe()
    numbers = b"".join(map(_number.pack, range(jobs)))
    os.set_blocking(jobs_in, False)
    try:
        whole = os.write(jobs_in, numbers) == len(numbers)
    except BlockingIOError:
        whole = False
    os.close(jobs_in)
    if not whole:
        os.close(jobs_out)
        return None
    return jobs_out


class _Counter:
    """One helper's place in the shared counts."""

    def __init__(self, done: mmap.mmap, helper: int) -> None:
        self._done = done
        self._at = helper * _count.size

    def add(self, count: int) -> None:
        _count.pack_into(self._done, self._at, _count.unpack_from(self._done, self._at)[0] + count)


def _fork() -> int:
    with warnings.catch_warnings():
        # Threads of numpy's linear algebra, which nobody here uses, count as threads for Python 3.12's warning.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _take(jobs: int, work: Callable[[int, Advance], Result], advance: Advance) -> dict[int, Result]:
    """Do jobs until none is left; their results by number."""
    results = {}
    while raw := os.read(jobs, _number.size):
        number = _number.unpack(raw)[0]
        results[number] = work(number, advance)
    return results


def _help(jobs: int, report: int, work: Callable[[int, Advance], Result], parent: int, counter: _Counter) -> NoReturn:
    """What a helper does until it ends; it never returns. It tells (results, None) or (None, exception)."""
    try:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)  # the parent decides, and kills
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

        def advance(count: int) -> None:
            if os.getppid() != parent:
                os._exit(1)
            counter.add(count)

        try:
            told: tuple[object, object] = (_take(jobs, work, advance), None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent raises it
            told = (None, error)
        with suppress(OSError), open(report, "wb") as file:
            pickle.dump(told, file, protocol=pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)


def _finish(pid: int, report: int) -> dict[int, Any]:
    """Wait for a helper and take its results; raise what it raised."""
    try:
        with open(report, "rb") as file:
            raw = file.read()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.waitpid(pid, 0)
    try:
        results, error = pickle.loads(raw)
    except (EOFError, pickle.UnpicklingError) as cut_short:
        raise DeviceError("a helper process was killed", hint="try again; perhaps memory was short") from cut_short
    if error is not None:
        raise error
    found: dict[int, Any] = results
    return found
