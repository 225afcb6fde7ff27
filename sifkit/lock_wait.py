"""Waiting for images that other processes use.

    with wait_for_images(60):
        clone("overlay.img", "job-1.img")

Inside the block whatever finds an image in use tries again until it is free, or the time is used up. Locks are asked for again
and again: the system has no wait for a lock that ends after some time, and mounts have no lock.

A lock that passes is waited for outside of such a block, too, for a moment. It is that of an open file, which lives on after
its close, or after the end of its process, while another process looks at it in /proc, as lsof does and each command that
looks for the users of an image. On a busy host that process may be stopped in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .errors import ImageInUseError

__all__ = ["retry_in_use", "wait_for_images", "without_waiting"]

T = TypeVar("T")
Notify = Callable[[ImageInUseError], None]
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts: each is twice as long as the one before."""
PASSING_SECONDS, PASSING_PAUSE = 0.2, 0.01
"""Seconds for which a lock may outlive its file, and between two attempts."""


class _Budget:
    """Time left for waiting; ``notify`` is called at the first wait for each image."""

    def __init__(self, seconds: float, notify: Notify | None) -> None:
        self.seconds = seconds
        self.left = seconds
        self._notify = notify
        self._notified: set[bytes | str | None] = set()

    def notify_once(self, error: ImageInUseError) -> None:
        if self._notify is not None and error.path not in self._notified:
            self._notified.add(error.path)
            self._notify(error)

    def pause(self, seconds: float) -> None:
        began = time.monotonic()
        time.sleep(min(seconds, self.left))
        self.left = max(0.0, self.left - (time.monotonic() - began))


class _Waiting(threading.local):
    """Budget of the block that each thread is in; None outside."""

    budget: _Budget | None = None


_waiting = _Waiting()


@contextmanager
def wait_for_images(seconds: float, notify: Notify | None = None) -> Iterator[None]:
    """Wait in the block for images that others use: ``seconds`` at most, all waits together.

    ``notify``: called with the error that would be raised, when the wait for an image begins.
    """
    with _with_budget(_Budget(seconds, notify)):
        yield


@contextmanager
def without_waiting() -> Iterator[None]:
    """Do not wait for users in the block."""
    with _with_budget(None):
        yield


@contextmanager
def _with_budget(budget: _Budget | None) -> Iterator[None]:
    before, _waiting.budget = _waiting.budget, budget
    try:
        yield
    finally:
        _waiting.budget = before


def retry_in_use(attempt: Callable[[], T]) -> T:
    """Return what ``attempt`` does; call it again while it raises ImageInUseError and there is time to wait."""
    budget = _waiting.budget
    if budget is None:
        return _retry_passing(attempt)
    pause = FIRST_PAUSE
    while True:
        try:
            return attempt()
        except ImageInUseError as error:
            if budget.left <= 0:
                error.hint = f"waited {budget.seconds:g} s; wait longer, or stop the container that uses it"
                raise
            budget.notify_once(error)
        budget.pause(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _retry_passing(attempt: Callable[[], T]) -> T:
    """Return what ``attempt`` does; call it again while it finds a lock that may pass, for a moment."""
    until = time.monotonic() + PASSING_SECONDS
    while True:
        try:
            return attempt()
        except ImageInUseError as error:
            if not error.may_pass or time.monotonic() >= until:
                raise
        time.sleep(PASSING_PAUSE)
