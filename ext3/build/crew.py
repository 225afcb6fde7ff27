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

from .progress import Progress

__all__ = ["MOST_JOBS", "share_out", "workers_for"]

MOST_WORKERS = 4
MOST_JOBS = 8192
"""Their numbers must fit a pipe (64 KiB on Linux) before anybody reads."""
_number = struct.Struct("=I")
_count = struct.Struct("=Q")


def workers_for(jobs: int) -> int:
    """How many processes are worth while for so many jobs: 1 where this system or program cannot fork safely."""
    if sys.platform != "linux" or threading.active_count() > 1 or threading.current_thread() is not threading.main_thread():
        return 1
    return max(1, min(jobs, MOST_WORKERS, len(os.sched_getaffinity(0))))


def share_out(jobs: int, work: Callable[[int, Callable[[int], None]], None], workers: int, progress: Progress) -> None:
    """Call ``work(number, advance)`` once for each number below ``jobs`` (at most MOST_JOBS), in ``workers`` processes.

    The first exception of any process is raised here, after all others ended. ``work`` must not depend on what other jobs
    left in memory; files and shared memory are seen by all.
    """
    if workers <= 1:
        for number in range(jobs):
            work(number, progress.advance)
        return
    jobs_out, jobs_in = os.pipe()
    os.write(jobs_in, b"".join(map(_number.pack, range(jobs))))
    os.close(jobs_in)
    done = mmap.mmap(-1, mmap.PAGESIZE)  # shared: bytes done by each helper
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
            pid = _fork()
            if pid == 0:
                os.close(report_out)
                _help(jobs_out, report_in, work, parent, lambda count, at=helper: _add(done, at, count))  # type: ignore[misc]
            os.close(report_in)
            helpers[pid] = report_out
        _take(jobs_out, work, advance)
        while helpers:
            _finish(*helpers.popitem())
        advance(0)
    finally:
        for pid, report in helpers.items():
            os.kill(pid, signal.SIGKILL)  # ours, and not waited for yet: it cannot be another's number
            os.waitpid(pid, 0)
            os.close(report)
        os.close(jobs_out)
        done.close()


def _fork() -> int:
    with warnings.catch_warnings():
        # Threads of numpy's linear algebra, which nobody here uses, count as threads for Python 3.12's warning.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _take(jobs: int, work: Callable[[int, Callable[[int], None]], None], advance: Callable[[int], None]) -> None:
    while number := os.read(jobs, _number.size):
        work(_number.unpack(number)[0], advance)


def _add(done: mmap.mmap, helper: int, count: int) -> None:
    at = helper * _count.size
    _count.pack_into(done, at, _count.unpack_from(done, at)[0] + count)


def _help(
    jobs: int,
    report: int,
    work: Callable[[int, Callable[[int], None]], None],
    parent: int,
    advance: Callable[[int], None],
) -> None:
    """What a helper does until it ends; it never returns."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the parent decides, and kills

        def alive(count: int) -> None:
            if os.getppid() != parent:
                os._exit(1)
            advance(count)

        _take(jobs, work, alive)
        code = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent raises it
        with suppress(BaseException):
            os.write(report, pickle.dumps(error))
    finally:
        os._exit(code)


def _finish(pid: int, report: int) -> None:
    """Wait for a helper; raise what it raised."""
    try:
        with open(report, "rb") as file:
            trouble = file.read()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    if trouble:
        raise pickle.loads(trouble)
    if status:
        raise ChildProcessError(f"a helper process ended with status {os.waitstatus_to_exitcode(status)}")
