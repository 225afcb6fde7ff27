"""Work shared by threads that end with the call."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sifkit.squashfs.block_threads import for_each, usable_processors

THREADS = pytest.mark.parametrize("threads", (0, 1, 3))


@THREADS
def test_every_job_is_done_once_and_no_thread_is_left(threads: int) -> None:
    done: list[int] = []
    before = threading.active_count()
    for_each(range(200), done.append, threads)
    assert sorted(done) == list(range(200))
    assert threading.active_count() == before


def test_jobs_are_done_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)
    for_each(range(2), lambda _: both.wait(), 2)
    assert not both.broken


@THREADS
def test_first_error_is_raised_and_ends_the_work(threads: int) -> None:
    taken: list[int] = []

    def work(job: int) -> None:
        taken.append(job)
        if job == 3:
            raise KeyError(job)

    with pytest.raises(KeyError):
        for_each(iter(range(100_000)), work, threads)
    assert len(taken) < 100_000
    assert threading.active_count() == 1 or threads > 1


@THREADS
def test_error_of_the_iterator_is_raised(threads: int) -> None:
    def jobs() -> Iterator[int]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        for_each(jobs(), lambda _: None, threads)


def test_work_is_done_without_further_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[int] = []
    for_each(range(5), done.append, 4)
    assert done == list(range(5))


def test_processors() -> None:
    assert usable_processors() >= 1
