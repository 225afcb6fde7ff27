"""Jobs shared among processes: every job once, results in order, errors raised, helpers gone."""

from __future__ import annotations

import os
import signal
import sys

import pytest

import ext3
from ext3.errors import ContentChangedError
from ext3.progress import Silent
from ext3.workers import Advance, cut, parallel_map, workers_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="helper processes are made on Linux only")


class Counting(Silent):
    def __init__(self) -> None:
        self.total = 0

    def advance(self, count: int) -> None:
        self.total += count


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_job_is_done_once_and_results_are_in_order(workers: int) -> None:
    progress = Counting()

    def work(number: int, advance: Advance) -> tuple[int, int]:
        advance(number)
        return number * number, os.getpid()

    results = parallel_map(1000, work, workers, progress)
    assert [square for square, _ in results] == [number * number for number in range(1000)]
    assert progress.total == sum(range(1000))


@pytest.mark.parametrize("least", [1, 7, 100])
@pytest.mark.parametrize("length", [0, 1, 6, 99, 100, 101, 5000])
def test_slices_are_all_of_it_and_of_equal_length(length: int, least: int) -> None:
    slices = cut(length, 12, least=least)
    assert [number for some in slices for number in range(length)[some]] == list(range(length))
    lengths = {some.stop - some.start for some in slices}
    assert len(slices) <= 12 and (not lengths or max(lengths) - min(lengths) <= 1)
    assert all(size >= min(least, length) for size in lengths)


def test_no_jobs() -> None:
    assert parallel_map(0, lambda number, advance: number, 2, Silent()) == []
    assert workers_for(0) == 1


def _no_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def test_an_error_of_a_helper_is_raised_with_its_facts() -> None:
    parent = os.getpid()

    def work(number: int, advance: Advance) -> None:
        if os.getpid() != parent:
            raise ext3.NoSpaceError("full", needed_bytes=7, available_bytes=3, hint="more")
        if number == 999:
            raise AssertionError("the helper did nothing")

    with pytest.raises(ext3.NoSpaceError) as caught:
        while True:  # until the helper had a job
            parallel_map(500, work, 2, Silent())
    assert (caught.value.needed_bytes, caught.value.hint, str(caught.value)) == (7, "more", "full")
    assert _no_children()


def test_an_error_here_ends_the_helpers() -> None:
    parent = os.getpid()

    def work(number: int, advance: Advance) -> None:
        if os.getpid() == parent:
            raise KeyboardInterrupt
        while True:
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        parallel_map(10, work, 3, Silent())
    assert _no_children()


def test_a_killed_helper_is_noticed() -> None:
    parent = os.getpid()

    def work(number: int, advance: Advance) -> None:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ext3.DeviceError, match="killed"):
        parallel_map(8000, work, 2, Silent())
    assert _no_children()


def test_exceptions_of_all_kinds_travel() -> None:
    import pickle

    for error in (
        ext3.SourceError(b"/a\xff", "bad", hint="x"),
        ContentChangedError(b"/b", "changed"),
        ext3.CorruptError("inode 5", "i_mode", 1, 2),
        ext3.UnsupportedError(["extent"]),
        ext3.DeviceError("io", error=OSError(28, "full")),
        ext3.NoInodesError(needed=5, available=3, enough=8),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.hint, again.__dict__) == (type(error), str(error), error.hint, error.__dict__)
        assert getattr(again, "errno", None) == getattr(error, "errno", None)
