"""Names that a program gave in the system call that it waits in."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest

from sifkit.runtime.fuse import waiting_call
from sifkit.runtime.fuse.waiting_call import called_names

pytestmark = pytest.mark.skipif(not waiting_call._PLACES, reason="the system calls of this machine are not known")


def names_of_child(work: Callable[[], object]) -> tuple[bytes, ...]:
    """Return the names in the call that a child waits in when it has begun to work."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
        os._exit(0)
    try:
        end = time.monotonic() + 5
        found: tuple[bytes, ...] = ()
        while not found and time.monotonic() < end:
            time.sleep(0.002)
            found = called_names(child)
        return found
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_the_last_component_of_a_path(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert names_of_child(lambda: os.open(tmp_path / "fifo", os.O_RDONLY)) == (b"fifo",)


def test_nothing_is_known_of_other_calls_and_threads() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(10)
        os._exit(0)
    assert called_names(child) == ()
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert called_names(child) == ()


def test_two_paths_and_one_that_reaches_the_next_page(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    long = b"/top/" + b"n" * 100 + b"/"
    start = mmap.PAGESIZE - 50
    memory[start : start + len(long) + 1] = long + b"\0"
    memory[:5] = b"d/e/\0"

    def read(path: str, offset: int, size: int) -> bytes:
        return (
            b"77 0x0 0x1000 0x0 %#x 0x0" % (0x1000 + start) if path == "/proc/5/syscall" else memory[offset - 0x1000 :][:size]
        )

    monkeypatch.setattr(waiting_call, "_read", read)
    monkeypatch.setattr(waiting_call, "_PLACES", {77: (1, 3)})
    assert called_names(5) == (b"e", b"n" * 100)
    monkeypatch.setattr(waiting_call, "_read", lambda *_: b"running")
    assert called_names(5) == ()


def test_memory_that_waits_for_the_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Event()
    monkeypatch.setattr(waiting_call, "PATIENCE", 0.01)
    monkeypatch.setattr(waiting_call, "_PLACES", {77: (0,)})
    monkeypatch.setattr(waiting_call, "_read", lambda *_: b"77 0x0")
    monkeypatch.setattr(waiting_call, "_text", lambda *_: b"late" if served.wait() else b"")
    assert called_names(5) == ()
    served.set()
    monkeypatch.setattr(waiting_call, "PATIENCE", 5)
    assert called_names(5) == (b"late",)
