"""Processes that a command has left behind: those whose root directory is still that of the container, and waiting for them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from ...errors import show
from .. import sys

__all__ = ["LEFT_BEHIND_SECONDS", "keep_until_ended", "processes_in", "still_used"]

NAMED = 5
"""Processes that are named at most."""
KEEPER_NAME = "sifkit-lock"
"""Name of the process that keeps a lock."""
LEFT_BEHIND_SECONDS, LOOK_PAUSE = 1.0, 0.05
"""Time in which the last processes of a container end after its command, and between two looks in it."""
KEEPER_PAUSE = 1.0
"""Seconds between two looks at processes that stay."""


def processes_in(device: int) -> list[tuple[int, str]]:
    """Return number and command of the processes whose root directory lies on ``device``, as ``st_dev`` gives it."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if _is_in(int(name), device):
                    with open(f"/proc/{name}/comm", "rb") as file:
                        found.append((int(name), os.fsdecode(file.read(64).rstrip(b"\n"))))
    return sorted(found)


def keep_until_ended(device: int, *, before: Callable[[], None]) -> bool:
    """Leave what this process has open to a forked one, until no process has its root directory on ``device``.

    Return False if there is none, or if they end in a moment. ``before``: is called first in the forked process.
    """
    until = time.monotonic() + LEFT_BEHIND_SECONDS
    while processes_in(device):
        if time.monotonic() >= until:
            if sys.fork() == 0:
                _keep(device, before)
            return True
        time.sleep(LOOK_PAUSE)
    return False


def _keep(device: int, before: Callable[[], None]) -> NoReturn:
    try:
        from ..fuse.mounting import IGNORED, close_inherited, replace_by_nothing

        os.setsid()
        os.chdir("/")
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        sys.name_process(KEEPER_NAME, sys.start_memory().words)
        replace_by_nothing(0, 1, 2)
        close_inherited()
        before()
        namespaces: list[int] = []
        while found := processes_in(device):
            if not namespaces:
                with suppress(OSError):  # it ends just now
                    # as long as its mounts are there, no other container's root gets the number of the device
                    namespaces.append(os.open(f"/proc/{found[0][0]}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
            while any(_is_in(pid, device) for pid, _ in found):  # a look at all processes of the host takes longer
                time.sleep(KEEPER_PAUSE)
    finally:
        os._exit(0)


def _is_in(pid: int, device: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/root").st_dev == device
    except OSError:
        return False


def still_used(image: str, device: int) -> str:
    """Return the note on an image that processes left behind in a container with its root on ``device`` still use."""
    found = processes_in(device)
    named = ", ".join(f"{pid} ({show(command)})" for pid, command in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    who = f"{named}{more}" if found else "processes that cannot be seen"
    return f"{show(image)} stays in use until what the command has left behind ends: {who}"
