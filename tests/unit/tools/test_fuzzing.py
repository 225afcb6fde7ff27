"""The limits the fuzzers set: of the processor's time, for a machine may be busy with other things."""

from __future__ import annotations

import signal
import time

import pytest

from tools.fuzzing import time_limit

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")


def test_waiting_is_not_work() -> None:
    with time_limit(0.05):
        time.sleep(0.2)


def test_work_without_end_is_stopped() -> None:
    with pytest.raises(AssertionError, match=r"more than 0\.05 seconds"), time_limit(0.05):
        while True:
            pass


def test_waiting_without_end_is_stopped() -> None:
    with pytest.raises(AssertionError, match=r"more than 20 times 0\.01 seconds"), time_limit(0.01):
        time.sleep(60)
