"""Threads for what waits: who waits is measured, every task is done, errors are raised where the result is asked for."""

from __future__ import annotations

import threading
import time

import pytest

from ext3 import workers
from ext3.workers import Threads, WaitMeter


def measured(meter: WaitMeter, calls: int, seconds: float, monkeypatch: pytest.MonkeyPatch, *, cpu: float = 0.0) -> bool:
    """The meter after ``calls`` that took ``seconds``, of which the processor worked ``cpu``."""
    clock = [0.0, 0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "thread_time", lambda: clock[1])
    meter.start()
    clock[:] = [seconds, cpu]
    meter.count(calls)
    return meter.waits


def test_calls_that_wait_are_noticed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = WaitMeter()
    count = 0
    while not measured(meter, 40, 0.005, monkeypatch):
        count += 40
    assert 0 < count < 500


def test_few_calls_at_a_time_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = WaitMeter()
    assert not any(measured(meter, 1, 0.001, monkeypatch) for _ in range(20))
    assert any(measured(meter, 1, 0.001, monkeypatch) for _ in range(400))


def test_work_is_not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = WaitMeter()
    assert not any(measured(meter, 40, 0.5, monkeypatch, cpu=0.499) for _ in range(50))


def test_a_stall_now_and_then_is_not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = WaitMeter()
    for _ in range(50):
        assert not measured(meter, 40, 1.0, monkeypatch)
        assert not measured(meter, 40, 0.001, monkeypatch)


def test_once_calls_waited_it_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = WaitMeter()
    for _ in range(10):
        measured(meter, 40, 1.0, monkeypatch)
    assert measured(meter, 40, 0.0, monkeypatch)


def test_every_task_is_done_and_several_at_a_time() -> None:
    together = threading.Barrier(workers.THREADS)

    def work(task: int) -> int:
        if task < workers.THREADS:
            together.wait(timeout=60)  # each of these needs a thread of its own
        return task * task

    threads = Threads(work)
    try:
        for task in range(200):
            threads.put(task)
        assert sorted(threads.get() for _ in range(200)) == [(task, task * task) for task in range(200)]
        assert not threads.ready
    finally:
        threads.close()
    assert threading.active_count() == 1


def test_an_error_is_raised_by_get() -> None:
    def work(task: int) -> int:
        if task == 3:
            raise FileNotFoundError(2, "gone")
        return task

    threads = Threads(work)
    for task in range(5):
        threads.put(task)
    found = []
    for _ in range(5):
        try:
            found.append(threads.get()[0])
        except FileNotFoundError as error:
            found.append(error.errno + 100)
    threads.close()
    assert sorted(found) == [0, 1, 2, 4, 102]


def test_close_begins_no_more_tasks() -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def work(task: int) -> None:
        begun.append(task)
        go_on.wait(timeout=60)

    threads = Threads(work)
    for task in range(1000):
        threads.put(task)
    while len(begun) < workers.THREADS:
        time.sleep(0.001)
    threading.Timer(0.05, go_on.set).start()
    threads.close()
    assert len(begun) == workers.THREADS


@pytest.mark.parametrize("most", [0, 3])
def test_a_limit_of_threads_is_no_error(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    real, started = threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    threads = Threads(lambda task: -task)
    for task in range(10):
        threads.put(task)
    assert sorted(threads.get() for _ in range(10)) == [(task, -task) for task in range(10)]
    threads.close()
