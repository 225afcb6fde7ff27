"""Processes that a command has left behind: those whose root directory is still that of the container."""

from __future__ import annotations

import os
from contextlib import suppress

from ...errors import show

__all__ = ["processes_in", "still_used"]

NAMED = 5
"""Processes that are named at most."""


def processes_in(device: int) -> list[tuple[int, str]]:
    """Return number and command of the processes whose root directory lies on ``device``, as ``st_dev`` gives it."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{name}/root").st_dev == device:
                    with open(f"/proc/{name}/comm", "rb") as file:
                        found.append((int(name), os.fsdecode(file.read(64).rstrip(b"\n"))))
    return sorted(found)


def still_used(image: str, device: int) -> str:
    """Return the note on an image that processes left behind in a container with its root on ``device`` still use."""
    found = processes_in(device)
    named = ", ".join(f"{pid} ({show(command)})" for pid, command in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    who = f"{named}{more}" if found else "processes that cannot be seen"
    return f"{show(image)} stays in use until what the command has left behind ends: {who}"
