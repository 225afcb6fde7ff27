"""Worker processes and threads.

``parallel_map``: forked processes, for work that keeps a processor busy, such as many short system calls, which threads of one
interpreter would make one after the other. The processes take job numbers from a pipe until it is empty. ``Threads``: for
work that waits, for a network filesystem or a cold disk. ``WaitMeter`` measures which it is.

Do not fork while threads run: the child would inherit their locks without the threads that release them.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, NoReturn, TypeVar, cast

from .errors import DeviceError
from .progress import Progress

__all__ = ["MAX_JOBS", "Advance", "Job", "Threads", "WaitMeter", "cut", "parallel_map", "workers_for"]

MAX_WORKERS = 4
MAX_JOBS = 8192
"""Most jobs: their numbers must fit a pipe (64 KiB on Linux) before any is read."""
THREADS = 16
WAIT_SECONDS = 1e-4
"""Wait per call above which threads pay: answers from memory take a hundredth of it, those of a server ten times as long."""
SAMPLE_CALLS = 16
"""Calls per sample."""
SLOW_SAMPLES = 3
"""Consecutive slow samples needed: a single one may have other causes."""
_number = struct.Struct("=I")
_count = struct.Struct("=Q")

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

Task = TypeVar("Task")
Result = TypeVar("Result")
Advance = Callable[[int], None]
"""Callback for progress, with the amount done since its last call."""
Job = Callable[[Advance], None]


def workers_for(jobs: int) -> int:
    """Return the number of processes to use for ``jobs`` jobs: 1 if this system or program cannot fork safely."""
    if sys.platform != "linux" or threading.active_count() > 1 or threading.current_thread() is not threading.main_thread():
        return 1
    return max(1, min(jobs // 2, MAX_WORKERS, len(os.sched_getaffinity(0))))


def cut(length: int, most: int, *, least: int = 1) -> list[slice]:
    """Return at most ``most`` slices of about equal length; shorter than ``least`` only if the whole sequence is."""
    count = max(1, min(most, length // least))
    return [slice(number * length // count, (number + 1) * length // count) for number in range(count)] if length else []


def parallel_map(jobs: int, work: Callable[[int, Advance], Result], workers: int, progress: Progress) -> list[Result]:
    """Return the results of ``work(number, advance)`` for each number below ``jobs`` (at most MAX_JOBS), in order.

    ``workers`` processes share the jobs: this one and forked helpers, whose results are pickled. ``work`` must not depend on
    what other jobs left in memory; changes to files are shared. The first exception of any process is raised here, after all
    others ended. If the numbers do not fit a pipe, this process does all jobs.
    """
    if jobs > MAX_JOBS:
        raise ValueError(f"{jobs} jobs; at most {MAX_JOBS} can be shared")
    jobs_out = _queue(jobs) if workers > 1 else None
    if jobs_out is None:
        return [work(number, progress.advance) for number in range(jobs)]
    done = mmap.mmap(-1, mmap.PAGESIZE)  # shared: progress of each helper
    parent = os.getpid()
    helpers: dict[int, int] = {}
    counted = [0] * workers

    def advance(count: int) -> None:
        for helper in range(1, workers):
            now = _count.unpack_from(done, helper * _count.size)[0]
            count += now - counted[helper]
            counted[helper] = now
        progress.advance(count)

    try:
        for helper in range(1, workers):
            report_out, report_in = os.pipe()
            # Block signals until both sides have set up their handling after the fork.
            kept = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
            try:
                pid = _fork()
                if pid == 0:
                    _help(jobs_out, report_in, work, parent, _Counter(done, helper))
                os.close(report_in)
                helpers[pid] = report_out
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, kept)
        results = _take(jobs_out, work, advance)
        while helpers:
            results.update(_finish(*helpers.popitem()))
        advance(0)
    finally:
        for pid, report in helpers.items():
            os.kill(pid, signal.SIGKILL)  # our child, not waited for yet: its pid cannot be reused
            os.waitpid(pid, 0)
            os.close(report)
        os.close(jobs_out)
        done.close()
    return [results[number] for number in range(jobs)]


def _queue(jobs: int) -> int | None:
    """Return the read end of a pipe filled with the job numbers; None if they do not fit (pipes per user are limited)."""
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
    """Progress counter of one helper in the shared memory."""

    def __init__(self, done: mmap.mmap, helper: int) -> None:
        self._done = done
        self._at = helper * _count.size

    def add(self, count: int) -> None:
        _count.pack_into(self._done, self._at, _count.unpack_from(self._done, self._at)[0] + count)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of the threads of numpy's linear algebra, which is not used here.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _take(jobs: int, work: Callable[[int, Advance], Result], advance: Advance) -> dict[int, Result]:
    """Do jobs until none is left. Return their results by number."""
    results = {}
    while raw := os.read(jobs, _number.size):
        number = _number.unpack(raw)[0]
        results[number] = work(number, advance)
    return results


def _help(jobs: int, report: int, work: Callable[[int, Advance], Result], parent: int, counter: _Counter) -> NoReturn:
    """Run a helper process: do jobs until none is left, and write (results, None) or (None, exception) to ``report``."""
    try:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)  # the parent handles signals, and kills helpers
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

        def advance(count: int) -> None:
            if os.getppid() != parent:
                os._exit(1)
            counter.add(count)

        try:
            outcome: tuple[object, object] = (_take(jobs, work, advance), None)
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            outcome = (None, error)
        with suppress(OSError), open(report, "wb") as file:
            pickle.dump(outcome, file, protocol=pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)


def _finish(pid: int, report: int) -> dict[int, Any]:
    """Wait for a helper and return its results. Raise its exception."""
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


class WaitMeter:
    """Meter that tells calls that wait (for a network filesystem or a cold disk) from calls that keep the processor busy.

    Waiting is wall-clock time less processor time of the thread. ``waits`` becomes True, and stays so, after SLOW_SAMPLES
    consecutive samples with an average wait above WAIT_SECONDS per call.
    """

    def __init__(self) -> None:
        self.waits = False
        self._began = 0.0
        self._waited = 0.0
        self._calls = 0
        self._slow_samples = 0

    def start(self) -> None:
        """Start the measurement."""
        self._began = time.perf_counter() - time.thread_time()

    def count(self, calls: int) -> None:
        """Add ``calls`` calls made since ``start`` or the last ``count``."""
        now = time.perf_counter() - time.thread_time()
        self._waited += now - self._began
        self._began = now
        self._calls += calls
        if self._calls >= SAMPLE_CALLS:
            self._slow_samples = self._slow_samples + 1 if self._waited > self._calls * WAIT_SECONDS else 0
            self.waits = self.waits or self._slow_samples >= SLOW_SAMPLES
            self._calls, self._waited = 0, 0.0


class Threads(Generic[Task, Result]):
    """Thread pool that calls ``work(task)``, for work that waits. Close it before forking processes."""

    def __init__(self, work: Callable[[Task], Result]) -> None:
        self._work = work
        self._closed = False
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[Task, Result | None, BaseException | None]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        with suppress(RuntimeError):  # at a user's limit: use fewer threads, or none
            for _ in range(THREADS):
                # Daemons, so that a call that never returns, as to a dead server, cannot keep the process from ending.
                thread = threading.Thread(target=self._run, daemon=True)
                thread.start()
                self._threads.append(thread)

    def put(self, task: Task) -> None:
        """Queue a task; without threads, do it now."""
        if self._threads:
            self._tasks.put(task)
        else:
            self._do(task)

    def get(self) -> tuple[Task, Result]:
        """Wait for a finished task, in any order. Return it with its result, or raise its exception."""
        task, result, error = self._results.get()
        if error is not None:
            raise error
        return task, cast(Result, result)

    @property
    def ready(self) -> bool:
        """True if a finished task is available."""
        return not self._results.empty()

    def close(self) -> None:
        """Drop queued tasks and wait for running ones."""
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None and not self._closed:
            self._do(task)

    def _do(self, task: Task) -> None:
        try:
            self._results.put((task, self._work(task), None))
        except BaseException as error:  # noqa: BLE001 - get() raises it
            self._results.put((task, None, error))
